//! Documents against the specification's own schemas.

use std::process::{Command, Stdio};

use serde_json::Value;

use crate::support::{Bundle, RUNTIME};

/// Where the module with the schemas is; `None`, with a word why, where it cannot be had.
fn schemas() -> Option<String> {
    let module = "github.com/opencontainers/runtime-spec@v1.3.0";
    let output = Command::new("go").args(["mod", "download", "-json", module]).output().ok();
    let found = output.and_then(|output| serde_json::from_slice::<Value>(&output.stdout).ok());
    let directory = found.and_then(|found| Some(found["Dir"].as_str()?.to_owned()));
    if directory.is_none() {
        eprintln!("skipped: install go, which fetches the module {module}");
    }
    directory.map(|directory| format!("{directory}/schema"))
}

/// Reads a document from standard input; references are to files beside the schema.
const VALIDATE: &str = "
import json, pathlib, sys
from jsonschema import Draft4Validator
from referencing import Registry, Resource
from referencing.jsonschema import DRAFT4
schema = pathlib.Path(sys.argv[1])
load = lambda path: Resource.from_contents(json.loads(path.read_text()), DRAFT4)
registry = Registry().with_resources((p.as_uri(), load(p)) for p in schema.parent.glob('*.json'))
validator = Draft4Validator({'$ref': schema.as_uri()}, registry=registry)
for error in validator.iter_errors(json.load(sys.stdin)):
    sys.exit(f'{list(error.absolute_path)}: {error.message}')
";

#[track_caller]
fn check(schema: &str, document: &str) {
    if !Command::new("python3")
        .args(["-c", "import jsonschema, referencing"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
    {
        eprintln!("skipped: pip install jsonschema");
        return;
    }
    let mut command = Command::new("python3");
    command.args(["-c", VALIDATE, schema]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    std::io::Write::write_all(&mut child.stdin.take().unwrap(), document.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "by {schema}: {said}\n{document}");
}

#[test]
fn features_and_state_are_what_the_schemas_say() {
    let Some(schemas) = schemas() else { return };
    let output = Command::new(RUNTIME).arg("features").output().unwrap();
    check(&format!("{schemas}/features-schema.json"), &String::from_utf8_lossy(&output.stdout));
    let Some(mut bundle) = Bundle::program(&["/bin/sleep", "60"]) else { return };
    bundle.config["annotations"] = serde_json::json!({ "org.example": "yes" });
    let state = format!("{schemas}/state-schema.json");
    bundle.runtime(&["create", &bundle.id]).ok();
    check(&state, &bundle.runtime(&["state", &bundle.id]).ok());
    bundle.runtime(&["start", &bundle.id]).ok();
    check(&state, &bundle.runtime(&["state", &bundle.id]).ok());
    bundle.runtime(&["kill", &bundle.id, "KILL"]).ok();
    bundle.wait();
    check(&state, &bundle.runtime(&["state", &bundle.id]).ok());
}
