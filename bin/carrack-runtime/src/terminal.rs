//! The terminal of whoever runs us, lent to a container's.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::termios::{self, OptionalActions, OutputModes, Termios};

/// The terminal in raw mode; as it was again when this is dropped.
#[derive(Debug)]
pub(crate) struct Terminal {
    terminal: OwnedFd,
    before: Option<Termios>,
}

impl Terminal {
    /// That of the standard streams, or of the session when all of them lead elsewhere.
    ///
    /// # Errors
    ///
    /// When there is none.
    pub(crate) fn find() -> io::Result<Self> {
        let streams = [rustix::stdio::stderr(), rustix::stdio::stdout(), rustix::stdio::stdin()];
        let terminal = match streams.iter().find(|stream| termios::isatty(stream)) {
            Some(stream) => stream.try_clone_to_owned()?,
            None => {
                let missing = |error: io::Error| {
                    let message = format!(
                        "a terminal is asked for (process.terminal) and this command has none \
                         to connect it to: /dev/tty: {error}; run it from a terminal, or detach \
                         with --console-socket"
                    );
                    io::Error::new(error.kind(), message)
                };
                File::options().read(true).write(true).open("/dev/tty").map_err(missing)?.into()
            }
        };
        Ok(Self { terminal, before: None })
    }

    /// Its width and height.
    pub(crate) fn size(&self) -> Option<(u16, u16)> {
        let size = termios::tcgetwinsize(&self.terminal).ok()?;
        Some((size.ws_col, size.ws_row)).filter(|&(width, height)| width > 0 && height > 0)
    }

    /// Passes every key on to `console`, whose newlines this terminal completes.
    pub(crate) fn lend(&mut self, console: &OwnedFd) -> io::Result<()> {
        let before = termios::tcgetattr(&self.terminal)?;
        let mut raw = before.clone();
        raw.make_raw();
        raw.output_modes |= OutputModes::OPOST;
        termios::tcsetattr(&self.terminal, OptionalActions::Now, &raw)?;
        self.before = Some(before);
        self.resize(console);
        Ok(())
    }

    /// Gives `console` this terminal's size.
    pub(crate) fn resize(&self, console: &OwnedFd) {
        // Either may be gone by now, and then nobody looks.
        if let Ok(size) = termios::tcgetwinsize(&self.terminal) {
            termios::tcsetwinsize(console.as_fd(), size).ok();
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if let Some(before) = &self.before {
            // A terminal that was closed needs no restoring.
            termios::tcsetattr(&self.terminal, OptionalActions::Drain, before).ok();
        }
    }
}
