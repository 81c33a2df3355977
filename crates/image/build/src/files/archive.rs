//! Tar archives given to `ADD`, unpacked where they are added.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufReader, Read, Seek};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use carrack_oci::archive::{ArchiveError, Entry, Kind, Reader};

use super::place::{Dress, inside};
use super::{FilesError, Pick, Tree, Writer};

/// What an archive may hold; more is a bomb or a mistake.
const LARGEST_CONTENT: u64 = 16 * 1024 * 1024 * 1024;
const MOST_ENTRIES: u64 = 1_000_000;

impl Writer<'_> {
    /// Puts every pick in its place, archives unpacked.
    pub(crate) fn unpack(&self, picks: &[Pick], tree: &Tree) -> Result<(), FilesError> {
        for pick in picks {
            if let [node] = pick.nodes.as_slice()
                && !pick.is_directory
                && let Some(archive) = open_archive(tree, &node.path)?
            {
                self.unpack_one(&node.path, archive)?;
            } else {
                self.place(std::slice::from_ref(pick), tree)?;
            }
        }
        Ok(())
    }

    fn unpack_one(&self, path: &Path, archive: Box<dyn Read>) -> Result<(), FilesError> {
        let base = self.destination();
        self.directory(&base)?;
        let mut reader = Reader::new(archive);
        let broken = |error: ArchiveError| refused(path, error.to_string());
        let mut directories = Vec::new();
        let (mut entries, mut bytes) = (0, 0_u64);
        while let Some(entry) = reader.next_entry().map_err(broken)? {
            entries += 1;
            bytes = bytes.saturating_add(entry.size);
            if entries > MOST_ENTRIES || bytes > LARGEST_CONTENT {
                return Err(refused(path, "it unpacks to more than is allowed".to_owned()));
            }
            self.unpack_entry(path, &base, &entry, &mut reader, &mut directories)?;
        }
        for (directory, dress) in directories.iter().rev() {
            let finish = || -> io::Result<()> { dress.directory(&self.root.directory(directory)?) };
            finish().map_err(FilesError::write(directory))?;
        }
        Ok(())
    }

    fn unpack_entry(
        &self,
        archive: &Path,
        base: &Path,
        entry: &Entry,
        content: &mut impl Read,
        directories: &mut Vec<(PathBuf, Dress)>,
    ) -> Result<(), FilesError> {
        let shown = String::from_utf8_lossy(&entry.path).into_owned();
        let outside = || refused(archive, format!("`{shown}` leads out of it"));
        let below = inside(&entry.path).ok_or_else(outside)?;
        if below.as_os_str().is_empty() {
            return Ok(());
        }
        let path = base.join(below);
        let dress = self.entry_dress(archive, entry)?;
        self.parent(&path)?;
        match &entry.kind {
            Kind::Directory => {
                self.own_directory(&path)?;
                directories.push((path, dress));
                Ok(())
            }
            Kind::Symlink(target) => self.link(&path, OsStr::from_bytes(target), dress),
            Kind::HardLink(target) => {
                let target = base.join(inside(target).ok_or_else(outside)?);
                self.hard_link(&path, &target)
            }
            Kind::File => {
                let mut file = self.create(&path)?;
                let copied = io::copy(content, &mut file).and_then(|_| dress.file(&file));
                copied.map_err(FilesError::write(&path))
            }
            _ => Err(refused(archive, format!("`{shown}` is a device or pipe"))),
        }
    }

    fn entry_dress(&self, archive: &Path, entry: &Entry) -> Result<Dress, FilesError> {
        let number = |id: u64| {
            let message = || refused(archive, format!("it has an owner numbered {id}"));
            u32::try_from(id).map_err(|_| message())
        };
        let (uid, gid) = match self.placement.owner {
            Some(owner) => owner,
            None => (number(entry.uid)?, number(entry.gid)?),
        };
        Ok(Dress {
            mode: self.placement.mode.unwrap_or(entry.mode & 0o7777),
            uid,
            gid,
            modified: entry.modified.clamp(0, self.placement.epoch.max(0)),
        })
    }

    fn hard_link(&self, path: &Path, target: &Path) -> Result<(), FilesError> {
        let from = self.entry(target)?;
        let to = self.cleared(path)?;
        let flags = rustix::fs::AtFlags::empty();
        rustix::fs::linkat(&from.directory, &from.name, &to.directory, &to.name, flags)
            .map_err(|error| FilesError::write(path)(error.into()))
    }
}

fn refused(path: &Path, message: String) -> FilesError {
    FilesError::Archive { path: path.to_owned(), message }
}

/// The file as an archive, decompressed. `None`: it is not one and is copied as it is.
fn open_archive(tree: &Tree, path: &Path) -> Result<Option<Box<dyn Read>>, FilesError> {
    let Ok(mut file) = tree.open(path) else { return Ok(None) };
    let mut magic = [0; 6];
    let length = read_up_to(&mut file, &mut magic).map_err(tree.failed(path))?;
    if magic.get(..length).is_some_and(|magic| magic.starts_with(b"BZh")) {
        let message = "it is compressed with bzip2, which is not supported; unpack it first, \
                       or COPY it as it is";
        return Err(refused(path, message.to_owned()));
    }
    let open = || -> io::Result<Box<dyn Read>> {
        let mut file: File = file.try_clone()?;
        file.rewind()?;
        decompressed(file, &magic)
    };
    let probe = Reader::new(open().map_err(tree.failed(path))?).next_entry();
    match probe {
        Ok(Some(_)) => Ok(Some(open().map_err(tree.failed(path))?)),
        Ok(None) | Err(_) => Ok(None),
    }
}

fn read_up_to(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while let Some(rest) = buffer.get_mut(length..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}

fn decompressed(file: File, magic: &[u8]) -> io::Result<Box<dyn Read>> {
    let file = BufReader::new(file);
    Ok(match magic {
        [0x1f, 0x8b, ..] => Box::new(flate2::bufread::MultiGzDecoder::new(file)),
        [0xfd, b'7', b'z', b'X', b'Z', 0] => Box::new(liblzma::bufread::XzDecoder::new(file)),
        [0x28, 0xb5, 0x2f, 0xfd, ..] => Box::new(zstd::stream::read::Decoder::with_buffer(file)?),
        _ => Box::new(file),
    })
}
