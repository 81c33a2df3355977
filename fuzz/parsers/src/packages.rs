//! What a package mirror sends.

use carrack_build::frontend::packages::untrusted;

use crate::text::text;

pub(crate) fn deb(bytes: &[u8]) {
    untrusted::deb(bytes).ok();
}

pub(crate) fn deb822(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    untrusted::deb822(text).ok();
}

pub(crate) fn relations(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    untrusted::relations(text).ok();
}

pub(crate) fn release(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    untrusted::release(text).ok();
}

pub(crate) fn package_index(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    for package in ["redis-server", "a", ""] {
        untrusted::index(text, package);
    }
}

/// Keys, then the file they should have signed.
pub(crate) fn signed(bytes: &[u8]) {
    let Some(text) = text(bytes) else { return };
    let start = text.find("-----BEGIN PGP SIGNED MESSAGE").unwrap_or_default();
    let (keys, text) = text.split_at(start);
    untrusted::signed(text, keys.as_bytes()).ok();
}
