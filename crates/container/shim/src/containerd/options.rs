//! What the caller configures for this runtime.
//!
//! containerd hands over `containerd.runc.v1.Options`, or for runtimes it does not know
//! `runtimeoptions.v1.Options`, which carries the same as a table of TOML:
//!
//! ```toml
//! Root = "/run/carrack"
//! IoUid = 1000
//! ```

use std::path::{Path, PathBuf};

use super::frame::{Code, Status};
use super::wire::{Any, Malformed, Value, for_each};

/// The longest table of options read from a file.
const LONGEST: u64 = 64 << 10;

/// Options, those understood.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Where the runtime keeps its records, instead of below `/run/containerd/carrack`.
    pub(crate) root: Option<PathBuf>,
    /// The owner of the pipes that a container's streams are.
    pub(crate) io_owner: (u32, u32),
    /// The control group the shim itself moves to.
    pub(crate) shim_cgroup: Option<PathBuf>,
}

impl Options {
    /// Reads options of either kind; none at all are the defaults.
    pub(crate) fn decode(any: Option<&Any>) -> Result<Self, Status> {
        let mut options = Self::default();
        let Some(any) = any.filter(|any| !any.url.is_empty() || !any.value.is_empty()) else {
            return Ok(options);
        };
        match any.name() {
            "containerd.runc.v1.Options" => {
                for_each_option(&any.value, |key, value| options.set(key, value))?;
            }
            "runtimeoptions.v1.Options" => options.read_table(&any.value)?,
            _ => {
                let message = format!(
                    "options of type {:?} are not known here; \
                     use containerd.runc.v1.Options or runtimeoptions.v1.Options",
                    any.url
                );
                return Err(Status::new(Code::InvalidArgument, message));
            }
        }
        Ok(options)
    }

    fn set(&mut self, key: &str, value: Setting) -> Result<(), Status> {
        let refuse = |remedy: &str| Err(refused(key, remedy));
        match (key, value) {
            ("root", Setting::Text(root)) => self.root = path(root),
            ("iouid", Setting::Number(user)) => self.io_owner.0 = id(key, user)?,
            ("iogid", Setting::Number(group)) => self.io_owner.1 = id(key, group)?,
            ("shimcgroup", Setting::Text(group)) => self.shim_cgroup = path(group),
            ("binaryname", Setting::Text(name)) => {
                let own = ["", "carrack-runtime"];
                if !own.contains(
                    &Path::new(&name).file_name().map_or("", |name| name.to_str().unwrap_or("?")),
                ) {
                    return refuse("this shim is the runtime; remove the option");
                }
            }
            ("nopivotroot", Setting::Truth(true)) => {
                return refuse("the root is always pivoted; remove the option");
            }
            ("nonewkeyring", Setting::Truth(true)) => {
                return refuse("every container gets a keyring of its own; remove the option");
            }
            ("systemdcgroup", Setting::Truth(true)) => {
                return refuse("control groups are made by the runtime itself; set it to false");
            }
            ("nopivotroot" | "nonewkeyring" | "systemdcgroup", Setting::Truth(false)) => {}
            // They say where checkpoints go, and a checkpoint is refused when it is asked for.
            ("criupath" | "criuimagepath" | "criuworkpath", Setting::Text(_)) => {}
            // Where a sandbox's own task service is; there is none here.
            ("taskapiaddress", Setting::Text(text)) if text.is_empty() => {}
            ("taskapiversion", Setting::Number(0)) => {}
            _ => return refuse("it is not known here, or its value is not of its kind"),
        }
        Ok(())
    }

    fn read_table(&mut self, bytes: &[u8]) -> Result<(), Status> {
        let (mut url, mut file, mut table) = (String::new(), String::new(), Vec::new());
        for_each(bytes, |field, value| {
            match field {
                1 => url = value.text()?,
                2 => file = value.text()?,
                3 => table = value.bytes()?.to_vec(),
                _ => {}
            }
            Ok(())
        })?;
        if !matches!(url.as_str(), "" | "containerd.runc.v1.Options") {
            return Err(refused("type_url", "only containerd.runc.v1.Options is known here"));
        }
        if !file.is_empty() {
            table = carrack_linux::fs::read_bounded(Path::new(&file), LONGEST)
                .map_err(|error| refused("config_path", &format!("reading {file}: {error}")))?;
        }
        let text = String::from_utf8(table)
            .map_err(|_| refused("config_body", "it is not text; write TOML"))?;
        for (number, line) in text.lines().enumerate() {
            if let Some((key, value)) = assignment(line).map_err(|()| {
                let place = format!("config_body, line {}", number + 1);
                refused(&place, "write one `Key = value` with a string, number or truth")
            })? {
                self.set(&key, value)?;
            }
        }
        Ok(())
    }
}

/// One option's value.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Setting {
    Text(String),
    Number(u64),
    Truth(bool),
}

fn refused(key: &str, remedy: &str) -> Status {
    Status::new(Code::InvalidArgument, format!("runtime option {key}: {remedy}"))
}

fn path(text: String) -> Option<PathBuf> {
    (!text.is_empty()).then(|| text.into())
}

fn id(key: &str, number: u64) -> Result<u32, Status> {
    u32::try_from(number).map_err(|_| refused(key, "an id has 32 bits"))
}

/// `containerd.runc.v1.Options`, under the names that TOML has for them.
fn for_each_option(
    bytes: &[u8],
    mut set: impl FnMut(&str, Setting) -> Result<(), Status>,
) -> Result<(), Status> {
    let mut outcome = Ok(());
    for_each(bytes, |field, value| {
        if outcome.is_ok()
            && let Some((key, setting)) = option(field, value)?
        {
            outcome = set(key, setting);
        }
        Ok(())
    })?;
    outcome
}

fn option(field: u64, value: Value<'_>) -> Result<Option<(&'static str, Setting)>, Malformed> {
    let truth = |key| Ok(Some((key, Setting::Truth(value.truth()?))));
    let text = |key| Ok(Some((key, Setting::Text(value.text()?))));
    let number = |key| Ok(Some((key, Setting::Number(u64::from(value.small()?)))));
    match field {
        1 => truth("nopivotroot"),
        2 => truth("nonewkeyring"),
        3 => text("shimcgroup"),
        4 => number("iouid"),
        5 => number("iogid"),
        6 => text("binaryname"),
        7 => text("root"),
        8 => text("criupath"),
        9 => truth("systemdcgroup"),
        10 => text("criuimagepath"),
        11 => text("criuworkpath"),
        12 => text("taskapiaddress"),
        13 => number("taskapiversion"),
        _ => Ok(None),
    }
}

/// `Key = value` in a line of TOML; keys are compared without case and underscores.
fn assignment(line: &str) -> Result<Option<(String, Setting)>, ()> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let (key, value) = line.split_once('=').ok_or(())?;
    let key = key.trim().trim_matches('"').replace('_', "").to_lowercase();
    let value = value.trim();
    let quoted = ['"', '\'']
        .into_iter()
        .find_map(|quote| value.strip_prefix(quote).and_then(|value| value.strip_suffix(quote)));
    let setting = match (quoted, value) {
        (Some(text), _) if !text.contains(['\\', '"', '\'']) => Setting::Text(text.to_owned()),
        (None, "true") => Setting::Truth(true),
        (None, "false") => Setting::Truth(false),
        (None, number) => Setting::Number(number.parse().map_err(|_| ())?),
        (Some(_), _) => return Err(()),
    };
    Ok(Some((key, setting)))
}

#[cfg(test)]
mod tests {
    use super::super::wire::Message;
    use super::*;

    fn runc(message: Message) -> Result<Options, Status> {
        Options::decode(Some(&Any::of("containerd.runc.v1.Options", message)))
    }

    fn table(text: &str) -> Result<Options, Status> {
        let message = Message::new().text(3, text);
        Options::decode(Some(&Any::of("runtimeoptions.v1.Options", message)))
    }

    #[test]
    fn no_options_are_the_defaults() {
        assert_eq!(Options::decode(None), Ok(Options::default()));
        assert_eq!(Options::decode(Some(&Any::default())), Ok(Options::default()));
        assert_eq!(runc(Message::new()), Ok(Options::default()));
        assert_eq!(table(""), Ok(Options::default()));
    }

    #[test]
    fn what_is_understood_is_taken_from_either_kind() {
        let wanted = Options {
            root: Some("/r".into()),
            io_owner: (1000, 1001),
            shim_cgroup: Some("/shims".into()),
        };
        let message = Message::new()
            .text(3, "/shims")
            .number(4, 1000_u32)
            .number(5, 1001_u32)
            .text(6, "/usr/bin/carrack-runtime")
            .text(7, "/r");
        assert_eq!(runc(message), Ok(wanted.clone()));
        let text = "# ours\nRoot = \"/r\"\nIoUid = 1000\nio_gid = 1001\n\nShimCgroup = '/shims'\nSystemdCgroup = false\n";
        assert_eq!(table(text), Ok(wanted));
    }

    #[test]
    fn what_cannot_be_done_is_refused_by_name() {
        let says = |refused: Result<Options, Status>, word: &str| {
            let status = refused.expect_err("refused");
            assert_eq!(status.code, Code::InvalidArgument);
            assert!(status.message.contains(word), "{word:?} is not in: {}", status.message);
        };
        says(runc(Message::new().number(1, true)), "nopivotroot");
        says(runc(Message::new().number(2, true)), "nonewkeyring");
        says(runc(Message::new().text(6, "runc")), "binaryname");
        says(runc(Message::new().number(9, true)), "systemdcgroup");
        says(table("SystemdCgroup = true"), "systemdcgroup");
        says(table("Rot = \"/x\""), "rot");
        says(table("Root = /x"), "line 1");
        says(table("[deep]"), "line 1");
        let unknown = Any { url: "io.example.Options".into(), value: Vec::new() };
        says(Options::decode(Some(&unknown)), "io.example.Options");
    }
}
