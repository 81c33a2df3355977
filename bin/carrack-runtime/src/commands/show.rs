use std::path::PathBuf;
use std::process::ExitCode;

use carrack_container_runtime::{Runtime, State};
use carrack_oci::runtime::defaults::{DefaultSpec, default_spec};
use serde_json::{Value, json};

use super::{Failed, id};
use crate::options::{Usage, Words, unknown};
use crate::output;

/// The specification's state, and what other runtimes add.
fn state_value(state: &State) -> Value {
    let pid = state.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
    json!({
        "ociVersion": "1.2.1",
        "id": state.id.as_str(),
        "status": state.status.to_string(),
        "pid": pid,
        "bundle": state.bundle,
        "rootfs": state.rootfs,
        "created": output::time_text(state.created_millis / 1000),
        "annotations": state.annotations,
    })
}

pub(super) fn document(value: &Value) -> Result<ExitCode, Failed> {
    output::print(&format!("{}\n", serde_json::to_string_pretty(value)?))?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn state(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    if let Some(option) = words.option()? {
        return Err(unknown(&option).into());
    }
    let id = id(words)?;
    words.finish()?;
    document(&state_value(&runtime.state(&id)?))
}

/// `--format`, and whether it is JSON.
fn is_json(text: &str) -> Result<bool, Usage> {
    match text {
        "json" => Ok(true),
        "table" => Ok(false),
        other => Err(Usage(format!("--format: {other:?} is neither table nor json"))),
    }
}

pub(super) fn list(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let (mut json, mut quiet) = (false, false);
    while let Some(option) = words.option()? {
        match option.as_str() {
            "--format" | "-f" => json = is_json(&words.text(&option)?)?,
            "--quiet" | "-q" => quiet = true,
            _ => return Err(unknown(&option).into()),
        }
    }
    words.finish()?;
    let states = runtime.list()?;
    if json {
        return document(&Value::Array(states.iter().map(state_value).collect()));
    }
    let mut text = String::new();
    if !quiet {
        text.push_str("ID\tPID\tSTATUS\tBUNDLE\tCREATED\n");
    }
    for state in &states {
        let pid = state.pid.map_or(0, |pid| pid.as_raw_nonzero().get());
        let line = if quiet {
            format!("{}\n", state.id)
        } else {
            let created = output::time_text(state.created_millis / 1000);
            format!(
                "{}\t{pid}\t{}\t{}\t{created}\n",
                state.id,
                state.status,
                state.bundle.display()
            )
        };
        text.push_str(&line);
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn processes(runtime: &Runtime, words: &mut Words) -> Result<ExitCode, Failed> {
    let mut json = false;
    let mut name = None;
    loop {
        while let Some(option) = words.option()? {
            match option.as_str() {
                "--format" | "-f" => json = is_json(&words.text(&option)?)?,
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
    let pids: Vec<i32> =
        runtime.processes(&id)?.iter().map(|pid| pid.as_raw_nonzero().get()).collect();
    if json {
        return document(&json!(pids));
    }
    let mut text = String::from("PID\tCOMMAND\n");
    for pid in pids {
        // One that ended meanwhile has no name any more.
        let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
        text.push_str(&format!("{pid}\t{}\n", name.trim()));
    }
    output::print(&text)?;
    Ok(ExitCode::SUCCESS)
}

pub(super) fn spec(words: &mut Words) -> Result<ExitCode, Failed> {
    let mut bundle = PathBuf::from(".");
    while let Some(option) = words.option()? {
        match option.as_str() {
            "--bundle" | "-b" => bundle = words.value(&option)?.into(),
            _ => return Err(unknown(&option).into()),
        }
    }
    words.finish()?;
    let path = bundle.join("config.json");
    if path.exists() {
        return Err(Usage(format!("{} exists already; remove it first", path.display())).into());
    }
    let spec = default_spec(&DefaultSpec { args: vec!["sh".into()], ..DefaultSpec::default() });
    std::fs::write(&path, serde_json::to_vec_pretty(&spec)?)?;
    Ok(ExitCode::SUCCESS)
}
