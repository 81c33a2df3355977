//! The runtime specification, version 1.3, for Linux: `config.json` and a container's state.
//!
//! Plain data. What may be absent is an [`Option`], or an empty text, list or map; what is
//! absent is not written. Nothing is judged here beyond its JSON type and, for closed sets of
//! words, the word: whether a value makes sense is for whoever acts on it to say. Properties
//! that the specification does not know are passed over, as it demands.

mod capability;
mod field;
mod filter;
mod linux;
mod process;
mod resources;

pub mod defaults;
pub mod seccomp;

use std::collections::BTreeMap;
use std::path::PathBuf;

use field::words;

pub use capability::*;
pub use filter::*;
pub use linux::*;
pub use process::*;
pub use resources::*;

/// The version of the specification that this crate speaks.
pub const VERSION: &str = "1.3.0";

words! {
    /// `config.json`.
    #[derive(Default)]
    pub struct Spec {
        /// The version of the specification it is written for.
        kept version ("ociVersion"): String,
        /// The program, for a container that is to be started.
        process ("process"): Option<Process>,
        /// The root file system.
        root ("root"): Option<Root>,
        /// The host name inside.
        hostname ("hostname"): String,
        /// The NIS domain name inside.
        domainname ("domainname"): String,
        /// Mounts besides the root, made in this order.
        mounts ("mounts"): Vec<Mount>,
        /// Programs to run at moments of the container's life.
        hooks ("hooks"): Hooks,
        /// Notes that are nobody's business but the caller's.
        annotations ("annotations"): BTreeMap<String, String>,
        /// What Linux needs to know.
        linux ("linux"): Option<Linux>,
        /// For another system.
        solaris ("solaris"): Option<serde_json::Value>,
        /// For another system.
        windows ("windows"): Option<serde_json::Value>,
        /// For another kind of container.
        vm ("vm"): Option<serde_json::Value>,
        /// For another system.
        zos ("zos"): Option<serde_json::Value>,
        /// For another system.
        freebsd ("freebsd"): Option<serde_json::Value>,
    }
}

words! {
    /// The root file system.
    #[derive(Default)]
    pub struct Root {
        /// Its directory, absolute or counted from the bundle.
        kept path ("path"): PathBuf,
        /// Whether the container cannot write to it.
        readonly ("readonly"): bool,
    }
}

words! {
    /// One mount.
    #[derive(Default)]
    pub struct Mount {
        /// Where, inside the container.
        kept destination ("destination"): PathBuf,
        /// The type of file system.
        kind ("type"): String,
        /// A device, a path of the host, or a mere name.
        source ("source"): PathBuf,
        /// Options as in `fstab`.
        options ("options"): Vec<String>,
        /// Owners as the mount shows them.
        uid_mappings ("uidMappings"): Vec<LinuxIdMapping>,
        /// Groups as the mount shows them.
        gid_mappings ("gidMappings"): Vec<LinuxIdMapping>,
    }
}

words! {
    /// Programs to run at moments of a container's life.
    #[derive(Default)]
    pub struct Hooks {
        /// During `create`, outside. Deprecated by the specification.
        prestart ("prestart"): Vec<Hook>,
        /// During `create`, outside, once the namespaces exist.
        create_runtime ("createRuntime"): Vec<Hook>,
        /// During `create`, inside, before the root is changed.
        create_container ("createContainer"): Vec<Hook>,
        /// During `start`, inside, before the program.
        start_container ("startContainer"): Vec<Hook>,
        /// After `start`, outside.
        poststart ("poststart"): Vec<Hook>,
        /// After `delete`, outside.
        poststop ("poststop"): Vec<Hook>,
    }
}

words! {
    /// A program to run.
    #[derive(Default)]
    pub struct Hook {
        /// Its absolute path.
        kept path ("path"): PathBuf,
        /// Its arguments, from the zeroth on.
        args ("args"): Vec<String>,
        /// Its whole environment.
        env ("env"): Vec<String>,
        /// Seconds after which it is killed.
        timeout ("timeout"): Option<i64>,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn null_and_absent_are_alike_and_neither_is_written() {
        let text = r#"{"ociVersion":"1.3.0","mounts":null,"linux":{"namespaces":null}}"#;
        let spec: Spec = serde_json::from_str(text).expect("null is read");
        assert!(spec.mounts.is_empty());
        let written = serde_json::to_string(&spec).expect("a spec is JSON");
        assert_eq!(written, r#"{"ociVersion":"1.3.0","linux":{}}"#);
    }

    #[test]
    fn what_the_specification_does_not_know_is_passed_over() {
        let spec: Spec = serde_json::from_str(r#"{"ociVersion":"1.3.0","future":{"a":[1]}}"#)
            .expect("unknown properties are no error");
        assert_eq!(spec.version, "1.3.0");
    }

    #[test]
    fn a_word_outside_a_closed_set_is_named() {
        let text = r#"{"ociVersion":"1.3.0","linux":{"namespaces":[{"type":"space"}]}}"#;
        let error = serde_json::from_str::<Spec>(text).expect_err("there is no such namespace");
        assert!(error.to_string().contains("space"), "{error}");
    }
}
