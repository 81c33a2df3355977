//! From package files to a root filesystem.
//!
//! No maintainer script is run: what it would do depends on the machine, and it
//! would need one. The few things without which common programs do not work are
//! done here instead, each from what the packages themselves brought.

use std::collections::BTreeMap;
use std::fs::File;
use std::rc::Rc;

use super::PackagesError;
use super::accounts;
use super::cache::Cache;
use super::deb::{self, DebError};
use super::dpkg::{self, Installed};
use super::index::Package;
use super::recipe::{Architecture, PathAction, PathEntry, Recipe};
use super::tree::{Metadata, Overlap, Tree, TreeError};

const CERTIFICATES: &str = "etc/ssl/certs/ca-certificates.crt";

/// Why one package could not be unpacked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum UnpackError {
    /// Its file cannot be read.
    #[error(transparent)]
    Deb(#[from] DebError),
    /// Something in it cannot stand in the image.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It is not the package its index described.
    #[error(transparent)]
    Control(#[from] dpkg::ControlError),
}

/// The root filesystem a recipe comes to, and the time it may be dated by.
pub(crate) struct Assembled {
    pub(crate) tree: Tree,
    pub(crate) epoch: i64,
}

/// Puts the packages together with everything the recipe adds. They are unpacked in
/// the order of their names. Without an `epoch`, the image is as old as the newest
/// file of its packages.
pub(crate) fn assemble(
    recipe: &Recipe,
    packages: &BTreeMap<String, Rc<Package>>,
    cache: &Cache,
    architecture: Architecture,
    epoch: Option<i64>,
) -> Result<Assembled, PackagesError> {
    let aside = cache.unfinished().and_then(super::cache::Unfinished::into_nameless);
    let mut tree = Tree::new(aside.map_err(PackagesError::cache)?);
    let put = |source| PackagesError::Put { recipe: recipe.file.clone(), source };
    skeleton(&mut tree, architecture).map_err(put)?;
    let mut installed = Vec::new();
    for package in packages.values() {
        let file = cache.blob(&package.digest).map_err(PackagesError::cache)?;
        let missing = || PackagesError::cache(std::io::ErrorKind::NotFound.into());
        let file = file.ok_or_else(missing)?;
        let entered = unpack(&mut tree, package, packages, file)
            .map_err(|source| PackagesError::Unpack { package: package.name.clone(), source })?;
        installed.push(entered);
    }
    let epoch = epoch.unwrap_or_else(|| tree.newest());
    complete(&mut tree).map_err(put)?;
    dpkg::install(&mut tree, &installed).map_err(put)?;
    accounts::install(&mut tree, &recipe.accounts, epoch)
        .map_err(|source| PackagesError::Accounts { recipe: recipe.file.clone(), source })?;
    for path in &recipe.paths {
        apply(&mut tree, path).map_err(put)?;
    }
    Ok(Assembled { tree, epoch })
}

/// What every Debian system has before its first package: the directories programs
/// are found in joined below `/usr`, and places to mount and to write.
fn skeleton(tree: &mut Tree, architecture: Architecture) -> Result<(), TreeError> {
    let joined: &[&str] = match architecture {
        Architecture::Amd64 => &["bin", "lib", "lib64", "sbin"],
        Architecture::Arm64 => &["bin", "lib", "sbin"],
    };
    for name in joined {
        tree.put_directory(&format!("usr/{name}"), Metadata::of_root(0o755))?;
        tree.put_symlink(name, &format!("usr/{name}"))?;
    }
    for (path, mode) in [
        ("dev", 0o755),
        ("etc", 0o755),
        ("home", 0o755),
        ("proc", 0o555),
        ("root", 0o700),
        ("run", 0o755),
        ("run/lock", 0o1777),
        ("sys", 0o555),
        ("tmp", 0o1777),
        ("var", 0o755),
        ("var/log", 0o755),
        ("var/tmp", 0o1777),
    ] {
        tree.put_directory(path, Metadata::of_root(mode))?;
    }
    tree.put_symlink("var/run", "/run")?;
    tree.put_symlink("var/lock", "/run/lock")
}

fn unpack(
    tree: &mut Tree,
    package: &Package,
    packages: &BTreeMap<String, Rc<Package>>,
    file: File,
) -> Result<Installed, UnpackError> {
    let mut files = Vec::new();
    let control = deb::read::<UnpackError>(file, |entry, content| {
        files.push(dpkg::listed_path(&entry.path));
        tree.add(&package.name, entry, content, |first| {
            packages.get(first).map_or(Overlap::Replace, |first| overlap(first, package))
        })?;
        Ok(())
    })?;
    Ok(Installed::new(package, control, files, tree)?)
}

/// Which of two packages a file belongs to that both bring.
fn overlap(first: &Package, second: &Package) -> Overlap {
    let replaces = |one: &Package, other: &Package| one.replaces.iter().any(|r| other.satisfies(r));
    if replaces(second, first) {
        Overlap::Replace
    } else if replaces(first, second) {
        Overlap::Keep
    } else {
        Overlap::Refuse
    }
}

/// Does what no image works without and scripts would do: the order in which names
/// are looked up, and the certificate authorities in one file.
fn complete(tree: &mut Tree) -> Result<(), TreeError> {
    let plain = Metadata::of_root(0o644);
    if !tree.has("etc/nsswitch.conf")
        && let Some(bytes) = tree.read("usr/share/libc-bin/nsswitch.conf")?
    {
        tree.put_file("etc/nsswitch.conf", &bytes, plain)?;
    }
    let mut certificates = Vec::new();
    for file in tree.files_below("usr/share/ca-certificates") {
        if file.ends_with(".crt") {
            certificates.extend(tree.read(&file)?.unwrap_or_default());
        }
    }
    if !certificates.is_empty() && !tree.has(CERTIFICATES) {
        tree.put_file(CERTIFICATES, &certificates, plain)?;
    }
    for awk in ["mawk", "gawk"] {
        if tree.has(&format!("usr/bin/{awk}")) && !tree.has("usr/bin/awk") {
            tree.put_symlink("usr/bin/awk", awk)?;
        }
    }
    Ok(())
}

fn apply(tree: &mut Tree, entry: &PathEntry) -> Result<(), TreeError> {
    let PathEntry { path, action, uid, gid, mode, recursive } = entry;
    let owned = |default: u32| Metadata {
        mode: mode.unwrap_or(default),
        uid: u64::from(*uid),
        gid: u64::from(*gid),
        modified: None,
    };
    match action {
        PathAction::Directory => tree.put_directory(path, owned(0o755)),
        PathAction::EmptyFile => tree.put_file(path, b"", owned(0o644)),
        PathAction::Symlink(target) => tree.put_symlink(path, target),
        PathAction::HardLink(target) => tree.put_hard_link(path, target),
        PathAction::Permissions => tree.set_permissions(path, owned(0), mode.is_none(), *recursive),
    }
}
