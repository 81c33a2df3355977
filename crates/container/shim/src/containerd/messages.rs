//! The messages of the task service, versions 2 and 3, which are the same.
//!
//! Of each request what is used; see `runtime/task/v3/shim.proto` in
//! github.com/containerd/containerd/api.

use super::wire::{Any, Malformed, Message, for_each};

/// `containerd.types.Mount`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Mount {
    pub(crate) kind: String,
    pub(crate) source: String,
    pub(crate) target: String,
    pub(crate) options: Vec<String>,
}

impl Mount {
    fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut mount = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => mount.kind = value.text()?,
                2 => mount.source = value.text()?,
                3 => mount.target = value.text()?,
                4 => mount.options.push(value.text()?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(mount)
    }

    pub(crate) fn encode(&self) -> Message {
        let message =
            Message::new().text(1, &self.kind).text(2, &self.source).text(3, &self.target);
        self.options.iter().fold(message, |message, option| message.item(4, option))
    }
}

/// Where a process's streams are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Streams {
    pub(crate) terminal: bool,
    pub(crate) stdin: String,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

/// `CreateTaskRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Create {
    pub(crate) id: String,
    pub(crate) bundle: String,
    pub(crate) rootfs: Vec<Mount>,
    pub(crate) streams: Streams,
    pub(crate) checkpoint: String,
    pub(crate) options: Option<Any>,
}

impl Create {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut create = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => create.id = value.text()?,
                2 => create.bundle = value.text()?,
                3 => create.rootfs.push(Mount::decode(value.bytes()?)?),
                4 => create.streams.terminal = value.truth()?,
                5 => create.streams.stdin = value.text()?,
                6 => create.streams.stdout = value.text()?,
                7 => create.streams.stderr = value.text()?,
                8 => create.checkpoint = value.text()?,
                10 => create.options = Some(Any::decode(value.bytes()?)?),
                _ => {}
            }
            Ok(())
        })?;
        Ok(create)
    }
}

/// `ExecProcessRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Exec {
    pub(crate) id: String,
    pub(crate) exec_id: String,
    pub(crate) streams: Streams,
    pub(crate) spec: Any,
}

impl Exec {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut exec = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => exec.id = value.text()?,
                2 => exec.exec_id = value.text()?,
                3 => exec.streams.terminal = value.truth()?,
                4 => exec.streams.stdin = value.text()?,
                5 => exec.streams.stdout = value.text()?,
                6 => exec.streams.stderr = value.text()?,
                7 => exec.spec = Any::decode(value.bytes()?)?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(exec)
    }
}

/// A request about one process: a container's first with an empty `exec_id`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct About {
    pub(crate) id: String,
    pub(crate) exec_id: String,
    /// Fields 3 and 4, whatever the request calls them: signal and all, width and height,
    /// whether standard input is meant.
    pub(crate) numbers: [u32; 2],
}

impl About {
    /// `StateRequest`, `StartRequest`, `DeleteRequest`, `WaitRequest`, `KillRequest`,
    /// `ResizePtyRequest` and `CloseIORequest`.
    pub(crate) fn process(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut about = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => about.id = value.text()?,
                2 => about.exec_id = value.text()?,
                3 => about.numbers[0] = value.small()?,
                4 => about.numbers[1] = value.small()?,
                _ => {}
            }
            Ok(())
        })?;
        Ok(about)
    }

    /// Requests whose first field is the container and whose others do not matter here.
    pub(crate) fn container(bytes: &[u8]) -> Result<String, Malformed> {
        let mut id = String::new();
        for_each(bytes, |field, value| {
            if field == 1 {
                id = value.text()?;
            }
            Ok(())
        })?;
        Ok(id)
    }
}

/// `UpdateTaskRequest`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Update {
    pub(crate) id: String,
    pub(crate) resources: Any,
    pub(crate) annotates: bool,
}

impl Update {
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut update = Self::default();
        for_each(bytes, |field, value| {
            match field {
                1 => update.id = value.text()?,
                2 => update.resources = Any::decode(value.bytes()?)?,
                3 => update.annotates = true,
                _ => {}
            }
            Ok(())
        })?;
        Ok(update)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_request_to_create_is_read() {
        let mount = Mount {
            kind: "overlay".into(),
            source: "overlay".into(),
            target: String::new(),
            options: vec!["lowerdir=/a:/b".into(), "index=off".into()],
        };
        let options = Any { url: "containerd.runc.v1.Options".into(), value: vec![8, 1] };
        let message = Message::new()
            .text(1, "web")
            .text(2, "/bundle")
            .message(3, &mount.encode())
            .number(4, true)
            .text(6, "/out")
            .message(10, &options.encode());
        let create = Create::decode(message.as_bytes()).expect("a request");
        assert_eq!((create.id.as_str(), create.bundle.as_str()), ("web", "/bundle"));
        assert_eq!(create.rootfs, [mount]);
        assert!(create.streams.terminal && create.streams.stdin.is_empty());
        assert_eq!((create.streams.stdout.as_str(), create.options), ("/out", Some(options)));
    }

    #[test]
    fn a_type_is_known_with_and_without_an_address_before_it() {
        let name = |url: &str| Any { url: url.into(), value: Vec::new() }.name().to_owned();
        assert_eq!(name("containerd.runc.v1.Options"), "containerd.runc.v1.Options");
        assert_eq!(
            name("type.googleapis.com/containerd.runc.v1.Options"),
            "containerd.runc.v1.Options"
        );
        assert_eq!(name("types.containerd.io/opencontainers/runtime-spec/1/Process"), "Process");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic(bytes in any::<Vec<u8>>()) {
            Create::decode(&bytes).ok();
            Exec::decode(&bytes).ok();
            About::process(&bytes).ok();
            About::container(&bytes).ok();
            Update::decode(&bytes).ok();
        }
    }
}
