//! Process 1 of a container, as a program of its own: it starts another program, hands it
//! every signal, reaps what is left behind, and ends as that program ends.
//!
//! ```text
//! carrack-init PROGRAM ARG0 ARGS…        from the runtime, which found the program
//! carrack-init [-g] [-s] -- NAME ARGS…   from anybody: NAME is looked for in PATH
//! ```
//!
//! It needs nothing: no file, no library, no allocation. `build.rs` compiles it with the
//! compiler that compiles the runtime, which carries it as bytes, so what stays mapped in a
//! container is these few pages and nothing of the runtime.
//!
//! Signals are blocked and taken one at a time, so no handler ever runs. All go to the
//! program alone, or with `-g` to its whole process group. SIGTTIN and SIGTTOU are for this
//! process itself and are dropped; SIGKILL and SIGSTOP cannot be caught, so whoever wants
//! the program to stop sends SIGTSTP.
#![no_std]
#![no_main]
#![deny(unsafe_op_in_unsafe_fn, missing_docs)]

mod exec;
mod memory;
mod options;
mod say;
mod sys;

use options::{Options, Request};
use sys::{Entry, Errno, Signals};

/// A shell's code for a program that is not there.
const MISSING: i32 = 127;
/// A shell's code for a program that cannot be executed.
const UNUSABLE: i32 = 126;
/// Our own failures, as Docker numbers them.
const FAILED: i32 = 125;

fn main(entry: Entry) -> i32 {
    sys::set_name(c"carrack-init");
    match Options::read(entry) {
        Ok(Request::Run(options)) => run(&options, entry),
        Ok(Request::Say(text)) => {
            sys::write(sys::STDOUT, text.as_bytes());
            0
        }
        Err(problem) => {
            say::line(&[b"carrack-init: ", problem.as_bytes()]);
            FAILED
        }
    }
}

fn run(options: &Options, entry: Entry) -> i32 {
    // Blocked before the program exists, so that none is lost.
    sys::set_mask(Signals::ALL);
    if options.subreaper
        && let Err(errno) = sys::become_subreaper()
    {
        say::failure(b"taking in orphans", &[], errno);
        return FAILED;
    }
    let in_front = sys::foreground().is_ok_and(|group| group == sys::group());
    match sys::fork() {
        Err(errno) => {
            say::failure(b"starting a process", &[], errno);
            FAILED
        }
        Ok(0) => become_program(options, entry, in_front),
        Ok(program) => {
            let code = watch(program, options.to_group);
            if in_front {
                // Whoever had the terminal before us reads from it again.
                let _ = sys::set_foreground(sys::group());
            }
            code
        }
    }
}

/// In a process group of its own, in front of the terminal if we are.
///
/// Neither is possible everywhere, and a program runs without.
fn become_program(options: &Options, entry: Entry, in_front: bool) -> i32 {
    let own = sys::process();
    let _ = sys::make_group();
    if in_front {
        let _ = sys::set_foreground(own);
    }
    sys::reset_handlers();
    sys::set_mask(Signals::NONE);
    let (shown, errno) = exec::execute(options, entry);
    say::failure(b"executing ", shown, errno);
    if matches!(errno, Errno::NOENT | Errno::NOTDIR) { MISSING } else { UNUSABLE }
}

/// Passes signals on and reaps until the program has ended; its code.
///
/// The program's id cannot come to mean another process meanwhile: it is free only once
/// it was reaped, and that happens here.
fn watch(program: i32, to_group: bool) -> i32 {
    loop {
        match sys::next_signal() {
            sys::SIGCHLD => {
                if let Some(code) = reap(program) {
                    return code;
                }
            }
            sys::SIGTTIN | sys::SIGTTOU => {}
            // It may have just ended; its SIGCHLD is next.
            signal if to_group => drop(sys::kill(-program, signal)),
            signal => drop(sys::kill(program, signal)),
        }
    }
}

/// Reaps all that has ended; the program's code if it was among them.
fn reap(program: i32) -> Option<i32> {
    let mut code = None;
    while let Some((process, status)) = sys::reap_one() {
        if process == program {
            code = Some(status.shell_code());
        }
    }
    code
}
