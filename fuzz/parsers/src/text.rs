//! What people write: names and files of text.

use std::path::Path;

use carrack_build::frontend::dockerfile::{self, ignore::Ignore};
use carrack_build::frontend::packages::Recipe;
use carrack_objects::{compose, policy};
use carrack_oci::{Digest, Reference};

/// The bytes as text, when they are; a parser of text is never given others.
pub(crate) fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

pub(crate) fn digest(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(digest) = text.parse::<Digest>() {
        assert_eq!(digest.to_string(), text);
        assert!(!digest.hex().contains(['/', '.']), "it is safe as a file name");
    }
}

pub(crate) fn reference(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Ok(reference) = text.parse::<Reference>() {
        assert_eq!(reference.to_string(), text);
        let full = reference.or_latest();
        assert_eq!(full.to_string().parse::<Reference>().unwrap(), full);
    }
}

pub(crate) fn dockerfile(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Err(problems) = dockerfile::parse(text, "Dockerfile") {
        assert!(!problems.is_empty(), "a refusal says why");
    }
}

pub(crate) fn dockerignore(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    Ignore::parse(text).ok();
}

pub(crate) fn recipe(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    Recipe::parse(text, Path::new("recipe.yaml")).ok();
}

pub(crate) fn compose(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let environment = compose::Environment {
        directory: "/shop".into(),
        project: None,
        variables: [("NAME".to_owned(), "value".to_owned())].into(),
    };
    if let Err(problems) = compose::parse(text, "compose.yaml", &environment) {
        assert!(!problems.is_empty(), "a refusal says why");
    }
}

pub(crate) fn policy(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    if let Err(problems) = policy::parse(text, "policy.yaml", "shop") {
        assert!(!problems.is_empty(), "a refusal says why");
    }
}
