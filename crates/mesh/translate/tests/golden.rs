//! Folders of pairs: `tests/golden/<case>/world.json` and `policies.yaml` in,
//! `translation.json` out. A new case is a new folder; after a change that is
//! meant, `INSTA_UPDATE=always cargo test -p carrack-translate` writes them again.

#![expect(clippy::disallowed_methods, reason = "the cases are files; the crate itself opens none")]

use std::fs;
use std::path::Path;

use carrack_objects::{mesh, policy};
use carrack_translate::{Translation, World, translate};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Facts {
    trust_domain: String,
    #[serde(default)]
    workloads: Vec<mesh::Workload>,
    #[serde(default)]
    services: Vec<mesh::Service>,
}

fn world(case: &Path) -> World {
    let facts = fs::read(case.join("world.json")).expect("world.json is read");
    let facts: Facts = serde_json::from_slice(&facts).expect("world.json is understood");
    let policies = fs::read_to_string(case.join("policies.yaml")).unwrap_or_default();
    World {
        trust_domain: facts.trust_domain.parse().expect("a trust domain"),
        workloads: facts.workloads,
        services: facts.services,
        policies: policy::parse(&policies, "policies.yaml", "shop").expect("policies parse"),
    }
}

fn shown(translation: &Translation) -> serde_json::Value {
    serde_json::json!({
        "problems": translation.problems.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "statuses": translation.statuses.iter().map(|s| {
            format!("{}/{} at {} judges {}", s.namespace, s.name, s.origin, s.workloads.join(", "))
        }).collect::<Vec<_>>(),
        "resources": translation.resources,
    })
}

fn cases() -> Vec<std::path::PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let mut cases: Vec<_> = fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("is read").path())
        .filter(|path| path.is_dir())
        .collect();
    cases.sort();
    assert!(!cases.is_empty());
    cases
}

#[test]
fn every_case_becomes_what_its_folder_says() {
    for case in cases() {
        let mut settings = insta::Settings::clone_current();
        settings.set_snapshot_path(&case);
        settings.set_prepend_module_to_snapshot(false);
        settings.set_omit_expression(true);
        settings.bind(|| {
            insta::assert_json_snapshot!("translation", shown(&translate(&world(&case))));
        });
    }
}

#[test]
fn what_comes_out_is_accepted_by_the_proxy() {
    for case in cases() {
        let mut resources = translate(&world(&case)).resources;
        resources.version = "v".to_owned();
        let bytes = resources.to_json().expect("writes");
        let read = carrack_xds::Resources::from_json(&bytes).expect("reads");
        carrack_snapshot::compile(&read).expect("compiles");
        assert_eq!(read, resources);
    }
}
