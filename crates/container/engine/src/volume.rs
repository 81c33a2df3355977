//! Volumes: directories of the host that outlive the containers that mount them.
//!
//! A new volume is filled once with what the image has in its place, as in Docker. That is copied
//! out of a tree somebody else wrote, so nothing in it is reached by a path: directories are held
//! open, and links are copied, never followed.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use carrack_oci::Digest;
use jiff::Timestamp;
use rustix::fs::{AtFlags, FileType, Gid, Mode, OFlags, Timestamps, Uid};

use crate::api::VolumeSummary;
use crate::container::Container;
use crate::engine::{Engine, private_directory};
use crate::error::EngineError;
use crate::record::VolumeRecord;

impl Engine {
    fn volume_path(&self, name: &str) -> PathBuf {
        self.config.root.join("volumes").join(name)
    }

    /// Sees that a volume is there. Says whether it is new.
    pub(crate) fn ensure_volume(
        &self,
        name: &str,
        project: &str,
        labels: BTreeMap<String, String>,
        owner: Option<&str>,
    ) -> Result<bool, EngineError> {
        check_name(name)?;
        if self.table.lock().volumes.contains_key(name) {
            return Ok(false);
        }
        let record = VolumeRecord {
            project: project.to_owned(),
            created: Timestamp::now(),
            labels,
            owner: owner.map(str::to_owned),
            filled: false,
        };
        self.save_volume(name, record)?;
        Ok(true)
    }

    fn save_volume(&self, name: &str, record: VolumeRecord) -> Result<(), EngineError> {
        let put = self.records.volumes.put(name, &record);
        put.map_err(EngineError::failed(format!("recording the volume {name}")))?;
        self.table.lock().volumes.insert(name.to_owned(), record);
        Ok(())
    }

    pub(crate) fn has_volume(&self, name: &str) -> bool {
        self.table.lock().volumes.contains_key(name)
    }

    /// The directory of a volume, filled with what the image has in its place if it is new.
    pub(crate) fn open_volume(
        &self,
        name: &str,
        rootfs: &Path,
        target: &str,
        fill: bool,
    ) -> Result<PathBuf, EngineError> {
        let record = self.table.lock().volumes.get(name).cloned();
        let Some(mut record) = record else {
            return Err(EngineError::NotFound { kind: "volume", name: name.to_owned() });
        };
        let path = self.volume_path(name);
        private_directory(&self.config.root.join("volumes"))?;
        if !record.filled {
            // Half filled by somebody who was killed, it is filled anew.
            let attempt = || format!("filling the volume {name} from {target} of the image");
            empty(&path).map_err(EngineError::failed(attempt()))?;
            if fill {
                fill_from(rootfs, target, &path).map_err(EngineError::failed(attempt()))?;
            }
            record.filled = true;
            self.save_volume(name, record)?;
        }
        fs::create_dir_all(&path)
            .map_err(EngineError::failed(format!("making the volume {name}")))?;
        Ok(path)
    }

    /// Removes a volume that no container mounts.
    pub(crate) fn remove_volume(&self, name: &str) -> Result<(), EngineError> {
        if !self.has_volume(name) {
            return Err(EngineError::NotFound { kind: "volume", name: name.to_owned() });
        }
        let users = self.volume_users(name);
        if !users.is_empty() {
            return Err(EngineError::Conflict(format!(
                "the volume {name} is mounted by {}; remove them first",
                users.join(", ")
            )));
        }
        let attempt = || format!("removing the volume {name}");
        match fs::remove_dir_all(self.volume_path(name)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(EngineError::failed(attempt())(error));
            }
            Ok(()) | Err(_) => {}
        }
        self.records.volumes.delete(name).map_err(EngineError::failed(attempt()))?;
        self.table.lock().volumes.remove(name);
        Ok(())
    }

    /// Removes or lets go of the volumes that belong to a container alone.
    pub(crate) fn remove_own_volumes(
        &self,
        container: &Container,
        remove: bool,
    ) -> Result<(), EngineError> {
        if !remove {
            return Ok(());
        }
        let own: Vec<String> = {
            let table = self.table.lock();
            let mine =
                table.volumes.iter().filter(|(_, v)| v.owner.as_deref() == Some(&container.id));
            mine.map(|(name, _)| name.clone()).collect()
        };
        for name in own {
            let attempt = format!("removing the volume {name}");
            match fs::remove_dir_all(self.volume_path(&name)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    return Err(EngineError::failed(attempt)(error));
                }
                Ok(()) | Err(_) => {}
            }
            self.records.volumes.delete(&name).map_err(EngineError::failed(attempt))?;
            self.table.lock().volumes.remove(&name);
        }
        Ok(())
    }

    fn volume_users(&self, name: &str) -> Vec<String> {
        let table = self.table.lock();
        let mounts = |container: &Container| {
            container.definition.mounts.iter().any(|mount| {
                volume_of(&container.id, &mount.target, &mount.kind).as_deref() == Some(name)
            })
        };
        let users = table.containers.values().filter(|container| mounts(container));
        users.map(|container| container.name.clone()).collect()
    }

    /// Lists volumes.
    pub(crate) fn volumes(&self) -> Vec<VolumeSummary> {
        let records = self.table.lock().volumes.clone();
        let summary = |(name, record): (String, VolumeRecord)| VolumeSummary {
            path: self.volume_path(&name),
            used_by: self.volume_users(&name),
            project: record.project,
            created: record.created,
            name,
        };
        records.into_iter().map(summary).collect()
    }
}

/// The volume that a mount shows, by its name on the host. One that belongs to its container
/// alone is named after it and the place it has there.
pub(crate) fn volume_of(
    container: &str,
    target: &str,
    kind: &carrack_objects::compose::MountKind,
) -> Option<String> {
    use carrack_objects::compose::MountKind;
    match kind {
        MountKind::Volume { name: Some(name), .. } => Some(name.clone()),
        MountKind::Volume { name: None, .. } => {
            let digest = Digest::of(target);
            let (container, place) = (container.get(..32), digest.hex().get(..32));
            Some(format!("{}{}", container.unwrap_or("0"), place.unwrap_or("0")))
        }
        MountKind::Bind { .. } | MountKind::Tmpfs { .. } => None,
    }
}

/// A volume's name becomes a directory's, so it must not lead elsewhere.
fn check_name(name: &str) -> Result<(), EngineError> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-".contains(&byte);
    let starts = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphanumeric());
    if starts && name.len() <= 255 && name.bytes().all(plain) {
        return Ok(());
    }
    Err(EngineError::Invalid(format!(
        "`{name}` is no volume name: letters, digits, `_`, `.` and `-`, a letter or digit first"
    )))
}

fn empty(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        Ok(()) | Err(_) => {}
    }
    fs::create_dir(path)
}

/// Copies the directory `target` of the tree at `rootfs` into the new directory `to`. That there
/// is none leaves it empty.
fn fill_from(rootfs: &Path, target: &str, to: &Path) -> io::Result<()> {
    let inside = target.trim_start_matches('/');
    let inside = if inside.is_empty() { "." } else { inside };
    let source = match RootedDir::open(rootfs)?.directory(Path::new(inside)) {
        Ok(source) => source,
        Err(error) => {
            return match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => Ok(()),
                _ => Err(error),
            };
        }
    };
    let to = rustix::fs::open(to, OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
    // A handle that only names the directory cannot list it.
    let source = reopen(source.as_fd())?;
    copy_directory(source, to.as_fd())
}

fn reopen(directory: BorrowedFd<'_>) -> io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(directory, ".", flags, Mode::empty())?)
}

/// Copies what is in one directory into another, and its owner and mode.
fn copy_directory(from: OwnedFd, to: BorrowedFd<'_>) -> io::Result<()> {
    let stat = rustix::fs::fstat(&from)?;
    for entry in rustix::fs::Dir::read_from(&from)? {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        let stat = rustix::fs::statat(&from, name, AtFlags::SYMLINK_NOFOLLOW)?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => {
                rustix::fs::mkdirat(to, name, Mode::RWXU)?;
                let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let child = rustix::fs::openat(&from, name, flags, Mode::empty())?;
                let copy = rustix::fs::openat(to, name, flags, Mode::empty())?;
                copy_directory(child, copy.as_fd())?;
            }
            FileType::RegularFile => copy_file(&from, to, name)?,
            FileType::Symlink => {
                let link = rustix::fs::readlinkat(&from, name, Vec::new())?;
                rustix::fs::symlinkat(link, to, name)?;
                let (uid, gid) = owner(&stat);
                rustix::fs::chownat(to, name, uid, gid, AtFlags::SYMLINK_NOFOLLOW)?;
            }
            // Devices, sockets and pipes of an image are not data.
            _ => {}
        }
    }
    settle(to, &stat)
}

fn copy_file(from: &OwnedFd, to: BorrowedFd<'_>, name: &std::ffi::CStr) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let source = rustix::fs::openat(from, name, flags, Mode::empty())?;
    let stat = rustix::fs::fstat(&source)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let copy = rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR)?;
    let (mut source, mut copy) = (fs::File::from(source), fs::File::from(copy));
    io::copy(&mut source, &mut copy)?;
    settle(copy.as_fd(), &stat)
}

/// Gives a copy its owner, mode and times; in this order, since a change of owner takes the
/// set-user-id bit.
fn settle(copy: BorrowedFd<'_>, stat: &rustix::fs::Stat) -> io::Result<()> {
    let (uid, gid) = owner(stat);
    rustix::fs::fchown(copy, uid, gid)?;
    rustix::fs::fchmod(copy, Mode::from_raw_mode(stat.st_mode))?;
    let time = |seconds, nanos: u64| rustix::fs::Timespec {
        tv_sec: seconds,
        tv_nsec: i64::try_from(nanos).unwrap_or(0),
    };
    let times = Timestamps {
        last_access: time(stat.st_atime, stat.st_atime_nsec),
        last_modification: time(stat.st_mtime, stat.st_mtime_nsec),
    };
    Ok(rustix::fs::futimens(copy, &times)?)
}

fn owner(stat: &rustix::fs::Stat) -> (Option<Uid>, Option<Gid>) {
    (Some(Uid::from_raw(stat.st_uid)), Some(Gid::from_raw(stat.st_gid)))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_volume_is_filled_with_what_the_image_has_there() {
        let dir = tempfile::tempdir().expect("a directory");
        let data = dir.path().join("rootfs/data");
        fs::create_dir_all(data.join("sub")).expect("directories");
        fs::write(data.join("sub/file"), "content").expect("a file");
        fs::set_permissions(data.join("sub/file"), fs::Permissions::from_mode(0o640))
            .expect("mode");
        fs::set_permissions(&data, fs::Permissions::from_mode(0o1777)).expect("mode");
        symlink("/etc/passwd", data.join("link")).expect("a link");

        let volume = dir.path().join("volume");
        empty(&volume).expect("the volume is made");
        fill_from(&dir.path().join("rootfs"), "/data", &volume).expect("and filled");

        assert_eq!(fs::read_to_string(volume.join("sub/file")).expect("copied"), "content");
        assert_eq!(fs::metadata(volume.join("sub/file")).expect("file").mode() & 0o7777, 0o640);
        assert_eq!(fs::metadata(&volume).expect("volume").mode() & 0o7777, 0o1777);
        let link = fs::read_link(volume.join("link")).expect("the link is copied, not followed");
        assert_eq!(link, Path::new("/etc/passwd"));
    }

    #[test]
    fn a_target_that_links_out_of_the_image_is_looked_for_inside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let rootfs = dir.path().join("rootfs");
        fs::create_dir_all(rootfs.join("inner")).expect("directories");
        fs::write(rootfs.join("inner/mine"), "").expect("a file");
        fs::create_dir_all(dir.path().join("outer")).expect("directories");
        fs::write(dir.path().join("outer/secret"), "").expect("a file");
        symlink("../outer", rootfs.join("data")).expect("a link out");
        symlink("/inner", rootfs.join("inside")).expect("a link in");

        let volume = dir.path().join("volume");
        empty(&volume).expect("the volume is made");
        fill_from(&rootfs, "/data", &volume).expect("there is no such directory inside");
        assert_eq!(fs::read_dir(&volume).expect("volume").count(), 0);
        fill_from(&rootfs, "/inside", &volume).expect("filled");
        assert!(volume.join("mine").exists());
    }

    #[test]
    fn a_volume_name_cannot_lead_elsewhere() {
        for name in ["", "..", ".x", "a/b", "-v", "a b"] {
            assert!(check_name(name).is_err(), "{name}");
        }
        assert!(check_name("shop_store-data.1").is_ok());
    }
}
