use super::*;

#[track_caller]
fn problems(text: &str, expected: &[&str]) {
    let found = match parse(text, "Dockerfile") {
        Ok(dockerfile) => panic!("was accepted: {dockerfile:?}"),
        Err(problems) => problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
    };
    assert_eq!(found, expected);
}

#[track_caller]
fn instructions(text: &str) -> Vec<Instruction> {
    let text = format!("FROM scratch\n{text}");
    let dockerfile = parse(&text, "Dockerfile").expect("is well formed");
    let stage = dockerfile.stages.into_iter().next().expect("has a stage");
    stage.instructions.into_iter().map(|located| located.value).collect()
}

#[track_caller]
fn runs(text: &str, expected: &str) {
    let found = instructions(text);
    let [Instruction::Run(Command::Shell(line))] = found.as_slice() else {
        panic!("not one shell command: {found:?}");
    };
    assert_eq!(line, expected);
}

#[test]
fn every_problem_is_reported_with_line_and_column() {
    problems(
        "FROM scratch\n  RUN --mount=type=cache,target=/x make\nONBUILD RUN x\nCOPY only\nFOO bar\n",
        &[
            "Dockerfile:2:7: the flag --mount of RUN is not supported",
            "Dockerfile:3:1: ONBUILD is not supported",
            "Dockerfile:4:1: COPY needs a destination after its source",
            "Dockerfile:5:1: there is no instruction `FOO`",
        ],
    );
}

#[test]
fn a_column_is_right_on_a_continuation_line() {
    problems(
        "FROM scratch\nENV a=1 \\\n  # a comment\n    b=2 é=3 c\n",
        &["Dockerfile:4:13: ENV takes pairs of the form name=value, and `c` has no `=`"],
    );
}

#[test]
fn remote_sources_and_unknown_flags_are_refused() {
    problems(
        "FROM scratch\nADD https://example.org/x /x\nCOPY --link a b\nCOPY --shine a b\n",
        &[
            "Dockerfile:2:5: ADD of a remote source is not supported: `https://example.org/x`",
            "Dockerfile:3:6: the flag --link of COPY is not supported",
            "Dockerfile:4:6: COPY has no flag --shine",
        ],
    );
}

#[test]
fn a_file_without_from_builds_nothing() {
    problems("# nothing\n", &["Dockerfile:1:1: the file has no FROM, so it builds nothing"]);
    problems("RUN true\n", &["Dockerfile:1:1: RUN stands before the first FROM"]);
}

#[test]
fn other_syntaxes_and_bad_directives_are_refused() {
    problems(
        "# syntax=example.org/other/language:1\nFROM scratch\n",
        &["Dockerfile:1:1: the syntax `example.org/other/language:1` is not supported; \
           only docker/dockerfile is"],
    );
    problems(
        "# escape=x\nFROM scratch\n",
        &["Dockerfile:1:1: the escape character is either \\ or `, not `x`"],
    );
    problems(
        "# escape=`\n# escape=\\\nFROM scratch\n",
        &["Dockerfile:2:1: the directive `escape` can be given only once"],
    );
}

#[test]
fn the_escape_directive_changes_the_continuation() {
    let dockerfile =
        parse("# escape=`\nFROM scratch\nRUN a `\n  b \\\nCMD x\n", "D").expect("well formed");
    assert_eq!(dockerfile.escape, '`');
    let stage = dockerfile.stages.first().expect("a stage");
    assert_eq!(stage.instructions.len(), 2);
}

#[test]
fn blank_and_comment_lines_do_not_end_a_continuation() {
    runs("RUN a && \\\n\n# why\n  b \\\n\n  c\n", "a &&   b   c");
}

#[test]
fn an_escaped_escape_does_not_continue_the_line() {
    let found = instructions("RUN echo \\\\\nRUN b\n");
    assert_eq!(found.len(), 2);
}

#[test]
fn heredocs_become_the_script_or_stay_for_the_shell() {
    runs("RUN <<EOF\na\n\tb\nEOF\n", "a\n\tb\n");
    runs("RUN <<-EOF\n\ta\n\tEOF\n", "a\n");
    runs("RUN cat <<EOF > /x\nhello\nEOF\n", "cat <<EOF > /x\nhello\nEOF");
    runs("RUN echo \"<<EOF\"\n", "echo \"<<EOF\"");
    problems("FROM scratch\nRUN <<EOF\na\n", &["Dockerfile:2:1: the heredoc `EOF` has no end"]);
}

#[test]
fn copy_takes_documents_from_the_file() {
    let found = instructions("COPY <<a.txt <<\"b.txt\" plain /to/\none\na.txt\ntwo\nb.txt\n");
    let [Instruction::Copy(transfer)] = found.as_slice() else { panic!("not a copy: {found:?}") };
    let names: Vec<_> = transfer.documents.iter().map(|d| (d.name.as_str(), d.expand)).collect();
    assert_eq!(names, [("a.txt", true), ("b.txt", false)]);
    assert_eq!(transfer.sources.len(), 1);
}

#[test]
fn durations_read_as_go_writes_them() {
    for (text, expected) in [
        ("30s", Some(30_000_000_000)),
        ("1m30s", Some(90_000_000_000)),
        ("1.5h", Some(5_400_000_000_000)),
        ("0", Some(0)),
        (".5s", Some(500_000_000)),
        ("5", None),
        ("", None),
        ("-5s", None),
        ("5 s", None),
    ] {
        assert_eq!(parse_duration(text), expected, "{text}");
    }
    problems(
        "FROM scratch\nHEALTHCHECK --interval=1us CMD x\n",
        &["Dockerfile:2:13: --interval is shorter than a millisecond: `1us`"],
    );
}

#[test]
fn stages_have_names_and_no_two_the_same() {
    let text = "ARG V=1\nFROM a:$V AS Build\nFROM --platform=$BUILDPLATFORM build as two\n";
    let dockerfile = parse(text, "D").expect("well formed");
    let names: Vec<_> = dockerfile.stages.iter().map(|stage| stage.name.as_deref()).collect();
    assert_eq!(names, [Some("build"), Some("two")]);
    problems(
        "FROM scratch AS a\nFROM scratch AS A\n",
        &["Dockerfile:2:1: two stages have the name `a`"],
    );
    problems(
        "FROM scratch AS 1a\n",
        &["Dockerfile:1:17: `1a` cannot name a stage: a letter first, then letters, digits, \
           `-`, `_` and `.`"],
    );
}

#[test]
fn an_endless_line_is_refused() {
    problems(
        &format!("FROM scratch\nENV a={}\n", "x".repeat(70_000)),
        &["Dockerfile:2:1: the line is longer than 65536 bytes; break it with \\"],
    );
}
