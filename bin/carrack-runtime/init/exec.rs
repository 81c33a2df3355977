//! Finding a program and becoming it.

use core::ffi::CStr;

use crate::options::Options;
use crate::sys::{self, Entry, Errno};

/// Where programs are looked for when the environment does not say.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// As long as a path can be.
const PATH_MAX: usize = 4096;

/// Becomes the program; returns only what could not be executed, and why.
pub(crate) fn execute(options: &Options, entry: Entry) -> (&'static [u8], Errno) {
    let name = options.program.to_bytes();
    if !options.search {
        return (name, sys::execute(options.program, entry, options.first));
    }
    let path = entry.variable(b"PATH").unwrap_or(DEFAULT_PATH);
    let mut buffer = [0; PATH_MAX];
    let mut worst = Errno::NOENT;
    for directory in path.split(|&byte| byte == b':') {
        let Some(candidate) = join(&mut buffer, directory, name) else { continue };
        match sys::execute(candidate, entry, options.first) {
            Errno::NOENT | Errno::NOTDIR => {}
            // A program further on may be allowed; if none is there, this is the answer.
            Errno::ACCES => worst = Errno::ACCES,
            errno => return (name, errno),
        }
    }
    (name, worst)
}

/// `directory/name`, or `./name` for an empty directory; `None` where that is too long.
fn join<'a>(buffer: &'a mut [u8], directory: &[u8], name: &[u8]) -> Option<&'a CStr> {
    let directory = if directory.is_empty() { b"." } else { directory };
    let end = directory.len().checked_add(name.len())?.checked_add(2)?;
    let place = buffer.get_mut(..end)?;
    let (front, back) = place.split_at_mut(directory.len());
    front.copy_from_slice(directory);
    let (slash, back) = back.split_first_mut()?;
    *slash = b'/';
    let (nul, back) = back.split_last_mut()?;
    *nul = 0;
    back.copy_from_slice(name);
    CStr::from_bytes_with_nul(place).ok()
}
