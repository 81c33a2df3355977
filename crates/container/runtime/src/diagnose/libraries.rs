//! Which library a program's loader will not find.
//!
//! Looked for where the loader would, in any order: what matters is whether it is there.
//! Where a mount of the container may hold it, nothing is said.

use std::collections::{BTreeSet, VecDeque};
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use super::elf::Elf;
use super::format::Format;
use super::{Place, cache, walk};

/// As many objects of one program are looked into.
const MAX_OBJECTS: usize = 256;

const DEFAULT: [&str; 9] = [
    "/lib",
    "/usr/lib",
    "/lib64",
    "/usr/lib64",
    "/usr/local/lib",
    "/lib/x86_64-linux-gnu",
    "/usr/lib/x86_64-linux-gnu",
    "/lib/aarch64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
];

/// Names that musl's loader takes for itself.
const IN_MUSL: [&str; 7] =
    ["libc.", "libm.", "libpthread.", "librt.", "libdl.", "libutil.", "libxnet."];

/// One that was not found.
pub(crate) struct Missing {
    library: String,
    needed_by: PathBuf,
    searched: Vec<PathBuf>,
}

impl std::fmt::Display for Missing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { library, needed_by, searched } = self;
        write!(out, "{} needs the library {library}, which is in none of ", needed_by.display())?;
        let shown: Vec<_> = searched.iter().map(|path| path.display().to_string()).collect();
        write!(
            out,
            "{}; add it to the image, or name its directory in LD_LIBRARY_PATH",
            shown.join(", ")
        )
    }
}

/// An object whose libraries are still to be looked for.
struct Pending {
    path: PathBuf,
    elf: Elf,
    /// The paths of those that brought it in.
    inherited: Vec<PathBuf>,
}

/// Follows what `program` needs until something is not there.
pub(crate) fn missing(place: &Place<'_>, program: &Path, elf: Elf) -> Option<Missing> {
    let loader = elf.interpreter.clone()?;
    let search = Search::new(place, &loader, &elf);
    let mut seen = BTreeSet::new();
    let first = Pending { path: program.to_owned(), elf, inherited: Vec::new() };
    let mut pending = VecDeque::from([first]);
    while let Some(object) = pending.pop_front() {
        let own = search.own(&object);
        for library in &object.elf.needed {
            if seen.len() >= MAX_OBJECTS || !seen.insert(library.clone()) {
                continue;
            }
            match search.find(library, &own, &object.path) {
                Finding::Object(path, elf) => {
                    pending.push_back(Pending { path, elf: *elf, inherited: own.clone() });
                }
                Finding::Unknown => {}
                Finding::Nowhere(searched) => {
                    let library = String::from_utf8_lossy(library).into_owned();
                    return Some(Missing { library, needed_by: object.path, searched });
                }
            }
        }
    }
    None
}

enum Finding {
    Object(PathBuf, Box<Elf>),
    /// It is the loader's own, or may be where we cannot look.
    Unknown,
    Nowhere(Vec<PathBuf>),
}

struct Search<'a> {
    place: &'a Place<'a>,
    musl: bool,
    loader: Vec<u8>,
    wide: bool,
    machine: u16,
    cache: Vec<u8>,
    environment: Vec<PathBuf>,
}

impl<'a> Search<'a> {
    fn new(place: &'a Place<'a>, loader: &[u8], elf: &Elf) -> Self {
        let musl = loader.windows(7).any(|part| part == b"ld-musl");
        let limit = cache::MAX_CACHE;
        let cache =
            if musl { None } else { place.read_whole(Path::new("/etc/ld.so.cache"), limit) };
        let variable = place.variable("LD_LIBRARY_PATH").unwrap_or_default();
        Self {
            place,
            musl,
            loader: loader.to_vec(),
            wide: elf.wide,
            machine: elf.machine,
            cache: cache.unwrap_or_default(),
            environment: list(variable.as_bytes(), Path::new("/")),
        }
    }

    /// What the object and those before it say.
    fn own(&self, object: &Pending) -> Vec<PathBuf> {
        let origin = object.path.parent().unwrap_or(Path::new("/"));
        let said = [&object.elf.rpath, &object.elf.runpath];
        let said = said.into_iter().flatten().flat_map(|paths| list(paths, origin));
        said.chain(object.inherited.iter().cloned()).collect()
    }

    fn find(&self, library: &[u8], own: &[PathBuf], object: &Path) -> Finding {
        let name = Path::new(OsStr::from_bytes(library));
        let reserved = |prefix: &str| library.starts_with(prefix.as_bytes());
        if self.musl && IN_MUSL.iter().any(|prefix| reserved(prefix)) {
            return Finding::Unknown;
        }
        if Path::new(OsStr::from_bytes(&self.loader)).file_name() == name.file_name() {
            return Finding::Unknown; // It is loaded already.
        }
        if library.contains(&b'/') {
            let at = object.parent().unwrap_or(Path::new("/"));
            return self.look(&[name.to_owned()], Vec::from([at.to_owned()]));
        }
        let directories = self.directories(own);
        let candidates = directories.iter().flat_map(|directory| variants(directory, name));
        let cached = cache::lookup(&self.cache, library);
        let cached = cached.iter().map(|path| PathBuf::from(OsStr::from_bytes(path)));
        let candidates: Vec<PathBuf> = candidates.chain(cached).collect();
        self.look(&candidates, directories)
    }

    fn directories(&self, own: &[PathBuf]) -> Vec<PathBuf> {
        let usual = DEFAULT.iter().map(PathBuf::from);
        let usual = usual.filter(|path| self.place.root.handle(path).is_ok());
        let mut all: Vec<PathBuf> =
            own.iter().chain(&self.environment).cloned().chain(usual).collect();
        if self.musl {
            all.extend(self.musl_paths());
        }
        let mut seen = BTreeSet::new();
        all.retain(|path| seen.insert(path.clone()));
        all
    }

    /// What `/etc/ld-musl-ARCH.path` names, a directory a line or between colons.
    fn musl_paths(&self) -> Vec<PathBuf> {
        let loader = String::from_utf8_lossy(&self.loader).into_owned();
        let name = loader.rsplit('/').next().unwrap_or_default();
        let stem = name.split(".so").next().unwrap_or_default();
        let file = PathBuf::from(format!("/etc/{stem}.path"));
        let text = self.place.read_whole(&file, 64 << 10).unwrap_or_default();
        let parts = text.split(|byte| matches!(byte, b':' | b'\n'));
        let parts = parts.filter(|part| !part.is_empty());
        parts.map(|part| PathBuf::from(OsStr::from_bytes(part))).collect()
    }

    fn look(&self, candidates: &[PathBuf], searched: Vec<PathBuf>) -> Finding {
        for candidate in candidates {
            if self.place.is_covered(candidate) {
                return Finding::Unknown;
            }
            if let Some(Format::Elf(elf)) = self.place.format(candidate)
                && (elf.wide, elf.machine) == (self.wide, self.machine)
            {
                return Finding::Object(candidate.clone(), Box::new(elf));
            }
            // One that is there and cannot be read is not missing.
            if matches!(
                walk::walk(&self.place.root, self.place.cwd, candidate),
                Err(walk::Stop::Closed { .. })
            ) {
                return Finding::Unknown;
            }
        }
        Finding::Nowhere(searched)
    }
}

/// A library may be there in versions for newer processors alone.
fn variants(directory: &Path, name: &Path) -> Vec<PathBuf> {
    let newer = ["x86-64-v2", "x86-64-v3", "x86-64-v4"];
    let newer = newer.iter().map(|level| directory.join("glibc-hwcaps").join(level).join(name));
    [directory.join(name)].into_iter().chain(newer).collect()
}

/// Directories between colons, with what stands for the object's own filled in.
fn list(paths: &[u8], origin: &Path) -> Vec<PathBuf> {
    let text = String::from_utf8_lossy(paths).into_owned();
    let parts = text.split([':', ';']).filter(|part| !part.is_empty());
    let mut found = Vec::new();
    for part in parts {
        let origin = origin.to_string_lossy();
        let part = part.replace("${ORIGIN}", &origin).replace("$ORIGIN", &origin);
        let machine = std::env::consts::ARCH;
        let part = part.replace("${PLATFORM}", machine).replace("$PLATFORM", machine);
        if part.contains("$LIB") || part.contains("${LIB}") {
            let multiarch = format!("lib/{machine}-linux-gnu");
            for library in ["lib", "lib64", multiarch.as_str()] {
                found.push(part.replace("${LIB}", library).replace("$LIB", library).into());
            }
        } else {
            found.push(part.into());
        }
    }
    found
}
