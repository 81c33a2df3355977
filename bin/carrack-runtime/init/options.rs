//! The command line.

use core::ffi::CStr;

use crate::sys::Entry;

const VERSION: &str = concat!("carrack-init version ", env!("CARGO_PKG_VERSION"), "\n");

const HELP: &str = "\
carrack-init: starts a program, passes signals on to it, reaps, and ends as it ends

usage: carrack-init [-g] [-s] -- NAME ARGS…

  -g         signals go to the program's process group, not to the program alone
  -s         orphans come to this process, where it is not process 1 (a subreaper)
  --version  print the version
  --help     print this

It ends with the program's code, 128 and the number of the signal that ended it, 127 when
there is no such program, 126 when it cannot be executed, and 125 when it failed itself.
";

/// What is asked for.
pub(crate) enum Request {
    Run(Options),
    Say(&'static str),
}

/// A program to run.
pub(crate) struct Options {
    /// Signals go to the process group.
    pub(crate) to_group: bool,
    /// Orphans come here.
    pub(crate) subreaper: bool,
    /// The program's path, or its name where `search` says so.
    pub(crate) program: &'static CStr,
    /// Whether the program has to be looked for.
    pub(crate) search: bool,
    /// Where in our own arguments those of the program begin, from the zeroth on.
    pub(crate) first: usize,
}

impl Options {
    /// The runtime's spelling begins with a path, which has a slash; an option has none.
    pub(crate) fn read(entry: Entry) -> Result<Request, &'static str> {
        let (mut to_group, mut subreaper) = (false, false);
        for at in 1.. {
            let Some(word) = entry.argument(at) else { break };
            match word.to_bytes() {
                b"--" => {
                    let first = at + 1;
                    let program = entry.argument(first).ok_or("no program is named after --")?;
                    let search = !program.to_bytes().contains(&b'/');
                    let options = Self { to_group, subreaper, program, search, first };
                    return Ok(Request::Run(options));
                }
                b"-g" => to_group = true,
                b"-s" => subreaper = true,
                b"--version" => return Ok(Request::Say(VERSION)),
                b"-h" | b"--help" => return Ok(Request::Say(HELP)),
                path if at == 1 && path.contains(&b'/') => {
                    if entry.argument(2).is_none() {
                        return Err("write `-- NAME ARGS…`, with -- before the program");
                    }
                    let (program, search, first) = (word, false, 2);
                    return Ok(Request::Run(Self { to_group, subreaper, program, search, first }));
                }
                option if option.starts_with(b"-") => {
                    return Err("the options are -g, -s, --version and --help; see --help");
                }
                _ => return Err("write `-- NAME ARGS…`, with -- before the program"),
            }
        }
        Err("no program is named; write `-- NAME ARGS…`")
    }
}
