use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use carrack_linux::process;
use carrack_linux::rooted::RootedDir;
use rustix::fs::{Mode, OFlags};

use crate::failure::{Attempt, Failure, FailureKind};
use crate::plan::ProcessPlan;

const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where a program is.
pub(crate) struct Program {
    path: CString,
}

impl Program {
    /// Finds the program a process names, as `execvp` would.
    pub(crate) fn find(process: &ProcessPlan) -> Result<Self, Failure> {
        let name = process.args.first().map_or(c"", CString::as_c_str);
        let candidates = candidates(process, name);
        let mut unusable = None;
        for candidate in candidates {
            match check(&candidate, &process.cwd) {
                Ok(()) => {
                    let path =
                        CString::new(candidate.into_os_string().as_bytes()).unwrap_or_default();
                    return Ok(Self { path });
                }
                Err(error) if is_missing(&error) => {}
                Err(error) => unusable = unusable.or(Some((candidate, error))),
            }
        }
        match unusable {
            Some((path, error)) => {
                Err(Failure::new(format!("finding program {}", path.display()), &error)
                    .kind(FailureKind::ProgramUnusable))
            }
            None => Err(missing(process, name)),
        }
    }
}

fn missing(process: &ProcessPlan, name: &CStr) -> Failure {
    let name = name.to_string_lossy();
    let hint = if name.contains('/') {
        "there is no such file in the image".to_owned()
    } else {
        format!("it is in no directory of PATH ({})", search_path(process))
    };
    Failure::refused(format!("finding program {name:?}"), hint).kind(FailureKind::ProgramMissing)
}

fn search_path(process: &ProcessPlan) -> String {
    variable(&process.env, "PATH").unwrap_or_else(|| DEFAULT_PATH.to_owned())
}

fn variable(environment: &[CString], name: &str) -> Option<String> {
    environment.iter().find_map(|entry| {
        let entry = entry.to_string_lossy();
        let (key, value) = entry.split_once('=')?;
        (key == name).then(|| value.to_owned())
    })
}

fn candidates(process: &ProcessPlan, name: &CStr) -> Vec<PathBuf> {
    let name = Path::new(OsStr::from_bytes(name.to_bytes()));
    if name.as_os_str().as_bytes().contains(&b'/') {
        return vec![name.to_owned()];
    }
    search_path(process)
        .split(':')
        .map(|directory| Path::new(if directory.is_empty() { "." } else { directory }).join(name))
        .collect()
}

fn is_missing(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory)
}

fn open(path: &Path, cwd: &Path, flags: OFlags) -> io::Result<OwnedFd> {
    RootedDir::open(Path::new("/"))?.open_with(&cwd.join(path), flags, Mode::empty())
}

/// Whether it is a file with an executable bit. Whether this user may execute it is for
/// the kernel to say.
fn check(path: &Path, cwd: &Path) -> io::Result<()> {
    // A link of /proc, such as /proc/self/exe, is left to the kernel too.
    let file = match open(path, cwd, OFlags::PATH) {
        Err(error) if error.raw_os_error() == Some(libc::ELOOP) => return Ok(()),
        answer => answer?,
    };
    let stat = rustix::fs::fstat(&file)?;
    if rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::Directory {
        return Err(io::Error::from_raw_os_error(libc::EISDIR));
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(io::Error::from_raw_os_error(libc::EACCES));
    }
    Ok(())
}

/// A program found, with its environment, and this process ready to become it.
pub(super) struct Ready {
    program: Program,
    environment: Vec<CString>,
}

impl Ready {
    /// Finds the program and puts signals and descriptors in order for it.
    pub(super) fn new(process: &ProcessPlan, first_closed: u32) -> Result<Self, Failure> {
        let program = Program::find(process)?;
        let environment = with_home(process);
        process::reset_signals().attempt(|| "resetting signals".into())?;
        process::close_on_execute_from(first_closed).attempt(|| "closing descriptors".into())?;
        Ok(Self { program, environment })
    }

    /// Becomes the program, with `init` in front when given; returns why it could not.
    pub(super) fn execute(&self, process: &ProcessPlan, init: Option<&OwnedFd>) -> Failure {
        match init {
            None => self.execute_program(process),
            Some(init) => self.execute_init(process, init),
        }
    }

    fn execute_program(&self, process: &ProcessPlan) -> Failure {
        let error = process::execute_path(&self.program.path, &process.args, &self.environment);
        let path = Path::new(OsStr::from_bytes(self.program.path.to_bytes()));
        let failure = Failure::new(format!("executing {}", path.display()), &error)
            .kind(FailureKind::ProgramUnusable);
        match diagnose(path, &process.cwd) {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn execute_init(&self, process: &ProcessPlan, init: &OwnedFd) -> Failure {
        let mut arguments = vec![c"carrack-init".to_owned(), self.program.path.clone()];
        arguments.extend(process.args.iter().cloned());
        let error = process::execute(init.as_fd(), &arguments, &self.environment);
        Failure::new("executing the init program", &error)
    }
}

/// Programs expect HOME; images leave it to whoever runs them.
fn with_home(process: &ProcessPlan) -> Vec<CString> {
    let mut environment = process.env.clone();
    if variable(&environment, "HOME").is_none() {
        let home = home_of(process.uid).unwrap_or_else(|| "/".to_owned());
        environment.extend(CString::new(format!("HOME={home}")));
    }
    environment
}

/// The home directory in the image's `/etc/passwd`.
fn home_of(uid: u32) -> Option<String> {
    const MAX_PASSWD: u64 = 1 << 20;
    let file =
        open(Path::new("/etc/passwd"), Path::new("/"), OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let mut text = String::new();
    std::fs::File::from(file).take(MAX_PASSWD).read_to_string(&mut text).ok()?;
    text.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let own = fields.get(2)?.parse::<u32>().ok()? == uid;
        (own && fields.get(5).is_some_and(|home| !home.is_empty()))
            .then(|| fields.get(5).map(ToString::to_string))?
    })
}

/// What is wrong with a program the kernel would not execute.
fn diagnose(path: &Path, cwd: &Path) -> Option<String> {
    let file = open(path, cwd, OFlags::RDONLY | OFlags::NONBLOCK).ok()?;
    let mut head = Vec::new();
    std::fs::File::from(file).take(4096).read_to_end(&mut head).ok()?;
    if let Some(script) = head.strip_prefix(b"#!") {
        return diagnose_script(script, cwd);
    }
    if head.starts_with(b"\x7fELF") {
        return diagnose_elf(&head, cwd);
    }
    Some(if head.is_empty() {
        "the file is empty".to_owned()
    } else {
        "it is neither a program nor a script that begins with #!".to_owned()
    })
}

fn diagnose_script(script: &[u8], cwd: &Path) -> Option<String> {
    let line = script.split(|&byte| byte == b'\n').next()?;
    let text = String::from_utf8_lossy(line);
    let interpreter = text.split_ascii_whitespace().next().unwrap_or_default();
    if line.ends_with(b"\r") {
        return Some(format!(
            "the line of its interpreter, #!{}, ends in a carriage return; save it with Unix line endings",
            text.trim()
        ));
    }
    let found = open(Path::new(interpreter), cwd, OFlags::PATH);
    found.is_err().then(|| format!("its interpreter {interpreter} is not in the image"))
}

/// Architecture and interpreter from the program's headers.
fn diagnose_elf(head: &[u8], cwd: &Path) -> Option<String> {
    let half = |at: usize| {
        head.get(at..at + 2).map(|bytes| usize::from(u16::from_le_bytes([bytes[0], bytes[1]])))
    };
    let long = |at: usize| {
        let bytes: [u8; 8] = head.get(at..at + 8)?.try_into().ok()?;
        usize::try_from(u64::from_le_bytes(bytes)).ok()
    };
    let machine = half(18)?;
    let native = if cfg!(target_arch = "aarch64") { 183 } else { 62 };
    if machine != native && machine != 3 {
        return Some(format!("it was built for another processor (ELF machine {machine})"));
    }
    const INTERPRETER: &[u8] = &[3, 0, 0, 0];
    let (table, size, count) = (long(32)?, half(54)?, half(56)?);
    let header = (0..count)
        .map(|index| table + index * size)
        .find(|&at| head.get(at..at + 4) == Some(INTERPRETER))?;
    let (offset, length) = (long(header + 8)?, long(header + 32)?);
    let name = head.get(offset..offset + length)?.strip_suffix(b"\0")?;
    let name = Path::new(OsStr::from_bytes(name));
    let found = open(name, cwd, OFlags::PATH);
    found.is_err().then(|| format!("its loader {} is not in the image", name.display()))
}
