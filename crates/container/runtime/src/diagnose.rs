//! Why the kernel, or a program's loader, would not run a program.
//!
//! ```text
//! path, errno ──walk──▶ file ──format──▶ script ─▶ its interpreter, the same again
//!                                    └─▶ ELF ────▶ processor, loader, libraries
//! ```
//!
//! Nothing here runs unless something failed: right after `execve` did, in the process
//! that wanted to become the program, or once a container has ended with the code that a
//! loader ends with. Every path is resolved inside the root, and of each file a bounded part
//! is read.

mod afterwards;
mod arguments;
pub mod bytes;
pub mod cache;
pub mod elf;
pub mod format;
mod libraries;
mod walk;

use std::ffi::{CString, OsStr};
use std::io::Read as _;
use std::os::fd::AsFd as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use rustix::fs::{FileType, Mode, OFlags, Stat, StatVfsMountFlags};

pub(crate) use afterwards::explain_exit;
pub(crate) use arguments::too_long;
pub(crate) use walk::{Stop, walk};

use elf::{Broken, Elf};
use format::{Format, Script};

/// As deep as the kernel goes from script to interpreter.
const MAX_DEPTH: usize = 5;

/// Where a program is looked for, and as whom.
pub(crate) struct Place<'a> {
    pub(crate) root: RootedDir,
    pub(crate) cwd: &'a Path,
    pub(crate) environment: &'a [CString],
    /// Who executes it; `None` for somebody who may everything.
    pub(crate) user: Option<User<'a>>,
    /// Where mounts of the container cover what the root holds, if they are not there now.
    pub(crate) mounts: &'a [PathBuf],
}

/// Whose permissions count.
#[derive(Clone, Copy)]
pub(crate) struct User<'a> {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: &'a [u32],
}

impl Place<'_> {
    /// What is wrong with the program at `path`, which the kernel answered `errno` for.
    pub(crate) fn cause(&self, path: &Path, errno: i32) -> Option<String> {
        match errno {
            libc::ETXTBSY => {
                return Some("a process has it open for writing; close it first".to_owned());
            }
            libc::ELIBBAD => return Some("its loader is not a loader".to_owned()),
            _ => {}
        }
        self.fault(path, 0, errno)
    }

    fn fault(&self, path: &Path, depth: usize, errno: i32) -> Option<String> {
        if depth >= MAX_DEPTH {
            return Some(format!(
                "scripts that interpret scripts go deeper than the kernel's {MAX_DEPTH} levels"
            ));
        }
        if self.is_covered(path) {
            return None; // Whatever was there is not there now.
        }
        let found = match walk(&self.root, self.cwd, path) {
            Ok(found) => found,
            Err(stop) => return Some(stop.to_string()),
        };
        if let Some(fault) = self.forbidden(path, &found, errno) {
            return Some(fault);
        }
        match self.format(path) {
            Some(format) => self.unsuitable(path, format, depth, errno),
            None if errno == libc::EACCES => Some(format!(
                "{} is refused by its file system or a security module",
                path.display()
            )),
            None => None,
        }
    }

    /// What the file's kind, mode and mount say.
    fn forbidden(&self, path: &Path, found: &walk::Found, errno: i32) -> Option<String> {
        let shown = path.display();
        let mode = found.stat.st_mode;
        match FileType::from_raw_mode(mode) {
            FileType::RegularFile => {}
            FileType::Directory => return Some(format!("{shown} is a directory")),
            _ => return Some(format!("{shown} is not a regular file")),
        }
        if mode & 0o111 == 0 {
            return Some(format!(
                "{shown} has no execute bit (mode {:04o}); chmod +x it in the image",
                mode & 0o7777
            ));
        }
        let flags = rustix::fs::fstatvfs(found.file.as_fd()).ok()?.f_flag;
        if flags.contains(StatVfsMountFlags::NOEXEC) {
            return Some(format!("{shown} is on a mount with the option noexec"));
        }
        if errno == libc::EACCES
            && let Some(user) = self.user
            && !user.may_execute(&found.stat)
        {
            return Some(format!(
                "user {} may not execute {shown} (mode {:04o}, user {}, group {})",
                user.uid,
                mode & 0o7777,
                found.stat.st_uid,
                found.stat.st_gid
            ));
        }
        None
    }

    fn unsuitable(&self, path: &Path, format: Format, depth: usize, errno: i32) -> Option<String> {
        let shown = path.display();
        match format {
            Format::Script(script) => self.unsuitable_script(path, &script, depth, errno),
            Format::Elf(elf) => self.unsuitable_elf(path, &elf, errno),
            Format::Empty => Some(format!("the file {shown} is empty")),
            Format::Broken(Broken::Short) => {
                Some(format!("{shown} is cut off: it ends before its headers do; copy it again"))
            }
            Format::Broken(Broken::Senseless) => {
                Some(format!("{shown} begins as an ELF program and its headers make no sense"))
            }
            Format::Windows => {
                Some(format!("{shown} is a program for Windows; build it for Linux"))
            }
            Format::MacOs => Some(format!("{shown} is a program for macOS; build it for Linux")),
            Format::Text => Some(format!(
                "{shown} is text that does not begin with #! and the path of an interpreter, such as #!/bin/sh"
            )),
            Format::Unknown => {
                Some(format!("{shown} is neither a program nor a script that begins with #!"))
            }
        }
    }

    fn unsuitable_script(
        &self,
        path: &Path,
        script: &Script,
        depth: usize,
        errno: i32,
    ) -> Option<String> {
        let shown = path.display();
        let interpreter = String::from_utf8_lossy(&script.interpreter).into_owned();
        if script.carriage_return {
            return Some(format!(
                "the first line of {shown}, #!{interpreter}, ends in a carriage return; \
                 save it with Unix line endings"
            ));
        }
        if interpreter.is_empty() {
            return Some(format!("the first line of {shown} names no interpreter after #!"));
        }
        let fault = self.fault(Path::new(&interpreter), depth + 1, errno);
        fault.map(|fault| format!("its interpreter {interpreter} (line 1 of {shown}): {fault}"))
    }

    fn unsuitable_elf(&self, path: &Path, elf: &Elf, errno: i32) -> Option<String> {
        let shown = path.display();
        if !elf::runs_here(elf) {
            return Some(format!(
                "{shown} was built for {}{}, and this machine is {}; use an image for this machine",
                elf::machine_name(elf.machine, elf.little),
                if elf.little { "" } else { " (big-endian)" },
                std::env::consts::ARCH
            ));
        }
        if let Some(fault) = self.cut_off(path, elf) {
            return Some(fault);
        }
        if let Some(loader) = &elf.interpreter {
            let loader = Path::new(OsStr::from_bytes(loader));
            if self.is_covered(loader) {
                return None;
            }
            if let Err(stop) = walk(&self.root, self.cwd, loader) {
                return Some(format!(
                    "the loader of {shown}, {}, is missing: {stop}{}",
                    loader.display(),
                    of_loader(loader, elf)
                ));
            }
            let own = self.fault_of_loader(loader, errno);
            return own.map(|fault| format!("the loader of {shown}: {fault}"));
        }
        (errno == libc::EPERM).then(|| {
            format!(
                "{shown} may carry file capabilities that the container does not have; \
                 add them, or remove them from the file (setcap -r)"
            )
        })
    }

    fn fault_of_loader(&self, loader: &Path, errno: i32) -> Option<String> {
        let found = walk(&self.root, self.cwd, loader).ok()?;
        if let Some(fault) = self.forbidden(loader, &found, errno) {
            return Some(fault);
        }
        match self.format(loader)? {
            Format::Elf(elf) => self.cut_off(loader, &elf),
            Format::Script(_) => Some(format!("{} is a script", loader.display())),
            other => self.unsuitable(loader, other, MAX_DEPTH, errno),
        }
    }

    fn cut_off(&self, path: &Path, elf: &Elf) -> Option<String> {
        let length = u64::try_from(self.stat(path)?.st_size).ok()?;
        (elf.extent > length).then(|| {
            format!(
                "{} is cut off: it has {length} bytes and its headers speak of {}; copy it again",
                path.display(),
                elf.extent
            )
        })
    }

    fn stat(&self, path: &Path) -> Option<Stat> {
        walk(&self.root, self.cwd, path).ok().map(|found| found.stat)
    }

    /// What kind of program a file is; `None` when it cannot be read.
    fn format(&self, path: &Path) -> Option<Format> {
        let file = bytes::Opened::new(self.open(path)?).ok()?;
        Some(format::inspect(&file))
    }

    /// A regular file, opened for reading. Nothing else is: a pipe would block.
    fn open(&self, path: &Path) -> Option<std::os::fd::OwnedFd> {
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
        let stat = rustix::fs::fstat(self.root.handle(&self.cwd.join(path)).ok()?).ok()?;
        if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile {
            return None;
        }
        self.root.open_with(&self.cwd.join(path), flags, Mode::empty()).ok()
    }

    /// A small file, whole; `None` when it is not small.
    fn read_whole(&self, path: &Path, limit: u64) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = std::fs::File::from(self.open(path)?);
        file.take(limit + 1).read_to_end(&mut bytes).ok()?;
        (u64::try_from(bytes.len()).ok()? <= limit).then_some(bytes)
    }

    fn variable(&self, name: &str) -> Option<String> {
        self.environment.iter().find_map(|entry| {
            let entry = entry.to_string_lossy();
            let (key, value) = entry.split_once('=')?;
            (key == name).then(|| value.to_owned())
        })
    }

    /// Whether a mount that is not there now was over `path` while the container ran.
    fn is_covered(&self, path: &Path) -> bool {
        self.mounts.iter().any(|mount| self.cwd.join(path).starts_with(mount))
    }
}

/// Who makes such loaders.
fn of_loader(loader: &Path, elf: &Elf) -> &'static str {
    let name = loader.to_string_lossy();
    if name.contains("ld-musl") {
        "; it was built for musl (such as Alpine): add musl, or build it for this image or statically"
    } else if !elf.wide {
        "; it is a 32-bit program: add the 32-bit C library to the image"
    } else if name.contains("ld-linux") {
        "; it was built for glibc (such as Debian): add glibc, or build it for this image or statically"
    } else {
        "; add it to the image, or build the program statically"
    }
}

impl User<'_> {
    /// As the mode says for the class of this user.
    fn may_execute(self, stat: &Stat) -> bool {
        let class = if stat.st_uid == self.uid {
            0o100
        } else if stat.st_gid == self.gid || self.groups.contains(&stat.st_gid) {
            0o010
        } else {
            0o001
        };
        stat.st_mode & class != 0
    }
}
