//! Which way the arrows point. Every manifest names its layer; an arrow that
//! points up, or sideways where none is drawn, fails.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// The layers from the bottom up. A crate may use any layer below its own.
const LAYERS: &[&str] = &["spec", "base", "craft", "role", "binary", "test", "chore"];

/// The arrows that stay inside a layer: who, uses whom. Each is drawn in
/// ARCHITECTURE.md.
const SIDEWAYS: &[(&str, &str)] = &[
    ("carrack-objects", "carrack-oci"),
    ("carrack-objects", "carrack-spiffe"),
    ("carrack-xds", "carrack-spiffe"),
    ("carrack-net", "carrack-linux"),
    ("carrack-net", "carrack-telemetry"),
    ("carrack-store", "carrack-telemetry"),
    ("carrack-shim", "carrack-container-runtime"),
    ("carrack-snapshot", "carrack-filters"),
    ("carrack-journeys", "carrack-testkit"),
    ("carrack-bench", "carrack-testkit"),
    ("carrack-judges", "carrack-testkit"),
];

struct Package {
    manifest: PathBuf,
    layer: usize,
    uses: Vec<String>,
}

/// Reads every manifest of the workspace at `root` and reports every bad arrow.
pub(crate) fn check(root: &Path) -> Result<(), String> {
    let packages = read(root)?;
    let problems = problems(&packages);
    if problems.is_empty() { Ok(()) } else { Err(problems.join("\n")) }
}

fn problems(packages: &BTreeMap<String, Package>) -> Vec<String> {
    let mut problems = Vec::new();
    for (name, package) in packages {
        for used in &package.uses {
            let Some(below) = packages.get(used) else { continue };
            let sideways = SIDEWAYS.contains(&(name.as_str(), used.as_str()));
            if below.layer < package.layer || sideways {
                continue;
            }
            problems.push(format!(
                "{}: `{name}` ({}) may not use `{used}` ({})",
                package.manifest.display(),
                LAYERS[package.layer],
                LAYERS[below.layer],
            ));
        }
    }
    problems
}

fn read(root: &Path) -> Result<BTreeMap<String, Package>, String> {
    let workspace = parse(&root.join("Cargo.toml"))?;
    let members = workspace["workspace"]["members"].as_array().cloned().unwrap_or_default();
    let mut packages = BTreeMap::new();
    for member in members.iter().filter_map(toml::Value::as_str) {
        let manifest = root.join(member).join("Cargo.toml");
        let (name, package) = package(manifest)?;
        packages.insert(name, package);
    }
    Ok(packages)
}

fn package(manifest: PathBuf) -> Result<(String, Package), String> {
    let value = parse(&manifest)?;
    let named = |keys: &[&str]| {
        keys.iter()
            .try_fold(&value, |value, key| value.get(key))
            .and_then(toml::Value::as_str)
            .map(str::to_owned)
    };
    let shown = manifest.display();
    let name = named(&["package", "name"]).ok_or(format!("{shown}: no package name"))?;
    let layer = named(&["package", "metadata", "carrack", "layer"])
        .ok_or(format!("{shown}: add [package.metadata.carrack] layer = …"))?;
    let layer = LAYERS
        .iter()
        .position(|known| *known == layer)
        .ok_or(format!("{shown}: `{layer}` is not one of {LAYERS:?}"))?;
    // Dev-dependencies may point anywhere: a test may use what the code may not.
    let uses = value
        .get("dependencies")
        .and_then(toml::Value::as_table)
        .map(|table| table.keys().cloned().collect())
        .unwrap_or_default();
    Ok((name, Package { manifest, layer, uses }))
}

fn parse(path: &Path) -> Result<toml::Value, String> {
    let text =
        std::fs::read_to_string(path).map_err(|error| format!("{}: {error}", path.display()))?;
    toml::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn package_in(layer: &str, uses: &[&str]) -> Package {
        let layer = LAYERS.iter().position(|known| *known == layer).expect("a known layer");
        Package {
            manifest: "x".into(),
            layer,
            uses: uses.iter().map(|&used| used.into()).collect(),
        }
    }

    #[test]
    fn every_arrow_in_the_workspace_points_down_or_is_drawn() {
        check(&crate::workspace()).expect("the workspace keeps its layers");
    }

    #[test]
    fn an_arrow_that_points_up_is_reported() {
        let packages = BTreeMap::from([
            ("low".to_owned(), package_in("base", &["high"])),
            ("high".to_owned(), package_in("role", &[])),
        ]);
        assert_eq!(problems(&packages).len(), 1);
    }

    #[test]
    fn one_role_may_not_use_another() {
        let packages = BTreeMap::from([
            ("one".to_owned(), package_in("role", &["other"])),
            ("other".to_owned(), package_in("role", &[])),
        ]);
        assert_eq!(problems(&packages).len(), 1);
    }
}
