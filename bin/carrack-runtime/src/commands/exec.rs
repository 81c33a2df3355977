use std::collections::BTreeMap;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use carrack_container_runtime::{ContainerId, ExecError, ExecExtras, ExecRequest, Stdio};
use carrack_oci::runtime as oci;
use serde_json::{Value, json};

use super::create::check_terminal;
use super::{Command, Context, Failed, code_of, hand_over, inherited};
use crate::foreground::{self, Attended};
use crate::options::{Arguments, Count, Flag, Usage};
use crate::terminal::Terminal;

pub(super) const EXEC: Command = Command {
    name: "exec",
    arguments: "ID PROGRAM [ARGUMENTS]",
    about: "run another program in a container",
    details: "Without --process the program is run as the container's own is, with what the\n\
              options change. Ends with the code of the program, and with 255 when it could\n\
              not be run.",
    flags: &[
        Flag::valued("console-socket", "SOCKET", "hand the program's terminal to SOCKET"),
        Flag::valued("pidfd-socket", "SOCKET", "hand a descriptor of the process to SOCKET"),
        Flag::valued("cwd", "DIR", "working directory in the container"),
        Flag::valued("env", "NAME=VALUE", "set a variable (can be repeated)").short('e'),
        Flag::switch("tty", "give the program a terminal").short('t'),
        Flag::valued("user", "UID[:GID]", "run as this user").short('u'),
        Flag::valued("additional-gids", "GID", "a group besides (can be repeated)").short('g'),
        Flag::valued("process", "FILE", "run what this JSON file describes").short('p'),
        Flag::switch("detach", "return once the program runs").short('d'),
        Flag::valued("pid-file", "FILE", "write the process id to FILE"),
        Flag::valued("process-label", "LABEL", "SELinux label of the process"),
        Flag::valued("apparmor", "PROFILE", "AppArmor profile of the process"),
        Flag::switch("no-new-privs", "never gain privileges by executing a program"),
        Flag::valued("cap", "CAP", "a capability besides (can be repeated)").short('c'),
        Flag::valued("preserve-fds", "N", "pass on N descriptors behind the standard streams"),
        Flag::valued(
            "cgroup",
            "[CONTROLLER,…:]PATH",
            "a control group below the container's (can be repeated)",
        ),
        Flag::switch("ignore-paused", "join a paused container; the program waits with it"),
    ],
    words: Count::Open(1),
    run: exec,
};

/// The code for a program that was not run, whatever the reason.
const NOT_RUN: u8 = 255;

fn exec(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let unless_told = |failed| match failed {
        Failed::Usage(Usage(message)) => {
            context.log().error(&format!("exec failed: {message}"));
            Failed::Told(ExitCode::from(NOT_RUN))
        }
        Failed::Error(error, _) => {
            context.log().error(&format!("exec failed: {}", crate::output::chain(error.as_ref())));
            Failed::Told(ExitCode::from(NOT_RUN))
        }
        told @ Failed::Told(_) => told,
    };
    run(context, arguments).map_err(unless_told)
}

fn run(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let id = arguments.id()?;
    let words = arguments.rest()?;
    let mut process = process(context, &id, arguments, words)?;
    let asked = process["terminal"].as_bool().unwrap_or(false);
    let detach = arguments.is_on("detach");
    let console_socket = arguments.path("console-socket");
    check_terminal(asked, detach, console_socket.is_some())?;
    let terminal = (asked && !detach).then(Terminal::find).transpose()?;
    if let Some((width, height)) = terminal.as_ref().and_then(Terminal::size) {
        process["consoleSize"] = json!({ "width": width, "height": height });
    }
    let extras = ExecExtras {
        plain_newlines: terminal.is_some(),
        even_paused: arguments.is_on("ignore-paused"),
        groups: groups(&arguments.texts("cgroup")?)?,
    };
    let process: oci::Process = serde_json::from_value(process)?;
    let request = ExecRequest {
        process: &process,
        stdio: if asked { Stdio::Terminal } else { Stdio::Inherit },
        pid_file: None,
        preserve_fds: inherited(arguments.number("preserve-fds")?.unwrap_or_default(), 0)?,
    };
    let pid_file = arguments.path("pid-file");
    let request = ExecRequest { pid_file: pid_file.as_deref(), ..request };
    let signals = (!detach).then(foreground::hold_signals).transpose()?;
    let executed = context.runtime.exec_with(&id, request, &extras).map_err(in_known_words)?;
    context.log().debug(|| format!("executed as process {:?} in {id}", executed.pid));
    if let (Some(console), Some(socket)) = (&executed.console, &console_socket) {
        hand_over(socket, b"/dev/ptmx", console.as_fd())?;
    }
    if let Some(socket) = arguments.path("pidfd-socket") {
        hand_over(&socket, b"setns", executed.pidfd.as_fd())?;
    }
    let Some(signals) = signals else { return Ok(ExitCode::SUCCESS) };
    let terminal = executed.console.zip(terminal);
    let attended =
        Attended { pid: executed.pid, pidfd: executed.pidfd, signals, terminal, notify: None };
    Ok(code_of(attended.attend()?))
}

/// Callers look for the sentences that runc has for these.
fn in_known_words(error: ExecError) -> Failed {
    use carrack_container_runtime::Status;
    match &error {
        ExecError::Paused { id } => Usage(format!(
            "cannot exec in a paused container (use --ignore-paused to override): {id} is paused"
        ))
        .into(),
        ExecError::NotRunning { id, status: Status::Stopped } => {
            Usage(format!("cannot exec in a stopped container: {id} is stopped; start it first"))
                .into()
        }
        _ => error.into(),
    }
}

/// The process to run: from its file, or the container's own with changes.
fn process(
    context: &Context,
    id: &ContainerId,
    arguments: &Arguments,
    words: Vec<String>,
) -> Result<Value, Failed> {
    if let Some(file) = arguments.path("process") {
        return Ok(serde_json::from_slice(&read(&file)?)?);
    }
    if words.is_empty() {
        let message = "exec args cannot be empty: name a program, or give --process a file";
        return Err(Usage(message.into()).into());
    }
    let state = context.runtime.state(id)?;
    let config: Value = serde_json::from_slice(&read(&state.bundle.join("config.json"))?)?;
    let mut process = config["process"].clone();
    if !process.is_object() {
        process = json!({ "user": { "uid": 0, "gid": 0 }, "cwd": "/" });
    }
    process["args"] = json!(words);
    process["terminal"] = json!(arguments.is_on("tty"));
    if let Some(process) = process.as_object_mut() {
        process.remove("oomScoreAdj");
    }
    change(&mut process, arguments)?;
    Ok(process)
}

fn read(path: &Path) -> std::io::Result<Vec<u8>> {
    carrack_linux::fs::read_bounded(path, 16 << 20).map_err(|error| {
        std::io::Error::new(error.kind(), format!("reading {}: {error}", path.display()))
    })
}

fn change(process: &mut Value, arguments: &Arguments) -> Result<(), Usage> {
    let texts =
        [("cwd", "cwd"), ("apparmor", "apparmorProfile"), ("process-label", "selinuxLabel")];
    for (flag, field) in texts {
        if let Some(text) = arguments.text(flag)? {
            process[field] = json!(text);
        }
    }
    extend(&mut process["env"], arguments.texts("env")?.iter().map(|text| json!(text)));
    if arguments.is_given("no-new-privs") {
        process["noNewPrivileges"] = json!(arguments.is_on("no-new-privs"));
    }
    if let Some(text) = arguments.text("user")? {
        let (uid, gid) = user(text)?;
        process["user"]["uid"] = json!(uid);
        if let Some(gid) = gid {
            process["user"]["gid"] = json!(gid);
        }
    }
    let groups = arguments.texts("additional-gids")?;
    let groups: Vec<u32> = groups
        .into_iter()
        .map(|text| crate::options::as_number("additional-gids", text))
        .collect::<Result<_, _>>()?;
    extend(&mut process["user"]["additionalGids"], groups.into_iter().map(Value::from));
    add_capabilities(process, &arguments.texts("cap")?)
}

/// Appends to a list that may be missing; nothing to append leaves it missing.
fn extend(list: &mut Value, more: impl Iterator<Item = Value>) {
    let more: Vec<Value> = more.collect();
    match list {
        Value::Array(list) => list.extend(more),
        missing if !more.is_empty() => *missing = Value::Array(more),
        _ => *list = json!([]),
    }
}

fn add_capabilities(process: &mut Value, names: &[&str]) -> Result<(), Usage> {
    let mut full = Vec::new();
    for name in names {
        if carrack_linux::capability::parse(name).is_none() {
            return Err(Usage(format!("--cap: {name:?} is not a capability")));
        }
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
        full.push(format!("CAP_{bare}"));
    }
    if full.is_empty() {
        return Ok(());
    }
    let mut sets = vec!["bounding", "effective", "permitted"];
    // An ambient capability has to be inheritable, which these become only where some are.
    if process["capabilities"]["inheritable"].is_array() {
        sets.extend(["inheritable", "ambient"]);
    }
    for set in sets {
        extend(&mut process["capabilities"][set], full.iter().map(|name| json!(name)));
    }
    Ok(())
}

/// `UID` or `UID:GID`.
fn user(text: &str) -> Result<(u32, Option<u32>), Usage> {
    let wrong = || Usage(format!("--user: {text:?} is not UID or UID:GID"));
    let (uid, gid) = text.split_once(':').map_or((text, None), |(uid, gid)| (uid, Some(gid)));
    let gid = gid.map(|gid| gid.parse().map_err(|_| wrong())).transpose()?;
    Ok((uid.parse().map_err(|_| wrong())?, gid))
}

/// `PATH` for every controller, or `CONTROLLER,…:PATH` for some.
fn groups(given: &[&str]) -> Result<BTreeMap<String, PathBuf>, Usage> {
    let mut groups = BTreeMap::new();
    for text in given {
        let Some((controllers, path)) = text.split_once(':') else {
            if given.len() > 1 {
                return Err(Usage(format!(
                    "invalid --cgroup argument: {text} (missing <controller>: prefix)"
                )));
            }
            groups.insert(String::new(), below(text)?);
            continue;
        };
        for controller in controllers.split(',') {
            if controller.is_empty() {
                return Err(Usage(format!(
                    "invalid --cgroup argument: {text} (empty <controller> prefix)"
                )));
            }
            if groups.insert(controller.to_owned(), below(path)?).is_some() {
                return Err(Usage(format!(
                    "invalid --cgroup argument(s): controller {controller} specified multiple times"
                )));
            }
        }
    }
    Ok(groups)
}

fn below(text: &str) -> Result<PathBuf, Usage> {
    let path = Path::new(text);
    if path.components().any(|component| component == std::path::Component::ParentDir) {
        return Err(Usage(format!(
            "bad sub cgroup path: {text} leads out of the container's group"
        )));
    }
    Ok(path.to_owned())
}
