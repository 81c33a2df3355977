//! What an image says about how to run it, and what its layers unpack to.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::Digest;
use crate::document::{self, DocumentError, Extra, null_is_default};
use crate::platform::Platform;

const WHAT: &str = "image configuration";

/// An image configuration, OCI's or Docker's.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ImageConfig {
    /// When the image was made, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// The processor it is for, such as `amd64`.
    pub architecture: String,
    /// The processor's variant, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// The operating system it is for, such as `linux`.
    pub os: String,
    /// How to run it.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "ExecutionConfig::is_empty"
    )]
    pub config: ExecutionConfig,
    /// What its layers unpack to.
    pub rootfs: RootFs,
    /// How it came about, a step each, the oldest first.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub history: Vec<History>,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What a container of the image gets unless it is told otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ExecutionConfig {
    /// The user, as `user`, `uid`, `user:group` or `uid:gid`. Empty means root.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub user: String,
    /// Ports it listens on, such as `80/tcp`.
    #[serde(default, with = "set_as_map", skip_serializing_if = "BTreeSet::is_empty")]
    pub exposed_ports: BTreeSet<String>,
    /// The environment, each `NAME=value`.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub env: Vec<String>,
    /// The program and its first arguments.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub entrypoint: Vec<String>,
    /// The arguments a person may replace.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub cmd: Vec<String>,
    /// Directories whose content outlives a change of image.
    #[serde(default, with = "set_as_map", skip_serializing_if = "BTreeSet::is_empty")]
    pub volumes: BTreeSet<String>,
    /// The directory it starts in. Empty means `/`.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "String::is_empty"
    )]
    pub working_dir: String,
    /// Labels.
    #[serde(
        default,
        deserialize_with = "null_is_default",
        skip_serializing_if = "BTreeMap::is_empty"
    )]
    pub labels: BTreeMap<String, String>,
    /// The signal that asks it to stop, such as `SIGTERM` or `15`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_signal: Option<String>,
    /// How to tell whether it is well. Docker's field.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<Healthcheck>,
    /// The shell of later `RUN`s in shell form. Docker's field.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub shell: Vec<String>,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ExecutionConfig {
    /// Whether it says nothing at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// The value of an environment variable; the last one wins.
    #[must_use]
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env.iter().rev().find_map(|entry| {
            let (key, value) = entry.split_once('=')?;
            (key == name).then_some(value)
        })
    }

    /// Sets an environment variable in the place it has, or at the end.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let is_it = |entry: &&mut String| {
            entry.split_once('=').map_or(entry.as_str(), |(key, _)| key) == name
        };
        let entry = format!("{name}={value}");
        match self.env.iter_mut().find(is_it) {
            Some(place) => *place = entry,
            None => self.env.push(entry),
        }
    }
}

/// Docker's healthcheck. Times are in nanoseconds; zero means the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Healthcheck {
    /// `["NONE"]`, `["CMD", …]` or `["CMD-SHELL", line]`. Empty inherits.
    #[serde(default, deserialize_with = "null_is_default", skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    /// Between two checks.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub interval: u64,
    /// For one check.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub timeout: u64,
    /// During which failures do not count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_period: u64,
    /// Between two checks during the start period.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub start_interval: u64,
    /// How many failures in a row make it unhealthy.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub retries: u64,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

/// What the layers unpack to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// The digest of each layer's tar archive before compression, the lowest first.
    #[serde(default, deserialize_with = "null_is_default")]
    pub diff_ids: Vec<Digest>,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

impl Default for RootFs {
    fn default() -> Self {
        Self { kind: "layers".to_owned(), diff_ids: Vec::new(), extra: Extra::new() }
    }
}

/// One step in how an image came about.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct History {
    /// When, in RFC 3339.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// By what instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// By whom.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether it left no layer.
    #[serde(default, skip_serializing_if = "is_false")]
    pub empty_layer: bool,
    /// Fields this version does not know, kept as they are.
    #[serde(flatten)]
    pub extra: Extra,
}

impl ImageConfig {
    /// The configuration of an image for `platform` that has nothing in it yet.
    #[must_use]
    pub fn new(platform: &Platform) -> Self {
        Self {
            architecture: platform.architecture.clone(),
            variant: platform.variant.clone(),
            os: platform.os.clone(),
            ..Self::default()
        }
    }

    /// Reads a configuration.
    ///
    /// # Errors
    ///
    /// When it is malformed, too large, or its root filesystem is not made of
    /// layers.
    pub fn parse(bytes: &[u8]) -> Result<Self, DocumentError> {
        let config: Self = document::parse(WHAT, bytes)?;
        if config.rootfs.kind == "layers" {
            return Ok(config);
        }
        Err(DocumentError::Contradiction {
            what: WHAT,
            why: format!("rootfs.type is `{}`, not `layers`", config.rootfs.kind),
        })
    }

    /// The configuration in canonical JSON: equal configurations, equal bytes.
    #[must_use]
    pub fn to_json(&self) -> Vec<u8> {
        document::canonical(self)
    }

    /// What machine the image is for.
    #[must_use]
    pub fn platform(&self) -> Platform {
        Platform {
            architecture: self.architecture.clone(),
            os: self.os.clone(),
            variant: self.variant.clone(),
            ..Platform::default()
        }
    }
}

fn is_zero(number: &u64) -> bool {
    *number == 0
}

fn is_false(flag: &bool) -> bool {
    !*flag
}

/// A set that JSON writes as a map of empty objects, as Go's `map[string]struct{}`.
mod set_as_map {
    use super::{BTreeMap, BTreeSet, Deserialize, Deserializer, Serialize, Serializer};

    #[derive(Serialize, Deserialize)]
    struct Empty {}

    pub(super) fn serialize<S: Serializer>(
        set: &BTreeSet<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_map(set.iter().map(|key| (key, Empty {})))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<BTreeSet<String>, D::Error> {
        let map: Option<BTreeMap<String, Option<Empty>>> = Option::deserialize(deserializer)?;
        Ok(map.unwrap_or_default().into_keys().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Docker writes it, nulls and all.
    const DOCKER: &str = r#"{
        "architecture": "amd64", "os": "linux", "created": "2024-01-02T03:04:05.6Z",
        "config": {
            "Hostname": "", "User": "", "ExposedPorts": {"80/tcp": {}}, "Tty": false,
            "Env": ["PATH=/bin", "A=b=c"], "Cmd": ["nginx"], "Volumes": null, "WorkingDir": "",
            "Entrypoint": null, "OnBuild": null, "Labels": null,
            "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 5000000000, "Retries": 2}
        },
        "rootfs": {"type": "layers", "diff_ids": [
            "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"]},
        "history": [{"created_by": "COPY", "empty_layer": true}]
    }"#;

    #[test]
    fn what_docker_writes_is_read() {
        let config = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
        assert_eq!(config.config.variable("A"), Some("b=c"));
        assert!(config.config.exposed_ports.contains("80/tcp"));
        assert!(config.config.volumes.is_empty());
        assert_eq!(config.config.healthcheck.as_ref().unwrap().retries, 2);
        assert_eq!(config.config.extra["Tty"], serde_json::json!(false));
        assert!(config.history[0].empty_layer);
        assert_eq!(config.platform().to_string(), "linux/amd64");
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let config = ImageConfig::parse(DOCKER.as_bytes()).unwrap();
        let json = config.to_json();
        assert_eq!(ImageConfig::parse(&json).unwrap(), config);
        assert_eq!(ImageConfig::parse(&json).unwrap().to_json(), json);
    }

    #[test]
    fn a_variable_is_set_in_its_place() {
        let mut config = ExecutionConfig::default();
        config.set_variable("A", "1");
        config.set_variable("B", "2");
        config.set_variable("A", "3");
        assert_eq!(config.env, ["A=3", "B=2"]);
    }

    #[test]
    fn a_rootfs_that_is_not_layers_is_refused() {
        let json = DOCKER.replace("\"layers\"", "\"blob\"");
        assert!(matches!(
            ImageConfig::parse(json.as_bytes()),
            Err(DocumentError::Contradiction { .. })
        ));
    }
}
