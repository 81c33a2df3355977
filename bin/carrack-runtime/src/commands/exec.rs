use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carrack_container_runtime::{ContainerId, ExecRequest, Runtime, Stdio};
use carrack_oci::runtime as oci;

use super::{Failed, code_of, hand_over, id};
use crate::options::{Usage, Words, unknown};

/// The options of `exec`.
#[derive(Default)]
struct Options {
    process_file: Option<PathBuf>,
    console_socket: Option<PathBuf>,
    pid_file: Option<PathBuf>,
    cwd: Option<PathBuf>,
    env: Vec<String>,
    user: Option<(u32, Option<u32>)>,
    groups: Vec<u32>,
    capabilities: Vec<String>,
    tty: bool,
    detach: bool,
    no_new_privileges: bool,
    preserve_fds: u32,
}

impl Options {
    fn read(words: &mut Words) -> Result<Self, Failed> {
        let mut options = Self::default();
        while let Some(option) = words.option()? {
            match option.as_str() {
                "--process" | "-p" => options.process_file = Some(words.value(&option)?.into()),
                "--console-socket" => options.console_socket = Some(words.value(&option)?.into()),
                "--pid-file" => options.pid_file = Some(words.value(&option)?.into()),
                "--cwd" => options.cwd = Some(words.value(&option)?.into()),
                "--env" | "-e" => options.env.push(words.text(&option)?),
                "--user" | "-u" => options.user = Some(user(&words.text(&option)?)?),
                "--additional-gids" | "-g" => options.groups.push(words.number(&option)?),
                "--cap" | "-c" => options.capabilities.push(words.text(&option)?),
                "--preserve-fds" => options.preserve_fds = words.number(&option)?,
                "--tty" | "-t" => options.tty = true,
                "--detach" | "-d" => options.detach = true,
                "--no-new-privs" => options.no_new_privileges = true,
                _ => return Err(unknown(&option).into()),
            }
        }
        Ok(options)
    }

    /// The process to run: from its file, or the container's own with changes.
    fn process(
        &self,
        runtime: &Runtime,
        id: &ContainerId,
        args: Vec<String>,
    ) -> Result<oci::Process, Failed> {
        if let Some(file) = &self.process_file {
            let bytes = carrack_linux::fs::read_bounded(file, 1 << 20)?;
            return Ok(serde_json::from_slice(&bytes)?);
        }
        let state = runtime.state(id)?;
        let bytes = carrack_linux::fs::read_bounded(&state.bundle.join("config.json"), 16 << 20)?;
        let spec: oci::Spec = serde_json::from_slice(&bytes)?;
        let mut process = spec.process.unwrap_or_default();
        process.args = args;
        process.terminal = self.tty;
        process.oom_score_adj = None;
        if let Some(cwd) = &self.cwd {
            process.cwd.clone_from(cwd);
        }
        process.env.extend(self.env.iter().cloned());
        process.no_new_privileges |= self.no_new_privileges;
        self.set_user(&mut process.user);
        self.add_capabilities(&mut process)?;
        Ok(process)
    }

    fn set_user(&self, user: &mut oci::User) {
        if let Some((uid, gid)) = self.user {
            user.uid = uid;
            user.gid = gid.unwrap_or(user.gid);
        }
        user.additional_gids.extend(&self.groups);
    }

    fn add_capabilities(&self, process: &mut oci::Process) -> Result<(), Usage> {
        if self.capabilities.is_empty() {
            return Ok(());
        }
        let sets = process.capabilities.get_or_insert_default();
        for name in &self.capabilities {
            let one: oci::Capability =
                name.parse().map_err(|_| Usage(format!("--cap: {name:?} is not a capability")))?;
            for set in [&mut sets.bounding, &mut sets.effective, &mut sets.permitted] {
                set.push(one.to_string());
            }
        }
        Ok(())
    }
}

/// `UID` or `UID:GID`.
fn user(text: &str) -> Result<(u32, Option<u32>), Usage> {
    let wrong = || Usage(format!("--user: {text:?} is not UID or UID:GID"));
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let gid = gid.map(|gid| gid.parse().map_err(|_| wrong())).transpose()?;
    Ok((uid.parse().map_err(|_| wrong())?, gid))
}

pub(super) fn exec(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let options = Options::read(words)?;
    let id = id(words)?;
    let args = words.rest()?;
    if options.process_file.is_none() && args.is_empty() {
        return Err(Usage("exec needs a program, or --process with a file".into()).into());
    }
    let process = options.process(runtime, &id, args)?;
    let stdio = if process.terminal { Stdio::Terminal } else { Stdio::Inherit };
    if matches!(stdio, Stdio::Terminal) && options.console_socket.is_none() {
        return Err(
            Usage("a terminal needs --console-socket, to be handed over there".into()).into()
        );
    }
    let request = ExecRequest {
        process: &process,
        stdio,
        pid_file: options.pid_file.as_deref(),
        preserve_fds: options.preserve_fds,
    };
    let executed = match runtime.exec(&id, request) {
        Ok(executed) => executed,
        Err(error) => {
            let code = error.exit_code().and_then(|code| u8::try_from(code).ok()).unwrap_or(255);
            return Err(Failed::Error(Box::new(error), code));
        }
    };
    if let (Some(console), Some(socket)) =
        (&executed.console, options.console_socket.as_deref().map(Path::new))
    {
        hand_over(console, socket)?;
    }
    if options.detach {
        return Ok(ExitCode::SUCCESS);
    }
    Ok(code_of(carrack_linux::process::wait(executed.pidfd.as_fd())?))
}
