//! Every parser of what strangers wrote, as a function of bytes.
//!
//! A parser's function panics when a promise is broken: that what was read is
//! written as the same, that nothing outside a directory changes, that a refused
//! archive leaves no name. `cargo fuzz` looks for bytes that make one panic (see
//! `fuzz/README.md`); `tests/seeds.rs` replays known ones in every test run.
#![expect(clippy::unwrap_used, reason = "a broken promise is reported by a panic")]

mod identity;
mod image;
mod packages;
mod program;
mod text;

/// A parser and how to try it.
#[derive(Clone, Copy, Debug)]
pub struct Parser {
    /// Its name: that of its fuzz target and of the folder of its seeds.
    pub name: &'static str,
    /// Tries it on some bytes. Panics when it breaks a promise.
    pub run: fn(&[u8]),
}

/// Every parser there is a fuzz target for.
pub const PARSERS: &[Parser] = &[
    Parser { name: "digest", run: text::digest },
    Parser { name: "reference", run: text::reference },
    Parser { name: "manifest", run: image::manifest },
    Parser { name: "index", run: image::index },
    Parser { name: "config", run: image::config },
    Parser { name: "archive", run: image::archive },
    Parser { name: "apply", run: image::apply },
    Parser { name: "load", run: image::load },
    Parser { name: "dockerfile", run: text::dockerfile },
    Parser { name: "dockerignore", run: text::dockerignore },
    Parser { name: "recipe", run: text::recipe },
    Parser { name: "compose", run: text::compose },
    Parser { name: "policy", run: text::policy },
    Parser { name: "deb", run: packages::deb },
    Parser { name: "deb822", run: packages::deb822 },
    Parser { name: "relations", run: packages::relations },
    Parser { name: "release", run: packages::release },
    Parser { name: "package_index", run: packages::package_index },
    Parser { name: "signed", run: packages::signed },
    Parser { name: "spiffe_id", run: identity::spiffe_id },
    Parser { name: "svid", run: identity::svid },
    Parser { name: "bundle", run: identity::bundle },
    Parser { name: "program", run: program::program },
];

/// Tries the parser called `name` on `bytes`.
///
/// # Panics
///
/// When there is no such parser, or when it breaks a promise.
pub fn run(name: &str, bytes: &[u8]) {
    let parser = PARSERS.iter().find(|parser| parser.name == name).expect("a known parser");
    (parser.run)(bytes);
}
