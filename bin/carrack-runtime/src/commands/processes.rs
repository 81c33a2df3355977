use std::process::ExitCode;

use super::list::{FORMAT, is_json};
use super::{Command, Context, Failed};
use crate::options::{Arguments, Count, Usage};
use crate::output;

pub(super) const PS: Command = Command {
    name: "ps",
    arguments: "ID [PS OPTIONS]",
    about: "show the processes of a container",
    details: "The table is that of the host's ps(1), whose options follow the id [default: -ef];\n\
              it has to have the column PID. JSON is the list of process ids.",
    flags: &[FORMAT],
    words: Count::Open(1),
    run: processes,
};

fn processes(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let json = is_json(arguments)?;
    let id = arguments.id()?;
    let mut asked = arguments.rest()?;
    let found = context.runtime.processes(&id)?;
    let pids: Vec<i32> = found.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    if json {
        output::print(&format!("{}\n", serde_json::to_string(&pids)?))?;
        return Ok(ExitCode::SUCCESS);
    }
    if asked.is_empty() {
        asked.push("-ef".into());
    }
    let said = std::process::Command::new("ps").args(&asked).output().map_err(|error| {
        let message = format!("running ps: {error}; install procps, or ask for --format json");
        std::io::Error::new(error.kind(), message)
    })?;
    if !said.status.success() {
        let words = String::from_utf8_lossy(&said.stderr).trim().to_owned();
        return Err(Usage(format!("ps {}: {}: {words}", asked.join(" "), said.status)).into());
    }
    output::print(&of_container(&String::from_utf8_lossy(&said.stdout), &pids)?)?;
    Ok(ExitCode::SUCCESS)
}

/// The heading and the lines about `pids`.
fn of_container(table: &str, pids: &[i32]) -> Result<String, Usage> {
    let mut lines = table.lines();
    let heading = lines.next().unwrap_or_default();
    let column = heading.split_ascii_whitespace().position(|title| title == "PID");
    let column = column.ok_or_else(|| {
        Usage("couldn't find PID field in ps output; choose other options of ps".into())
    })?;
    let is_ours = |line: &&str| {
        let pid = line.split_ascii_whitespace().nth(column).and_then(|pid| pid.parse().ok());
        pid.is_some_and(|pid: i32| pids.contains(&pid))
    };
    let shown = std::iter::once(heading).chain(lines.filter(is_ours));
    Ok(shown.map(|line| format!("{line}\n")).collect())
}
