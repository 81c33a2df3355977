//! Links the program statically, as a position-independent executable.
//!
//! The runtime's program is copied into sealed memory and executed inside containers that
//! have no C library (see `carrack_linux::seal`), so it must need no other file. The
//! compiler's own static mode would build every dependency's build script statically too
//! and needs a flag outside the manifest. Instead the linker is told that each shared
//! library the standard library names is really a script that names the static one.

use std::path::Path;
use std::{env, fs, io};

/// What the standard library asks the linker for.
const LIBRARIES: [&str; 7] = ["c", "gcc_s", "m", "rt", "pthread", "dl", "util"];

const SCRIPT: &str = "GROUP ( -l:libc.a -l:libgcc.a -l:libgcc_eh.a )\n";

fn main() -> io::Result<()> {
    let directory = env::var_os("OUT_DIR").ok_or_else(|| io::Error::other("cargo sets OUT_DIR"))?;
    let directory = Path::new(&directory);
    for library in LIBRARIES {
        fs::write(directory.join(format!("lib{library}.so")), SCRIPT)?;
    }
    fs::write(directory.join("libgcc_s.a"), SCRIPT)?;
    let mut out = io::stdout().lock();
    // For the program alone: the tests of this package are linked as ever.
    let search = format!("cargo:rustc-link-arg-bins=-L{}\n", directory.display());
    io::Write::write_all(&mut out, search.as_bytes())?;
    io::Write::write_all(
        &mut out,
        b"cargo:rustc-link-arg-bins=-static-pie\ncargo:rerun-if-changed=build.rs\n",
    )
}
