use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::process::ExitCode;

use carrack_container_runtime::{State, features};
use serde::Serialize;

use super::{Command, Context, Failed, directory};
use crate::options::{Arguments, Count, Flag, Usage};
use crate::output;

pub(super) const STATE: Command = Command {
    name: "state",
    arguments: "ID",
    about: "show a container's state, as JSON",
    details: "",
    flags: &[],
    words: Count::Exactly(1),
    run: state,
};

pub(super) const LIST: Command = Command {
    name: "list",
    arguments: "",
    about: "list the containers whose states are in the root",
    details: "",
    flags: &[FORMAT, Flag::switch("quiet", "show ids only").short('q')],
    words: Count::Exactly(0),
    run: list,
};

pub(super) const FORMAT: Flag =
    Flag::valued("format", "FORMAT", "table or json [default: table]").short('f');

/// The specification's state, and what runc adds, under its keys and in its order: there
/// are callers that read it without a parser.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Shown {
    oci_version: &'static str,
    id: String,
    pid: i32,
    status: String,
    bundle: PathBuf,
    rootfs: PathBuf,
    created: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<String, String>,
    owner: String,
}

impl Shown {
    fn new(state: State, owner: String) -> Self {
        Self {
            oci_version: features::SPEC_VERSION,
            id: state.id.to_string(),
            pid: state.pid.map_or(0, |pid| pid.as_raw_nonzero().get()),
            status: state.status.to_string(),
            bundle: state.bundle,
            rootfs: state.rootfs,
            created: output::time_text(state.created_millis),
            annotations: state.annotations,
            owner,
        }
    }
}

fn state(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let state = context.runtime.state(&arguments.id()?)?;
    let shown = Shown::new(state, String::new());
    output::print(&serde_json::to_string_pretty(&shown)?)?;
    Ok(ExitCode::SUCCESS)
}

/// Whether `--format` asks for JSON.
pub(super) fn is_json(arguments: &Arguments) -> Result<bool, Usage> {
    match arguments.text("format")? {
        Some("json") => Ok(true),
        None | Some("table") => Ok(false),
        Some(other) => {
            Err(Usage(format!("invalid format option: --format {other} is neither table nor json")))
        }
    }
}

fn list(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let json = is_json(arguments)?;
    if context.global.root_given && !context.global.root.exists() {
        let root = context.global.root.display();
        return Err(Usage(format!("--root {root}: no such file or directory")).into());
    }
    let users = std::fs::read_to_string("/etc/passwd").unwrap_or_default();
    let shown: Vec<Shown> = context
        .runtime
        .list()?
        .into_iter()
        .map(|state| {
            let owner = owner(context, &state, &users);
            Shown::new(state, owner)
        })
        .collect();
    let text = if arguments.is_on("quiet") {
        shown.iter().map(|container| format!("{}\n", container.id)).collect()
    } else if json {
        format!("{}\n", serde_json::to_string(&shown)?)
    } else {
        table(&shown)
    };
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// By name, or by number as `#1000`; nobody for a record that was just removed.
fn owner(context: &Context, state: &State, users: &str) -> String {
    let Ok(found) = std::fs::metadata(directory(context, &state.id)) else { return String::new() };
    let uid = found.uid().to_string();
    let name = users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)? == uid).then(|| name.to_owned())
    });
    name.unwrap_or_else(|| format!("#{uid}"))
}

/// Columns at least nine wide with three spaces between, as runc aligns them.
fn table(containers: &[Shown]) -> String {
    let heading = ["ID", "PID", "STATUS", "BUNDLE", "CREATED", "OWNER"].map(str::to_owned);
    let row = |container: &Shown| {
        [
            container.id.clone(),
            container.pid.to_string(),
            container.status.clone(),
            container.bundle.display().to_string(),
            container.created.clone(),
            container.owner.clone(),
        ]
    };
    let rows: Vec<[String; 6]> =
        std::iter::once(heading).chain(containers.iter().map(row)).collect();
    let mut widths = [9; 6];
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let line = |row: &[String; 6]| {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:<width$}   "));
        format!("{}\n", cells.collect::<String>().trim_end())
    };
    rows.iter().map(line).collect()
}
