//! What the sources of a `COPY` name, as they are now.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use carrack_oci::{Digest, Hasher};
use rustix::fs::{FileType, Stat};

use super::FilesError;
use super::tree::{Tree, cleaned};
use crate::frontend::dockerfile::Glob;

/// What one source, or one match of a wildcard, brings in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Pick {
    /// The last part of its path.
    pub(crate) name: OsString,
    /// Whether it is a directory, of which only the content is brought in.
    pub(crate) is_directory: bool,
    /// Itself, or what is in it; a directory stands before its content.
    pub(crate) nodes: Vec<Node>,
}

/// A file, directory or link to bring in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Node {
    /// Its path in the tree it is taken from.
    pub(crate) path: PathBuf,
    /// Its path below the picked directory; empty for a picked file.
    pub(crate) below: PathBuf,
    pub(crate) kind: Kind,
    pub(crate) mode: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) modified: i64,
    pub(crate) capability: Option<Vec<u8>>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Directory,
    File { size: u64, digest: Digest },
    Link { target: OsString },
}

impl Tree {
    /// Everything that `sources` name. A source without wildcards that is not there is an error,
    /// and so are wildcards that match nothing at all.
    pub(crate) fn pick(&self, sources: &[String]) -> Result<Vec<Pick>, FilesError> {
        let mut picks = Vec::new();
        for source in sources {
            let matches = self.matches(source)?;
            for path in matches {
                picks.push(self.pick_one(&path, source)?);
            }
        }
        Ok(picks)
    }

    /// The paths a source stands for.
    fn matches(&self, source: &str) -> Result<Vec<PathBuf>, FilesError> {
        let clean = cleaned(source);
        if !Glob::is_pattern(source) || self.visible(&clean)?.is_some() {
            return Ok(vec![clean]);
        }
        let mut found = vec![PathBuf::new()];
        for part in clean.iter() {
            let mut next = Vec::new();
            for directory in found {
                self.extend_matches(&directory, &part.to_string_lossy(), source, &mut next)?;
            }
            found = next;
        }
        if found.is_empty() {
            return Err(self.missing(source));
        }
        Ok(found)
    }

    fn extend_matches(
        &self,
        directory: &Path,
        part: &str,
        source: &str,
        found: &mut Vec<PathBuf>,
    ) -> Result<(), FilesError> {
        let is_directory = |stat: Stat| file_type(&stat) == FileType::Directory;
        if !self.stat(directory, true)?.is_some_and(is_directory) {
            return Ok(());
        }
        let glob = Glob::shallow(part).ok_or_else(|| FilesError::Pattern(source.to_owned()))?;
        for name in self.names(directory)? {
            let path = directory.join(&name);
            if glob.matches(&name.to_string_lossy()) && self.visible(&path)?.is_some() {
                found.push(path);
            }
        }
        Ok(())
    }

    /// What is at `path`, links followed, unless it is ignored. A directory that is
    /// ignored is still there when something in it is not.
    fn visible(&self, path: &Path) -> Result<Option<Stat>, FilesError> {
        let Some(stat) = self.stat(path, true)? else { return Ok(None) };
        if !self.ignores(path) {
            return Ok(Some(stat));
        }
        let kept = file_type(&stat) == FileType::Directory
            && self.ignore.may_bring_back_below(&path.to_string_lossy());
        Ok(kept.then_some(stat))
    }

    fn ignores(&self, path: &Path) -> bool {
        !path.as_os_str().is_empty() && self.ignore.ignores(&path.to_string_lossy())
    }

    fn missing(&self, source: &str) -> FilesError {
        let there = self.stat(&cleaned(source), true).is_ok_and(|stat| stat.is_some());
        let hint = if there { ": .dockerignore leaves it out" } else { "" };
        FilesError::Missing { path: source.to_owned(), tree: self.name.clone(), hint }
    }

    fn pick_one(&self, path: &Path, source: &str) -> Result<Pick, FilesError> {
        let stat = self.visible(path)?.ok_or_else(|| self.missing(source))?;
        let is_directory = file_type(&stat) == FileType::Directory;
        let mut nodes = Vec::new();
        if is_directory {
            self.walk(path, Path::new(""), &mut nodes)?;
        } else {
            nodes.extend(self.node(path, PathBuf::new(), &stat)?);
        }
        let name = path.file_name().unwrap_or_default().to_owned();
        Ok(Pick { name, is_directory, nodes })
    }

    fn walk(&self, path: &Path, below: &Path, nodes: &mut Vec<Node>) -> Result<(), FilesError> {
        for name in self.names(path)? {
            let (path, below) = (path.join(&name), below.join(&name));
            let Some(stat) = self.stat(&path, false)? else { continue };
            let is_directory = file_type(&stat) == FileType::Directory;
            let ignored = self.ignores(&path);
            if ignored
                && !(is_directory && self.ignore.may_bring_back_below(&path.to_string_lossy()))
            {
                continue;
            }
            let before = nodes.len();
            nodes.extend(self.node(&path, below.clone(), &stat)?);
            if is_directory {
                self.walk(&path, &below, nodes)?;
            }
            // An ignored directory is there only for what came back in it.
            if ignored && nodes.len() == before + 1 {
                nodes.truncate(before);
            }
        }
        Ok(())
    }

    fn node(&self, path: &Path, below: PathBuf, stat: &Stat) -> Result<Option<Node>, FilesError> {
        let kind = match file_type(stat) {
            FileType::Directory => Kind::Directory,
            FileType::RegularFile => {
                let (size, digest) = self.digest(path)?;
                Kind::File { size, digest }
            }
            FileType::Symlink => Kind::Link { target: self.link_target(path)? },
            _ => {
                let (path, tree) = (path.to_owned(), self.name.clone());
                return Err(FilesError::Special { path, tree });
            }
        };
        let capability = match kind {
            Kind::File { .. } => self.capability(path),
            _ => None,
        };
        let (uid, gid, modified) =
            if self.is_image { (stat.st_uid, stat.st_gid, stat.st_mtime) } else { (0, 0, 0) };
        let (path, mode) = (path.to_owned(), stat.st_mode & 0o7777);
        Ok(Some(Node { path, below, kind, mode, uid, gid, modified, capability }))
    }
}

fn file_type(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

/// The digest of everything about these picks that decides what is brought in.
pub(crate) fn digest(picks: &[Pick]) -> Digest {
    let mut hasher = Hasher::default();
    let mut add = |bytes: &[u8]| {
        hasher.update(&u64::try_from(bytes.len()).unwrap_or(u64::MAX).to_le_bytes());
        hasher.update(bytes);
    };
    for pick in picks {
        add(b"pick");
        add(pick.name.as_bytes());
        add(&[u8::from(pick.is_directory)]);
        for node in &pick.nodes {
            add(node.below.as_os_str().as_bytes());
            add(&node.mode.to_le_bytes());
            add(&node.uid.to_le_bytes());
            add(&node.gid.to_le_bytes());
            add(&node.modified.to_le_bytes());
            add(node.capability.as_deref().unwrap_or_default());
            match &node.kind {
                Kind::Directory => add(b"directory"),
                Kind::File { digest, .. } => add(digest.to_string().as_bytes()),
                Kind::Link { target } => {
                    add(b"link");
                    add(target.as_bytes());
                }
            }
        }
    }
    hasher.finish()
}
