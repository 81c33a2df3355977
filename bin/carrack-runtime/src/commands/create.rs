use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use carrack_container_runtime::{ContainerId, CreateError, CreateRequest, Created, Runtime, Stdio};

use super::{Failed, code_of, hand_over, id};
use crate::options::{Usage, Words, unknown};
use crate::output;

/// The options of `create` and `run`.
struct Options {
    id: ContainerId,
    bundle: PathBuf,
    pid_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    preserve_fds: u32,
    detach: bool,
}

impl Options {
    fn read(words: &mut Words) -> Result<Self, Failed> {
        let mut bundle = PathBuf::from(".");
        let (mut pid_file, mut console_socket, mut preserve_fds, mut detach) =
            (None, None, 0, false);
        let mut name = None;
        loop {
            while let Some(option) = words.option()? {
                match option.as_str() {
                    "--bundle" | "-b" => bundle = words.value(&option)?.into(),
                    "--pid-file" => pid_file = Some(words.value(&option)?.into()),
                    "--console-socket" => console_socket = Some(words.value(&option)?.into()),
                    "--preserve-fds" => preserve_fds = words.number(&option)?,
                    "--detach" | "-d" => detach = true,
                    _ => return Err(unknown(&option).into()),
                }
            }
            if name.is_some() {
                break;
            }
            name = Some(id(words)?);
        }
        words.finish()?;
        let id = name.ok_or_else(|| Usage("the container's id is missing".into()))?;
        Ok(Self { id, bundle, pid_file, console_socket, preserve_fds, detach })
    }

    fn create(&self, runtime: &Runtime) -> Result<Created, Failed> {
        let stdio = if self.console_socket.is_some() { Stdio::Terminal } else { Stdio::Inherit };
        let request = CreateRequest {
            id: &self.id,
            bundle: &self.bundle,
            stdio,
            pid_file: self.pid_file.as_deref(),
            preserve_fds: self.preserve_fds,
            init: None,
        };
        let created = runtime.create(request)?;
        for warning in &created.warnings {
            output::fail(&format!("warning: {warning}"));
        }
        if let (Some(console), Some(socket)) = (&created.console, &self.console_socket)
            && let Err(error) = hand_over(console, socket)
        {
            // Nobody would ever see this container.
            runtime.delete(&self.id, true)?;
            return Err(error.into());
        }
        Ok(created)
    }
}

/// With the code that a shell gives a program it cannot run, for whoever runs one.
fn as_a_shell(failed: Failed) -> Failed {
    match failed {
        Failed::Error(error, code) => {
            let found = error.downcast_ref().and_then(CreateError::exit_code);
            let code = found.and_then(|found| u8::try_from(found).ok()).unwrap_or(code);
            Failed::Error(error, code)
        }
        usage @ Failed::Usage(_) => usage,
    }
}

pub(super) fn create(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    Options::read(words)?.create(runtime)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn run(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let options = Options::read(words)?;
    let created = options.create(runtime).map_err(as_a_shell)?;
    if let Err(error) = runtime.start(&options.id) {
        runtime.delete(&options.id, true)?;
        let code = error.exit_code().and_then(|code| u8::try_from(code).ok()).unwrap_or(1);
        return Err(Failed::Error(Box::new(error), code));
    }
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    let exit = carrack_linux::process::wait(created.pidfd.as_fd())?;
    if let Some(cause) = runtime.explain_exit(&options.id, exit.shell_code()) {
        output::fail(&format!("the program ended with code {}: {cause}", exit.shell_code()));
    }
    runtime.delete(&options.id, true)?;
    Ok(code_of(exit))
}
