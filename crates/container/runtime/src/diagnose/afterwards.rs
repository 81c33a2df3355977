//! Programs that were executed and could not run all the same.
//!
//! When a library is missing the kernel starts the loader, and the loader ends with 127:
//! nobody notices but the person who looks at the log. Looking for every library before
//! each start would cost every good start. So it is done afterwards, only for those codes
//! that such ends have, and only what is wrong beyond doubt is said.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;

use super::format::Format;
use super::{Place, libraries};
use crate::plan::Plan;

/// Directories looked through when a process has no PATH.
const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// What made a container's program end with `code`, if that can be seen in its image.
pub(crate) fn explain_exit(plan: &Plan, code: i32) -> Option<String> {
    let process = plan.process.as_ref()?;
    let killed = [libc::SIGBUS, libc::SIGSEGV, libc::SIGKILL].map(|signal| 128 + signal);
    if !matches!(code, 126 | 127) && !killed.contains(&code) {
        return None;
    }
    let mounts: Vec<PathBuf> =
        plan.mounts.iter().map(|mount| Path::new("/").join(&mount.destination)).collect();
    let place = Place {
        root: RootedDir::open(&plan.rootfs).ok()?,
        cwd: &process.cwd,
        environment: &process.env,
        user: None,
        mounts: &mounts,
    };
    let name = process.args.first()?;
    let program = place.find(OsStr::from_bytes(name.as_bytes()))?;
    if code == 127 || code == 126 { place.unfit(&program) } else { place.short(&program) }
}

impl Place<'_> {
    /// Where PATH leads to a program of this name.
    fn find(&self, name: &OsStr) -> Option<PathBuf> {
        if name.as_bytes().contains(&b'/') {
            return (!self.is_covered(Path::new(name))).then(|| PathBuf::from(name));
        }
        let path = self.variable("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned());
        let mut candidates = path.split(':').map(|directory| Path::new(directory).join(name));
        let found = candidates.find(|candidate| {
            self.is_covered(candidate)
                || self.stat(candidate).is_some_and(|stat| stat.st_mode & 0o111 != 0)
        });
        found.filter(|candidate| !self.is_covered(candidate))
    }

    /// Loader, interpreter and libraries.
    fn unfit(&self, program: &Path) -> Option<String> {
        if let Some(fault) = self.fault(program, 0, 0) {
            return Some(fault);
        }
        match self.format(program)? {
            Format::Elf(elf) => {
                libraries::missing(self, program, elf).map(|missing| missing.to_string())
            }
            Format::Script(script) => {
                let interpreter = PathBuf::from(OsStr::from_bytes(&script.interpreter));
                if self.is_covered(&interpreter) {
                    return None;
                }
                let is_env = interpreter.file_name() == Some(OsStr::new("env"));
                if is_env && let Some(fault) = self.env(program, script.argument.as_deref()) {
                    return Some(fault);
                }
                self.unfit(&interpreter)
            }
            _ => None,
        }
    }

    /// What `env` is asked to find.
    fn env(&self, script: &Path, argument: Option<&[u8]>) -> Option<String> {
        let argument = String::from_utf8_lossy(argument?).into_owned();
        let split = argument.strip_prefix("-S").map(str::trim);
        let word = split.unwrap_or(&argument);
        let mut words = word.split_ascii_whitespace().filter(|word| !word.contains('='));
        let name = words.next()?;
        if name.starts_with('-') {
            return None;
        }
        if split.is_none() && word.contains(' ') {
            return Some(format!(
                "line 1 of {} hands env the one word {word:?}; write #!/usr/bin/env -S {word}",
                script.display()
            ));
        }
        self.is_nowhere(name).then(|| {
            format!(
                "line 1 of {} asks env for {name}, which is in no directory of PATH ({}); \
                 add it to the image",
                script.display(),
                self.variable("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned())
            )
        })
    }

    /// Whether no directory of PATH has it, nor may have had it while mounts were there.
    fn is_nowhere(&self, name: &str) -> bool {
        let path = self.variable("PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned());
        let mut candidates = path.split(':').map(|directory| Path::new(directory).join(name));
        !candidates.any(|candidate| self.is_covered(&candidate) || self.stat(&candidate).is_some())
    }

    fn short(&self, program: &Path) -> Option<String> {
        match self.format(program)? {
            Format::Elf(elf) => self.cut_off(program, &elf),
            _ => None,
        }
    }
}
