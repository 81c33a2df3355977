//! Links the program statically, as a position-independent executable, and compiles the
//! container's init (`init/`), which it carries as bytes.
//!
//! The runtime's program is copied into sealed memory and executed inside containers that
//! have no C library (see `carrack_linux::seal`), so it must need no other file. The
//! compiler's own static mode would build every dependency's build script statically too
//! and needs a flag outside the manifest. Instead the linker is told that each shared
//! library the standard library names is really a script that names the static one.

use std::ffi::OsString;
use std::path::Path;
use std::process::Command;
use std::{env, fs, io};

/// What the standard library asks the linker for.
const LIBRARIES: [&str; 7] = ["c", "gcc_s", "m", "rt", "pthread", "dl", "util"];

const SCRIPT: &str = "GROUP ( -l:libc.a -l:libm.a -l:libgcc.a -l:libgcc_eh.a )\n";

/// The init has no library below it, so nothing of the linker's usual set is wanted.
const FREESTANDING: [&str; 9] = [
    "-Cpanic=abort",
    "-Copt-level=s",
    "-Cstrip=symbols",
    "-Crelocation-model=static",
    "-Cdebug-assertions=off",
    "-Clink-arg=-nostartfiles",
    "-Clink-arg=-nostdlib",
    "-Clink-arg=-static",
    "-Clink-arg=-Wl,--gc-sections,--build-id=none,-z,noexecstack",
];

fn main() -> io::Result<()> {
    let directory = variable("OUT_DIR")?;
    let directory = Path::new(&directory);
    for library in LIBRARIES {
        fs::write(directory.join(format!("lib{library}.so")), SCRIPT)?;
    }
    fs::write(directory.join("libgcc_s.a"), SCRIPT)?;
    compile_init(&directory.join("carrack-init"))?;
    let mut out = io::stdout().lock();
    // For the program alone: the tests of this package are linked as ever.
    let search = format!("cargo:rustc-link-arg-bins=-L{}\n", directory.display());
    io::Write::write_all(&mut out, search.as_bytes())?;
    io::Write::write_all(
        &mut out,
        b"cargo:rustc-link-arg-bins=-static-pie\ncargo:rerun-if-changed=build.rs\n\
          cargo:rerun-if-changed=init\n",
    )
}

fn variable(name: &str) -> io::Result<OsString> {
    env::var_os(name).ok_or_else(|| io::Error::other(format!("cargo sets {name}")))
}

/// With the compiler and for the machine that cargo compiles the rest with and for.
fn compile_init(program: &Path) -> io::Result<()> {
    let mut compiler = Command::new(variable("RUSTC")?);
    compiler
        .args(["--edition=2024", "--crate-type=bin", "--crate-name=carrack_init", "-Dwarnings"])
        .args(FREESTANDING)
        .arg("--target")
        .arg(variable("TARGET")?)
        .arg("-o")
        .arg(program)
        .arg("init/main.rs");
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut option = OsString::from("-Clinker=");
        option.push(linker);
        compiler.arg(option);
    }
    let status = compiler.status()?;
    if status.success() {
        Ok(())
    } else {
        Err(io::Error::other(format!("compiling init/main.rs: {status}")))
    }
}
