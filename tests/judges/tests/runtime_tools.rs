//! Every program of the OCI validation suite passes that can pass here: what is not on the list
//! of exempt ones, with its reason, has to.

use std::process::ExitCode;

use carrack_judges::{Peer, Suite, exempt, missing, table};

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is a test runner")]
fn main() -> ExitCode {
    if missing(&["go", "unshare"]) {
        return ExitCode::SUCCESS;
    }
    let suite = match Suite::build() {
        Ok(suite) => suite,
        Err(reason) => {
            eprintln!("the suite cannot be built: {reason}");
            return ExitCode::FAILURE;
        }
    };
    let peers = Peer::all();
    let answers = suite.run(&peers);
    println!("{}", table(&peers, &answers));
    let exempt = exempt();
    let mut code = ExitCode::SUCCESS;
    for (name, outcomes) in &answers {
        let Some((ours, others)) = outcomes.split_first() else { continue };
        if ours.passed {
            continue;
        }
        let passed = others.iter().filter(|outcome| outcome.passed).count();
        if let Some(reason) = exempt.get(name.as_str()) {
            println!("exempt: {name}: {reason} (peers that pass: {passed})");
        } else {
            println!("FAILED: {name} (peers that pass: {passed})\n{}", ours.text);
            code = ExitCode::FAILURE;
        }
    }
    code
}
