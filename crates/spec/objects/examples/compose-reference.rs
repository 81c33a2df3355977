//! Prints the reference page of Compose fields.

use std::io::Write;

fn main() -> std::io::Result<()> {
    std::io::stdout().write_all(carrack_objects::compose::reference().as_bytes())
}
