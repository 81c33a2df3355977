use std::ffi::{CStr, CString, OsStr};
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use carrack_linux::process;
use carrack_linux::rooted::RootedDir;
use rustix::fs::{Mode, OFlags};

use crate::diagnose::{self, Place, User};
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
        Err(match unusable {
            Some((path, error)) => unfit(process, &path, &error),
            None => missing(process, name),
        })
    }
}

/// One that is there and that this user cannot execute.
fn unfit(process: &ProcessPlan, path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::new(format!("finding program {}", path.display()), error)
        .kind(FailureKind::ProgramUnusable);
    let errno = error.raw_os_error().unwrap_or_default();
    match place(process).and_then(|place| place.cause(path, errno)) {
        // As above: this is how they tell a directory from a program.
        Some(hint) if errno == libc::EISDIR => failure.hint(format!("permission denied: {hint}")),
        None if errno == libc::EISDIR => failure.hint("permission denied"),
        Some(hint) => failure.hint(hint),
        None => failure,
    }
}

fn missing(process: &ProcessPlan, name: &CStr) -> Failure {
    // Podman and Docker look for these words to end with 127.
    let path = Path::new(OsStr::from_bytes(name.to_bytes()));
    let shown = name.to_string_lossy();
    // Callers of runtimes tell a missing program by these very words.
    let hint = if !shown.contains('/') {
        format!("executable file not found in $PATH ({})", search_path(process))
    } else if let Some(Err(stop)) =
        place(process).map(|place| diagnose::walk(&place.root, &process.cwd, path))
    {
        format!("no such file or directory: {stop} in the image")
    } else {
        "no such file or directory in the image".to_owned()
    };
    Failure::refused(format!("finding program {shown:?}"), hint).kind(FailureKind::ProgramMissing)
}

/// This process's own root, and whom it will be.
fn place(process: &ProcessPlan) -> Option<Place<'_>> {
    let (uid, gid, groups) = (process.uid, process.gid, process.groups.as_slice());
    Some(Place {
        root: RootedDir::open(Path::new("/")).ok()?,
        cwd: &process.cwd,
        environment: &process.env,
        user: Some(User { uid, gid, groups }),
        mounts: &[],
    })
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
    ///
    /// `told` is what the kernel said, before anybody looks into it: a seccomp filter, which
    /// was written for the program and not for us, may end this process for looking.
    pub(super) fn execute(
        &self,
        process: &ProcessPlan,
        init: Option<&OwnedFd>,
        told: impl FnOnce(&Failure),
    ) -> Failure {
        match init {
            None => self.execute_program(process, told),
            Some(init) => self.execute_init(process, init),
        }
    }

    fn execute_program(&self, process: &ProcessPlan, told: impl FnOnce(&Failure)) -> Failure {
        let error = process::execute_path(&self.program.path, &process.args, &self.environment);
        let path = Path::new(OsStr::from_bytes(self.program.path.to_bytes()));
        let failure = Failure::new(format!("executing {}", path.display()), &error)
            .kind(FailureKind::ProgramUnusable);
        told(&failure);
        let errno = error.raw_os_error().unwrap_or_default();
        let hint = if errno == libc::E2BIG {
            Some(diagnose::too_long(&process.args, &self.environment))
        } else {
            place(process).and_then(|place| place.cause(path, errno))
        };
        match hint {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }

    fn execute_init(&self, process: &ProcessPlan, init: &OwnedFd) -> Failure {
        let mut arguments = vec![c"carrack-init".to_owned(), self.program.path.clone()];
        arguments.extend(process.args.iter().cloned());
        let error = process::execute(init.as_fd(), &arguments, &self.environment);
        let failure = Failure::new("executing the init program", &error);
        if error.raw_os_error() == Some(libc::E2BIG) {
            return failure
                .kind(FailureKind::ProgramUnusable)
                .hint(diagnose::too_long(&process.args, &self.environment));
        }
        failure
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
