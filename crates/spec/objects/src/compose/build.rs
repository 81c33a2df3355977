//! `build`: how a service's image is made.

use super::application::{AdditionalContext, Build};
use super::reading::Reading;
use crate::cursor::Cursor;
use indexmap::IndexMap;

/// Reads `build`, a directory or a mapping.
pub(super) fn read(reading: &mut Reading<'_>, at: &Cursor<'_>) -> Option<Build> {
    if !at.is_mapping() {
        let written = reading.text(at)?;
        let context = directory(reading, at, &written)?;
        return Some(Build { dockerfile: context.join("Dockerfile"), context, ..empty() });
    }
    let inline = at.get("dockerfile_inline").and_then(|at| reading.text(&at));
    let context = match at.get("context") {
        Some(at) => {
            let written = reading.text(&at)?;
            directory(reading, &at, &written)?
        }
        None => reading.host_path("."),
    };
    let dockerfile = match at.get("dockerfile") {
        Some(at) if inline.is_some() => {
            reading.wrong(&at, "and `dockerfile_inline` exclude each other");
            None
        }
        Some(at) => reading.text(&at),
        None => None,
    };
    let dockerfile =
        super::reading::normal(&context.join(dockerfile.as_deref().unwrap_or("Dockerfile")));
    Some(Build {
        dockerfile,
        context,
        dockerfile_inline: inline,
        args: at.get("args").map(|at| reading.variables(&at)).unwrap_or_default(),
        target: at.get("target").and_then(|at| reading.text(&at)),
        additional_contexts: at
            .get("additional_contexts")
            .map(|at| additional_contexts(reading, &at))
            .unwrap_or_default(),
        labels: at.get("labels").map(|at| reading.labels(&at)).unwrap_or_default(),
        tags: at.get("tags").map(|at| reading.list(&at)).unwrap_or_default(),
        no_cache: at.get("no_cache").and_then(|at| reading.boolean(&at)).unwrap_or(false),
    })
}

fn empty() -> Build {
    Build {
        context: Default::default(),
        dockerfile: Default::default(),
        dockerfile_inline: None,
        args: IndexMap::new(),
        target: None,
        additional_contexts: IndexMap::new(),
        labels: IndexMap::new(),
        tags: Vec::new(),
        no_cache: false,
    }
}

/// A directory of the host; whatever names another machine is refused.
fn directory(
    reading: &mut Reading<'_>,
    at: &Cursor<'_>,
    written: &str,
) -> Option<std::path::PathBuf> {
    if is_remote(written) {
        reading.wrong(at, "takes a directory; URLs are not supported yet");
        return None;
    }
    Some(reading.host_path(written))
}

fn is_remote(written: &str) -> bool {
    written.contains("://") || written.starts_with("git@") || written.starts_with("github.com/")
}

fn additional_contexts(
    reading: &mut Reading<'_>,
    at: &Cursor<'_>,
) -> IndexMap<String, AdditionalContext> {
    let pairs = reading.pairs(at);
    let mut contexts = IndexMap::new();
    for (name, value) in pairs {
        let Some(value) = value else {
            reading.wrong(at, format_args!("says nothing about `{name}`"));
            continue;
        };
        if let Some(context) = additional_context(reading, at, &value) {
            contexts.insert(name, context);
        }
    }
    contexts
}

fn additional_context(
    reading: &mut Reading<'_>,
    at: &Cursor<'_>,
    value: &str,
) -> Option<AdditionalContext> {
    if let Some(path) = value.strip_prefix("recipe://") {
        return Some(AdditionalContext::Recipe(reading.host_path(path)));
    }
    if let Some(service) = value.strip_prefix("service:") {
        return Some(AdditionalContext::Service(service.to_owned()));
    }
    if let Some(image) = value.strip_prefix("docker-image://") {
        return Some(AdditionalContext::Image(image.to_owned()));
    }
    if is_remote(value) {
        let takes = "takes `recipe://PATH`, `service:NAME`, `docker-image://NAME` or a directory";
        reading.wrong(at, format_args!("{takes}, not `{value}`"));
        return None;
    }
    Some(AdditionalContext::Directory(reading.host_path(value)))
}
