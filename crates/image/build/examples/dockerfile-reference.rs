//! Prints the reference page of Dockerfile instructions.

use std::io::Write;

fn main() -> std::io::Result<()> {
    let page = carrack_build::frontend::dockerfile::reference();
    std::io::stdout().write_all(page.as_bytes())
}
