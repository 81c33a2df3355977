//! A journey: sentences proved one after the other on one fixture.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::time::Instant;

/// Runs steps in order and prints them as Rust's own test runner does.
#[derive(Debug, Default)]
pub struct Journey {
    passed: usize,
    failed: Vec<&'static str>,
    stopped: bool,
}

impl Journey {
    /// Proves one sentence. A failed step does not stop the journey.
    #[expect(clippy::print_stdout, reason = "this is a test runner")]
    pub fn step(&mut self, sentence: &'static str, proof: impl FnOnce()) {
        if self.stopped {
            println!("test {sentence} ... not reached");
            self.failed.push(sentence);
            return;
        }
        let started = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(proof));
        let seconds = started.elapsed().as_secs_f64();
        match outcome {
            Ok(()) => {
                println!("test {sentence} ... ok ({seconds:.1}s)");
                self.passed += 1;
            }
            Err(_) => {
                println!("test {sentence} ... FAILED ({seconds:.1}s)");
                self.failed.push(sentence);
            }
        }
    }

    /// Proves one sentence without which the rest makes no sense.
    pub fn required(&mut self, sentence: &'static str, proof: impl FnOnce()) {
        let before = self.failed.len();
        self.step(sentence, proof);
        self.stopped = self.failed.len() > before;
    }

    /// Whether a step failed so far.
    pub fn has_failed(&self) -> bool {
        !self.failed.is_empty()
    }

    /// Prints the count and says how the program ends.
    #[expect(clippy::print_stdout, reason = "this is a test runner")]
    pub fn end(self) -> ExitCode {
        for sentence in &self.failed {
            println!("failed: {sentence}");
        }
        let word = if self.failed.is_empty() { "ok" } else { "FAILED" };
        println!(
            "\ntest result: {word}. {} passed; {} failed; 0 ignored; 0 measured; 0 filtered out",
            self.passed,
            self.failed.len()
        );
        if self.failed.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}
