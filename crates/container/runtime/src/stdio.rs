use std::io;
use std::os::fd::OwnedFd;

use carrack_linux::trusted;

/// What a process gets as standard input, output and error.
#[derive(Debug)]
pub enum Stdio {
    /// The caller's own.
    Inherit,
    /// These. Without an input it reads nothing.
    Pipes {
        /// Standard input.
        stdin: Option<OwnedFd>,
        /// Standard output.
        stdout: OwnedFd,
        /// Standard error.
        stderr: OwnedFd,
    },
    /// A terminal of the container, whose other end the caller gets.
    Terminal,
}

/// The descriptors to install, if any.
#[derive(Debug)]
pub(crate) struct Streams(Option<[OwnedFd; 3]>);

impl Stdio {
    /// Checked against what the configuration says about a terminal.
    pub(crate) fn into_streams(self, terminal: bool) -> Result<io::Result<Streams>, &'static str> {
        match (self, terminal) {
            (Self::Terminal, true) | (Self::Inherit, false) => Ok(Ok(Streams(None))),
            (Self::Pipes { stdin, stdout, stderr }, false) => {
                Ok(Streams::new(stdin, stdout, stderr))
            }
            (Self::Terminal, false) => Err(
                "a terminal is to be set up, and process.terminal is not set; set it, or give pipes",
            ),
            (Self::Inherit | Self::Pipes { .. }, true) => {
                Err("process.terminal is set, and nobody takes the terminal; give a console socket")
            }
        }
    }
}

impl Streams {
    fn new(stdin: Option<OwnedFd>, stdout: OwnedFd, stderr: OwnedFd) -> io::Result<Self> {
        let stdin = match stdin {
            Some(stdin) => stdin,
            None => trusted::empty_input()?,
        };
        Ok(Self(Some([stdin, stdout, stderr])))
    }

    /// Makes them this process's 0, 1 and 2.
    pub(crate) fn install(&self) -> io::Result<()> {
        let Some([stdin, stdout, stderr]) = &self.0 else { return Ok(()) };
        rustix::stdio::dup2_stdin(stdin)?;
        rustix::stdio::dup2_stdout(stdout)?;
        rustix::stdio::dup2_stderr(stderr)?;
        Ok(())
    }
}
