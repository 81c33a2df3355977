//! The root filesystem while it is put together: names in memory, content in a
//! nameless file.
//!
//! Nothing is unpacked onto the machine. A path is followed through the symbolic
//! links of this tree only, so no package can reach outside it, whatever its links
//! say; and no privilege is needed to give files away to other users.

use std::collections::{BTreeMap, VecDeque};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom, Write};
use std::os::unix::fs::FileExt as _;

use carrack_oci::archive::{ArchiveError, Entry, Kind, Writer};

const MAXIMUM_LINKS: usize = 40;
const SYMLINK_MODE: u32 = 0o777;

/// A root filesystem.
#[derive(Debug)]
pub(crate) struct Tree {
    names: BTreeMap<Vec<u8>, usize>,
    nodes: Vec<Node>,
    content: File,
    end: u64,
}

#[derive(Clone, Debug)]
struct Node {
    what: What,
    metadata: Metadata,
    attributes: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The package that brought it, or nothing when we did.
    owner: String,
}

/// Whose a file is and what may be done with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Metadata {
    pub(crate) mode: u32,
    pub(crate) uid: u64,
    pub(crate) gid: u64,
    /// Nothing for what we made: it gets the image's own time.
    pub(crate) modified: Option<i64>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum What {
    Directory,
    File { offset: u64, size: u64 },
    Symlink(Vec<u8>),
}

/// What becomes of a file that two packages bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Overlap {
    /// The second takes the first one's place.
    Replace,
    /// The first stays.
    Keep,
    /// The packages do not go together.
    Refuse,
}

/// Why something cannot stand in the tree.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TreeError {
    /// The path is no path inside.
    #[error("`{path}` {problem}")]
    Path {
        /// The path.
        path: String,
        /// What is wrong with it.
        problem: &'static str,
    },
    /// Two packages bring it.
    #[error("`{path}` is in `{first}` and in `{second}`, and neither replaces the other")]
    Occupied {
        /// The path.
        path: String,
        /// Who brought it first.
        first: String,
        /// Who brings it again.
        second: String,
    },
    /// It is a device, a pipe or the like.
    #[error("`{path}` is {what}, which no package may bring")]
    Unsupported {
        /// The path.
        path: String,
        /// What it is.
        what: &'static str,
    },
    /// The content could not be kept or read back.
    #[error("keeping content aside")]
    Content(#[from] io::Error),
}

impl Metadata {
    /// Root's, with a mode, at the image's own time.
    pub(crate) const fn of_root(mode: u32) -> Self {
        Self { mode, uid: 0, gid: 0, modified: None }
    }
}

impl Tree {
    /// An empty tree that keeps content in `content`, a file nobody else uses.
    pub(crate) fn new(content: File) -> Self {
        let root = Node::new(What::Directory, Metadata::of_root(0o755), "");
        Self { names: BTreeMap::from([(Vec::new(), 0)]), nodes: vec![root], content, end: 0 }
    }

    /// Adds what an archive of `package` holds. Where a file is there already,
    /// `overlap` decides, given the package that brought it.
    ///
    /// # Errors
    ///
    /// [`TreeError`] when it may not stand there.
    pub(crate) fn add(
        &mut self,
        package: &str,
        entry: &Entry,
        content: &mut dyn Read,
        overlap: impl Fn(&str) -> Overlap,
    ) -> Result<(), TreeError> {
        let path = &entry.path;
        let metadata = Metadata {
            mode: entry.mode & 0o7777,
            uid: entry.uid,
            gid: entry.gid,
            modified: Some(entry.modified),
        };
        let what = match &entry.kind {
            Kind::Directory => return self.add_directory(package, path, metadata),
            Kind::HardLink(target) => return self.add_hard_link(path, target),
            Kind::File => None,
            Kind::Symlink(target) => Some(What::Symlink(target.clone())),
            Kind::Character(_) | Kind::Block(_) => return Err(unsupported(path, "a device")),
            Kind::Fifo => return Err(unsupported(path, "a named pipe")),
        };
        let place = self.place(path)?;
        if let Some(there) = self.node(&place) {
            if there.what == What::Directory {
                return Err(bad_path(path, "is a directory and something else"));
            }
            let same = what.as_ref() == Some(&there.what);
            match overlap(&there.owner) {
                Overlap::Replace => {}
                Overlap::Keep => return Ok(()),
                Overlap::Refuse if same => return Ok(()),
                Overlap::Refuse => {
                    return Err(TreeError::Occupied {
                        path: shown(path),
                        first: there.owner.clone(),
                        second: package.to_owned(),
                    });
                }
            }
        }
        let what = match what {
            Some(what) => what,
            None => self.keep(content)?,
        };
        let mut node = Node::new(what, metadata, package);
        node.attributes.clone_from(&entry.attributes);
        self.insert(place, node);
        Ok(())
    }

    /// Puts a file of our own, in place of what was there.
    pub(crate) fn put_file(
        &mut self,
        path: &str,
        bytes: &[u8],
        metadata: Metadata,
    ) -> Result<(), TreeError> {
        let what = self.keep(&mut &*bytes)?;
        let place = self.place(path.as_bytes())?;
        self.insert(place, Node::new(what, metadata, ""));
        Ok(())
    }

    /// Puts a symbolic link of our own, in place of what was there.
    pub(crate) fn put_symlink(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        let what = What::Symlink(target.as_bytes().to_vec());
        let place = self.place(path.as_bytes())?;
        self.insert(place, Node::new(what, Metadata::of_root(SYMLINK_MODE), ""));
        Ok(())
    }

    /// Makes a directory, with those above it, or sets what an existing one is.
    pub(crate) fn put_directory(
        &mut self,
        path: &str,
        metadata: Metadata,
    ) -> Result<(), TreeError> {
        let place = self.resolve(path.as_bytes(), true)?;
        self.make_directories(&place, path.as_bytes())?;
        if let Some(node) = self.node_mut(&place) {
            node.metadata = metadata;
        }
        Ok(())
    }

    /// Gives what is at `target` another name.
    pub(crate) fn put_hard_link(&mut self, path: &str, target: &str) -> Result<(), TreeError> {
        self.add_hard_link(path.as_bytes(), target.as_bytes())
    }

    /// Sets owner and mode of what is at `path`, and with `recursive` of all below.
    pub(crate) fn set_permissions(
        &mut self,
        path: &str,
        metadata: Metadata,
        keep_mode: bool,
        recursive: bool,
    ) -> Result<(), TreeError> {
        let place = self.resolve(path.as_bytes(), true)?;
        if !self.names.contains_key(&place) {
            return Err(bad_path(path.as_bytes(), "is not in the image"));
        }
        let mut below = place.clone();
        below.push(b'/');
        let chosen: Vec<usize> = self
            .names
            .iter()
            .filter(|(name, _)| **name == place || (recursive && name.starts_with(&below)))
            .map(|(_, node)| *node)
            .collect();
        for index in chosen {
            let Some(node) = self.nodes.get_mut(index) else { continue };
            let mode = if keep_mode || matches!(node.what, What::Symlink(_)) {
                node.metadata.mode
            } else {
                metadata.mode
            };
            node.metadata = Metadata { mode, ..metadata };
        }
        Ok(())
    }

    /// Whether something is at a path, following links.
    pub(crate) fn has(&self, path: &str) -> bool {
        self.resolve(path.as_bytes(), true).is_ok_and(|place| self.names.contains_key(&place))
    }

    /// The content of a file, following links; nothing when there is none.
    pub(crate) fn read(&self, path: &str) -> Result<Option<Vec<u8>>, TreeError> {
        let place = self.resolve(path.as_bytes(), true)?;
        let Some(What::File { offset, size }) = self.node(&place).map(|node| &node.what) else {
            return Ok(None);
        };
        let mut bytes = Vec::new();
        self.content_at(*offset, *size).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    /// The paths of the files below a directory that has no links on its way.
    pub(crate) fn files_below(&self, directory: &str) -> Vec<String> {
        let prefix = format!("{directory}/");
        self.names
            .iter()
            .filter(|(_, node)| {
                self.nodes.get(**node).is_some_and(|n| matches!(n.what, What::File { .. }))
            })
            .filter_map(|(name, _)| std::str::from_utf8(name).ok())
            .filter(|name| name.starts_with(&prefix))
            .map(str::to_owned)
            .collect()
    }

    /// The newest change of anything that a package brought.
    pub(crate) fn newest(&self) -> i64 {
        self.nodes.iter().filter_map(|node| node.metadata.modified).max().unwrap_or(0)
    }

    /// Writes the tree as a tar archive: names in order, no time after `epoch`.
    pub(crate) fn write<W: Write>(&self, writer: W, epoch: i64) -> Result<W, ArchiveError> {
        let mut archive = Writer::new(writer);
        let mut written: BTreeMap<usize, &[u8]> = BTreeMap::new();
        for (name, index) in self.names.iter().filter(|(name, _)| !name.is_empty()) {
            let Some(node) = self.nodes.get(*index) else { continue };
            let mut entry = node.entry(name, epoch);
            match (&node.what, written.get(index)) {
                (What::File { .. }, Some(first)) => {
                    entry.kind = Kind::HardLink(first.to_vec());
                    entry.size = 0;
                    archive.append_empty(&entry)?;
                }
                (What::File { offset, size }, None) => {
                    archive.append(&entry, self.content_at(*offset, *size))?;
                }
                _ => archive.append_empty(&entry)?,
            }
            written.insert(*index, name);
        }
        archive.finish()
    }

    fn add_directory(
        &mut self,
        package: &str,
        path: &[u8],
        metadata: Metadata,
    ) -> Result<(), TreeError> {
        let place = self.resolve(path, true)?;
        let is_new = !self.names.contains_key(&place);
        self.make_directories(&place, path)?;
        let node = self.node_mut(&place).filter(|node| is_new || node.owner.is_empty());
        if let Some(node) = node {
            // What we made before any package came is a default; the package knows better.
            node.metadata = metadata;
            package.clone_into(&mut node.owner);
        }
        Ok(())
    }

    fn add_hard_link(&mut self, path: &[u8], target: &[u8]) -> Result<(), TreeError> {
        let target = self.place(target)?;
        let Some(index) = self.names.get(&target).copied() else {
            return Err(bad_path(path, "is a hard link to something that is not there"));
        };
        if !self.nodes.get(index).is_some_and(|node| matches!(node.what, What::File { .. })) {
            return Err(bad_path(path, "is a hard link to something other than a file"));
        }
        let place = self.place(path)?;
        self.names.insert(place, index);
        Ok(())
    }

    /// Where a file of this path stands: the links above it followed, the directories
    /// above it made.
    fn place(&mut self, path: &[u8]) -> Result<Vec<u8>, TreeError> {
        let place = self.resolve(path, false)?;
        if place.is_empty() {
            return Err(bad_path(path, "is the root itself"));
        }
        if let Some(slash) = place.iter().rposition(|byte| *byte == b'/') {
            let parent = place.get(..slash).unwrap_or_default().to_vec();
            self.make_directories(&parent, path)?;
        }
        Ok(place)
    }

    /// Makes `place` and the directories above it, where they are not there.
    fn make_directories(&mut self, place: &[u8], path: &[u8]) -> Result<(), TreeError> {
        let ends =
            (0..=place.len()).filter(|end| *end == place.len() || place.get(*end) == Some(&b'/'));
        for end in ends.filter(|end| *end > 0) {
            let name = place.get(..end).unwrap_or_default();
            match self.node(name).map(|node| &node.what) {
                Some(What::Directory) => {}
                Some(_) => return Err(bad_path(path, "has a file above it or in its place")),
                None => {
                    let node = Node::new(What::Directory, Metadata::of_root(0o755), "");
                    self.insert(name.to_vec(), node);
                }
            }
        }
        Ok(())
    }

    /// Follows the links of a path, the last only when asked. What is not there is
    /// taken for a directory to come.
    fn resolve(&self, path: &[u8], follow_last: bool) -> Result<Vec<u8>, TreeError> {
        let mut open: VecDeque<&[u8]> = checked(path)?.into();
        let mut place: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(segment) = open.pop_front() {
            match segment {
                b"" | b"." => continue,
                b".." => {
                    let end = place.iter().rposition(|byte| *byte == b'/').unwrap_or(0);
                    place.truncate(end);
                    continue;
                }
                _ => {}
            }
            let above = place.len();
            if above > 0 {
                place.push(b'/');
            }
            place.extend_from_slice(segment);
            if open.is_empty() && !follow_last {
                break;
            }
            let Some(What::Symlink(target)) = self.node(&place).map(|node| &node.what) else {
                continue;
            };
            links += 1;
            if links > MAXIMUM_LINKS {
                return Err(bad_path(path, "goes through too many symbolic links"));
            }
            place.truncate(if target.starts_with(b"/") { 0 } else { above });
            for segment in target.split(|byte| *byte == b'/').rev() {
                open.push_front(segment);
            }
        }
        Ok(place)
    }

    fn node(&self, place: &[u8]) -> Option<&Node> {
        self.nodes.get(*self.names.get(place)?)
    }

    fn node_mut(&mut self, place: &[u8]) -> Option<&mut Node> {
        self.nodes.get_mut(*self.names.get(place)?)
    }

    fn insert(&mut self, place: Vec<u8>, node: Node) {
        self.names.insert(place, self.nodes.len());
        self.nodes.push(node);
    }

    fn keep(&mut self, content: &mut dyn Read) -> Result<What, TreeError> {
        self.content.seek(SeekFrom::Start(self.end))?;
        let size = io::copy(content, &mut self.content)?;
        let offset = self.end;
        self.end += size;
        Ok(What::File { offset, size })
    }

    fn content_at(&self, offset: u64, size: u64) -> impl Read + '_ {
        At { file: &self.content, offset }.take(size)
    }
}

impl Node {
    fn new(what: What, metadata: Metadata, owner: &str) -> Self {
        Self { what, metadata, attributes: BTreeMap::new(), owner: owner.to_owned() }
    }

    fn entry(&self, name: &[u8], epoch: i64) -> Entry {
        let (kind, size) = match &self.what {
            What::Directory => (Kind::Directory, 0),
            What::File { size, .. } => (Kind::File, *size),
            What::Symlink(target) => (Kind::Symlink(target.clone()), 0),
        };
        Entry {
            path: name.to_vec(),
            kind,
            mode: self.metadata.mode,
            uid: self.metadata.uid,
            gid: self.metadata.gid,
            size,
            modified: self.metadata.modified.unwrap_or(epoch).min(epoch),
            attributes: self.attributes.clone(),
        }
    }
}

/// Reads a file from a place in it, whatever else reads the file.
struct At<'a> {
    file: &'a File,
    offset: u64,
}

impl Read for At<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.file.read_at(buffer, self.offset)?;
        self.offset += u64::try_from(count).unwrap_or(0);
        Ok(count)
    }
}

/// The segments of a path as a package or a recipe may write it.
fn checked(path: &[u8]) -> Result<Vec<&[u8]>, TreeError> {
    if path.contains(&0) {
        return Err(bad_path(path, "has a NUL in it"));
    }
    let segments: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
    if segments.contains(&b"..".as_slice()) {
        return Err(bad_path(path, "leads out of the image"));
    }
    Ok(segments.into_iter().filter(|segment| !segment.is_empty()).collect())
}

fn bad_path(path: &[u8], problem: &'static str) -> TreeError {
    TreeError::Path { path: shown(path), problem }
}

fn unsupported(path: &[u8], what: &'static str) -> TreeError {
    TreeError::Unsupported { path: shown(path), what }
}

fn shown(path: &[u8]) -> String {
    String::from_utf8_lossy(path).escape_debug().to_string()
}

#[cfg(test)]
mod tests;
