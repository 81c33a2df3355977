//! Mounting a container's root filesystem, as the caller's snapshots describe it.
//!
//! Everything is prepared detached and attached at the end; paths are the caller's, who is
//! trusted with them as root is.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use carrack_linux::mount::{self, Attributes, Change, Filesystem, Propagation};
use rustix::fs::{Mode, OFlags};

use super::messages::Mount;

/// A mount's options, told apart.
#[derive(Debug, Default, PartialEq, Eq)]
struct Options {
    attributes: Attributes,
    bind: bool,
    recursive: bool,
    propagation: Option<(Propagation, bool)>,
    /// What the file system itself is told.
    data: Vec<(String, Option<String>)>,
}

/// Mounts everything at `rootfs`, or below it where a mount says so.
pub(super) fn mount_all(mounts: &[Mount], rootfs: &Path) -> io::Result<()> {
    for mount in mounts {
        mount_one(mount, rootfs).map_err(|error| {
            let message = format!("mounting {} {} for the root: {error}", mount.kind, mount.source);
            io::Error::new(error.kind(), message)
        })?;
    }
    Ok(())
}

/// Takes away whatever is mounted at `rootfs`, with what is below.
pub(super) fn unmount_all(rootfs: &Path) -> io::Result<()> {
    loop {
        match mount::detach(rootfs) {
            Ok(()) => {}
            Err(error) if matches!(error.raw_os_error(), Some(libc::EINVAL | libc::ENOENT)) => {
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
}

fn mount_one(mount: &Mount, rootfs: &Path) -> io::Result<()> {
    let options = options(&mount.options)?;
    let tree = if mount.kind == "bind" || options.bind {
        bind(&mount.source, &options)?
    } else if mount.kind == "overlay" {
        overlay(&mount.source, &options)?
    } else {
        plain(mount, &options)?
    };
    if let Some((propagation, recursive)) = options.propagation {
        let change = Change { propagation: Some(propagation), ..Change::default() };
        mount::set_attributes(tree.as_fd(), recursive, change)?;
    }
    let target = place(rootfs, &mount.target)?;
    mount::attach(tree.as_fd(), target.as_fd())
}

/// Where to attach: the root, or the directory in it that the mount names.
fn place(rootfs: &Path, target: &str) -> io::Result<OwnedFd> {
    let root = carrack_linux::rooted::RootedDir::open(rootfs)?;
    if target.trim_matches('/').is_empty() {
        return Ok(root.into_fd());
    }
    root.handle(Path::new(target))
}

fn bind(source: &str, options: &Options) -> io::Result<OwnedFd> {
    if let Some((key, _)) = options.data.first() {
        return Err(unknown(key));
    }
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let opened = rustix::fs::open(source, flags, Mode::empty())?;
    let tree = mount::clone_tree(opened.as_fd(), options.recursive)?;
    if !options.attributes.is_empty() {
        let change = Change { set: options.attributes, ..Change::default() };
        mount::set_attributes(tree.as_fd(), false, change)?;
    }
    Ok(tree)
}

fn plain(mount: &Mount, options: &Options) -> io::Result<OwnedFd> {
    let filesystem = Filesystem::open(&mount.kind)?;
    if !mount.source.is_empty() {
        filesystem.set("source", &mount.source)?;
    }
    configure(&filesystem, &options.data)?;
    filesystem.mount(options.attributes)
}

fn configure(filesystem: &Filesystem, data: &[(String, Option<String>)]) -> io::Result<()> {
    for (key, value) in data {
        match value {
            Some(value) => filesystem.set(key, value)?,
            None => filesystem.flag(key)?,
        }
    }
    Ok(())
}

/// An overlay with the caller's own options; its directories are handed over as descriptors.
fn overlay(source: &str, options: &Options) -> io::Result<OwnedFd> {
    let filesystem = Filesystem::open("overlay")?;
    filesystem.set("source", if source.is_empty() { "overlay" } else { source })?;
    let mut held = Vec::new();
    let mut rest = Vec::new();
    for (key, value) in &options.data {
        match (key.as_str(), value) {
            ("lowerdir", Some(value)) => {
                let layers: Vec<_> = split_layers(value);
                held.extend(mount::set_overlay_layers(&filesystem, &layers)?);
            }
            ("upperdir" | "workdir", Some(value)) => {
                held.push(mount::set_overlay_directory(&filesystem, key, Path::new(value))?);
            }
            _ => rest.push((key.clone(), value.clone())),
        }
    }
    configure(&filesystem, &rest)?;
    filesystem.mount(options.attributes)
}

/// Layers are separated by colons; one in a name has a backslash before it.
fn split_layers(value: &str) -> Vec<PathBuf> {
    let (mut layers, mut layer, mut escaped) = (Vec::new(), String::new(), false);
    for letter in value.chars() {
        match letter {
            '\\' if !escaped => escaped = true,
            ':' if !escaped => layers.push(std::mem::take(&mut layer).into()),
            letter => {
                layer.push(letter);
                escaped = false;
            }
        }
    }
    layers.push(layer.into());
    layers
}

fn unknown(option: &str) -> io::Error {
    let message = format!("the option {option:?} has no meaning for it");
    io::Error::new(io::ErrorKind::InvalidInput, message)
}

fn options(words: &[String]) -> io::Result<Options> {
    let mut options = Options::default();
    for word in words.iter().filter(|word| !word.is_empty()) {
        let attribute = match word.as_str() {
            "ro" => Attributes::READ_ONLY,
            "nosuid" => Attributes::NO_SUID,
            "nodev" => Attributes::NO_DEV,
            "noexec" => Attributes::NO_EXEC,
            "noatime" => Attributes::NO_ATIME,
            "strictatime" => Attributes::STRICT_ATIME,
            "nodiratime" => Attributes::NO_DIR_ATIME,
            "nosymfollow" => Attributes::NO_SYMFOLLOW,
            _ => Attributes::empty(),
        };
        options.attributes |= attribute;
        if !attribute.is_empty() {
            continue;
        }
        match word.as_str() {
            "bind" => options.bind = true,
            "rbind" => (options.bind, options.recursive) = (true, true),
            // What a new mount is anyway.
            "rw" | "suid" | "dev" | "exec" | "atime" | "relatime" | "diratime" | "async"
            | "defaults" => {}
            "private" => options.propagation = Some((Propagation::Private, false)),
            "rprivate" => options.propagation = Some((Propagation::Private, true)),
            "slave" => options.propagation = Some((Propagation::Slave, false)),
            "rslave" => options.propagation = Some((Propagation::Slave, true)),
            "shared" => options.propagation = Some((Propagation::Shared, false)),
            "rshared" => options.propagation = Some((Propagation::Shared, true)),
            "remount" | "loop" => return Err(unknown(word)),
            word if word.starts_with("X-containerd.")
                || word.starts_with("uidmap=")
                || word.starts_with("gidmap=") =>
            {
                return Err(unknown(word));
            }
            word => {
                let pair = word.split_once('=');
                let (key, value) = pair.map_or((word, None), |(key, value)| (key, Some(value)));
                options.data.push((key.to_owned(), value.map(str::to_owned)));
            }
        }
    }
    Ok(options)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(words: &[&str]) -> io::Result<Options> {
        options(&words.iter().map(|&word| word.to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn options_of_the_mount_are_told_from_those_of_the_file_system() {
        let options = read(&["rbind", "ro", "rslave", "nosuid"]).expect("known");
        assert!(options.bind && options.recursive && options.data.is_empty());
        assert_eq!(options.attributes, Attributes::READ_ONLY | Attributes::NO_SUID);
        assert_eq!(options.propagation, Some((Propagation::Slave, true)));
        let options = read(&["lowerdir=/a:/b", "volatile", "rw"]).expect("known");
        let data = [("lowerdir".into(), Some("/a:/b".into())), ("volatile".into(), None)];
        assert_eq!(options.data, data);
        read(&["loop"]).expect_err("refused");
    }

    #[test]
    fn a_colon_within_the_name_of_a_layer_is_kept() {
        let paths = |value| split_layers(value);
        assert_eq!(paths("/a:/b"), [Path::new("/a"), Path::new("/b")]);
        assert_eq!(paths("/a\\:1:/b\\\\c"), [Path::new("/a:1"), Path::new("/b\\c")]);
    }
}
