//! How containerd calls the program: flags as Go writes them, then one word.

use std::ffi::OsString;
use std::path::PathBuf;

/// What the program is to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Action {
    /// Become a shim, or find the one of the pod.
    Start,
    /// Clean up after one that died.
    Delete,
    /// Say what this is, as a message.
    Info,
    /// Say what this is, to a person.
    Version,
}

/// The command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Flags {
    pub(super) action: Option<Action>,
    pub(super) namespace: String,
    pub(super) id: String,
    pub(super) address: String,
    pub(super) publish_binary: PathBuf,
    pub(super) bundle: PathBuf,
    pub(super) debug: bool,
}

impl Flags {
    /// Reads the words after the program's name.
    pub(super) fn read(words: impl IntoIterator<Item = OsString>) -> Result<Self, String> {
        let mut flags = Self::default();
        let mut words = words.into_iter().map(|word| {
            word.into_string().map_err(|word| format!("{} is not text", word.display()))
        });
        while let Some(word) = words.next().transpose()? {
            let Some(flag) = word.strip_prefix('-') else {
                flags.action = Some(match word.as_str() {
                    "start" => Action::Start,
                    "delete" => Action::Delete,
                    other => return Err(format!("{other} is neither start nor delete")),
                });
                break;
            };
            let flag = flag.strip_prefix('-').unwrap_or(flag);
            let (flag, attached) =
                flag.split_once('=').map_or((flag, None), |(flag, value)| (flag, Some(value)));
            let mut value = || match attached {
                Some(value) => Ok(value.to_owned()),
                None => words.next().unwrap_or_else(|| Err(format!("-{flag} needs a value"))),
            };
            match flag {
                "namespace" => flags.namespace = value()?,
                "id" => flags.id = value()?,
                "address" => flags.address = value()?,
                "publish-binary" => flags.publish_binary = value()?.into(),
                "bundle" => flags.bundle = value()?.into(),
                "debug" => flags.debug = true,
                "v" | "version" => flags.action = Some(Action::Version),
                "info" => flags.action = Some(Action::Info),
                other => return Err(format!("flag -{other} is not known here")),
            }
        }
        if let Some(word) = words.next().transpose()? {
            return Err(format!("{word} is one word too many"));
        }
        flags.check()
    }

    fn check(self) -> Result<Self, String> {
        let needs_names = matches!(self.action, Some(Action::Start | Action::Delete));
        if needs_names && self.namespace.is_empty() {
            return Err("-namespace is missing; containerd names its namespace with it".into());
        }
        if needs_names && self.id.is_empty() {
            return Err("-id is missing; containerd names the container with it".into());
        }
        if self.action.is_none() {
            return Err("this is a shim for containerd, which calls it with start or delete".into());
        }
        let plain = |name: &str| !name.contains(['/', '\0']) && !matches!(name, "." | "..");
        if !plain(&self.namespace) || !plain(&self.id) {
            return Err("-namespace and -id are names, not paths".into());
        }
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(line: &str) -> Result<Flags, String> {
        Flags::read(line.split_whitespace().map(OsString::from))
    }

    #[test]
    fn containerds_command_line_is_understood() {
        let flags = read(
            "-namespace default -address /run/c.sock -publish-binary /usr/bin/containerd \
             -id web -bundle /b -debug start",
        );
        let wanted = Flags {
            action: Some(Action::Start),
            namespace: "default".into(),
            id: "web".into(),
            address: "/run/c.sock".into(),
            publish_binary: "/usr/bin/containerd".into(),
            bundle: "/b".into(),
            debug: true,
        };
        assert_eq!(flags, Ok(wanted));
        let flags = read("--namespace=x --id=y delete").expect("taken");
        assert_eq!((flags.action, flags.id.as_str()), (Some(Action::Delete), "y"));
        assert_eq!(read("-v").expect("taken").action, Some(Action::Version));
        assert_eq!(read("-info").expect("taken").action, Some(Action::Info));
    }

    #[test]
    fn a_command_line_that_makes_no_sense_is_refused_by_what_is_wrong() {
        let says = |line: &str, word: &str| {
            let error = read(line).expect_err("refused");
            assert!(error.contains(word), "{word:?} is not in: {error}");
        };
        says("", "start or delete");
        says("-id x start", "-namespace");
        says("-namespace x start", "-id");
        says("-namespace x -id ../y start", "not paths");
        says("-namespace x -id y stop", "stop");
        says("-socket x", "-socket");
        says("-namespace", "needs a value");
        says("-namespace x -id y start now", "now");
    }
}
