//! Every instruction, flag and directive of a Dockerfile: what works and what is refused.
//!
//! The parser asks this table, and the reference page is written from it, so the two
//! cannot disagree.

/// What becomes of something a Dockerfile may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Support {
    /// It works, with a remark or none.
    Works(&'static str),
    /// It is refused, with a way around it or none.
    Refused(&'static str),
}

use Support::{Refused, Works};

/// Instructions, and their flags after a space.
const SUPPORT: &[(&str, Support)] = &[
    (
        "ADD",
        Works(
            "files, directories, and tar archives as they are or packed with gzip, xz or zstd; of a URL it is refused: fetch in a `RUN`, with a checksum",
        ),
    ),
    ("ADD --checksum", Refused("")),
    ("ADD --chmod", Works("octal")),
    ("ADD --chown", Works("")),
    ("ADD --exclude", Refused("use .dockerignore")),
    ("ADD --keep-git-dir", Refused("")),
    ("ADD --link", Refused("")),
    ("ADD --unpack", Refused("")),
    ("ARG", Works("before `FROM` too; `HTTP_PROXY` and its like need none")),
    ("CMD", Works("")),
    ("COPY", Works("with documents that stand in the Dockerfile (`<<EOF`)")),
    ("COPY --chmod", Works("octal")),
    ("COPY --chown", Works("")),
    ("COPY --exclude", Refused("use .dockerignore")),
    ("COPY --from", Works("a stage, an image of the store, or a named context")),
    ("COPY --link", Refused("")),
    ("COPY --parents", Refused("")),
    ("ENTRYPOINT", Works("")),
    ("ENV", Works("")),
    ("EXPOSE", Works("")),
    ("FROM", Works("an image of the store, `scratch`, a stage, or a named context")),
    ("FROM --platform", Works("only this machine's")),
    ("HEALTHCHECK", Works("")),
    ("HEALTHCHECK --interval", Works("")),
    ("HEALTHCHECK --retries", Works("")),
    ("HEALTHCHECK --start-interval", Works("")),
    ("HEALTHCHECK --start-period", Works("")),
    ("HEALTHCHECK --timeout", Works("")),
    ("LABEL", Works("")),
    ("MAINTAINER", Refused("use LABEL org.opencontainers.image.authors")),
    ("ONBUILD", Refused("")),
    ("RUN", Works("both forms, and scripts that stand in the Dockerfile (`<<EOF`) without `#!`")),
    ("RUN --device", Refused("")),
    ("RUN --mount", Refused("")),
    ("RUN --network", Refused("give the whole build a network with `carrack build --network`")),
    ("RUN --security", Refused("")),
    ("SHELL", Works("")),
    ("STOPSIGNAL", Works("")),
    ("USER", Works("")),
    ("VOLUME", Works("")),
    ("WORKDIR", Works("")),
];

/// What becomes of an instruction. `None`: there is none of that name.
pub(super) fn instruction(keyword: &str) -> Option<Support> {
    SUPPORT.iter().find(|(name, _)| *name == keyword).map(|(_, support)| *support)
}

/// What becomes of a flag, without its dashes. `None`: the instruction has none of that name.
pub(super) fn flag(keyword: &str, flag: &str) -> Option<Support> {
    let is_it = |name: &str| name.split_once(" --") == Some((keyword, flag));
    SUPPORT.iter().find(|(name, _)| is_it(name)).map(|(_, support)| *support)
}

/// `; ` and the way around, if there is one.
pub(super) fn remedy(words: &str) -> String {
    if words.is_empty() { String::new() } else { format!("; {words}") }
}

/// The reference page of what a Dockerfile may say, as Markdown.
#[must_use]
pub fn reference() -> String {
    let mut page = String::from(
        "# Dockerfile instructions\n\n\
         Generated from `crates/image/build/src/frontend/dockerfile/support.rs`; do not edit.\n\n\
         What is refused stops a build with its line and column before anything is done; all \
         problems are told at once, and nothing is ignored in silence. The directives `# escape=` \
         and `# syntax=docker/dockerfile…` work; `# check=` has no effect; another syntax is \
         refused. Variables take every form of Docker's: `$a`, `${a}`, `${a:-b}`, `${a:+b}`, \
         `${a:?b}`, the same without the colon, `${a#b}`, `${a##b}`, `${a%b}`, `${a%%b}`, \
         `${a/b/c}` and `${a//b/c}`. `.dockerignore`, or `NAME.dockerignore` beside the Dockerfile \
         `NAME`, works with `!` and `**`.\n\n\
         Files from the build context belong to root unless `--chown` says otherwise; files from \
         a stage or image keep their owners.\n\n\
         A step is not run again while what it depends on is the same: the step itself, the layers \
         it stands on, and the content, mode and links of the files it brings in. Layers are the \
         same bytes whenever and wherever they are made: entries sorted, not compressed, times not \
         later than SOURCE_DATE_EPOCH (1970 where nobody says otherwise).\n\n\
         | | here | |\n|---|---|---|\n",
    );
    for (name, support) in SUPPORT {
        let (word, note) = match support {
            Works(note) => ("works", note),
            Refused(note) => ("refused", note),
        };
        page.push_str(&format!("| `{name}` | {word} | {note} |\n"));
    }
    page
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frontend::dockerfile::parse;

    #[test]
    fn the_parser_knows_what_the_table_says_and_no_more() {
        for (name, support) in SUPPORT {
            if name.contains(' ') {
                continue;
            }
            let text = format!("FROM scratch\n{name}\n");
            let message = match parse(&text, "D") {
                Ok(_) => String::new(),
                Err(problems) => problems.iter().map(|problem| problem.message.as_str()).collect(),
            };
            let refused = message.contains("is not supported");
            assert_eq!(refused, matches!(support, Refused(_)), "{name}: {message}");
            assert!(!message.starts_with("there is no instruction"), "{name}: {message}");
        }
    }

    #[test]
    fn the_reference_page_says_what_the_table_says() {
        let page = include_str!("../../../../../../docs/reference/dockerfile.md");
        assert!(
            page == reference(),
            "docs/reference/dockerfile.md is out of date; write it again with `cargo run -p \
             carrack-build --example dockerfile-reference > docs/reference/dockerfile.md`"
        );
    }
}
