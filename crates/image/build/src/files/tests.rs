use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use carrack_linux::rooted::RootedDir;
use carrack_oci::archive;

use super::*;

/// A context and an image root, thrown away afterwards.
struct Scene {
    directory: tempfile::TempDir,
}

impl Scene {
    fn new(files: &[(&str, &str)]) -> Self {
        let scene = Self { directory: tempfile::tempdir().expect("a directory") };
        fs::create_dir(scene.context()).expect("a context");
        fs::create_dir(scene.image()).expect("an image");
        for (path, content) in files {
            scene.write(&scene.context().join(path), content);
        }
        scene
    }

    fn write(&self, path: &Path, content: &str) {
        fs::create_dir_all(path.parent().expect("a parent")).expect("directories");
        fs::write(path, content).expect("a file");
    }

    fn context(&self) -> PathBuf {
        self.directory.path().join("context")
    }

    fn image(&self) -> PathBuf {
        self.directory.path().join("image")
    }

    fn tree(&self) -> Tree {
        Tree::context(&self.context(), None, "the build context").expect("a context")
    }

    fn copy_with(
        &self,
        sources: &[&str],
        placement: &Placement,
        unpack: bool,
    ) -> Result<(), FilesError> {
        let tree = self.tree();
        let sources: Vec<_> = sources.iter().map(|source| (*source).to_owned()).collect();
        let picks = tree.pick(&sources)?;
        let root = RootedDir::open(&self.image()).expect("an image");
        let writer = Writer { root: &root, placement };
        if unpack { writer.unpack(&picks, &tree) } else { writer.place(&picks, &tree) }
    }

    fn copy(&self, sources: &[&str], destination: &str) -> Result<(), FilesError> {
        self.copy_with(sources, &to(destination), false)
    }

    /// The paths in the image, sorted; directories end with a slash.
    fn list(&self) -> Vec<String> {
        fn walk(directory: &Path, root: &Path, found: &mut Vec<String>) {
            for entry in fs::read_dir(directory).expect("a directory") {
                let entry = entry.expect("an entry");
                let path = entry.path();
                let name = path.strip_prefix(root).expect("below").to_string_lossy().into_owned();
                if entry.file_type().expect("a type").is_dir() {
                    found.push(format!("{name}/"));
                    walk(&path, root, found);
                } else {
                    found.push(name);
                }
            }
        }
        let mut found = Vec::new();
        walk(&self.image(), &self.image(), &mut found);
        found.sort();
        found
    }
}

fn to(destination: &str) -> Placement {
    Placement { destination: destination.to_owned(), owner: None, mode: None, epoch: 1000 }
}

#[test]
fn a_file_goes_into_a_directory_or_takes_the_destinations_name() {
    let scene = Scene::new(&[("a", "1"), ("d/b", "2")]);
    scene.copy(&["a"], "/x").expect("copies");
    scene.copy(&["a"], "/dir/").expect("copies");
    scene.copy(&["d/b"], "/dir").expect("copies");
    assert_eq!(scene.list(), ["dir/", "dir/a", "dir/b", "x"]);
}

#[test]
fn a_directory_brings_its_content_and_not_itself() {
    let scene = Scene::new(&[("d/b", "2"), ("d/sub/c", "3")]);
    scene.copy(&["d"], "/to").expect("copies");
    scene.copy(&["d"], "/").expect("copies");
    assert_eq!(scene.list(), ["b", "sub/", "sub/c", "to/", "to/b", "to/sub/", "to/sub/c"]);
}

#[test]
fn what_is_brought_in_belongs_to_root_and_has_the_epochs_time() {
    let scene = Scene::new(&[("run.sh", "#!")]);
    let mode = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(scene.context().join("run.sh"), mode).expect("a mode");
    std::os::unix::fs::chown(scene.context().join("run.sh"), Some(7), Some(8)).expect("root");
    scene.copy(&["run.sh"], "/a/").expect("copies");
    let found = fs::metadata(scene.image().join("a/run.sh")).expect("a file");
    assert_eq!((found.uid(), found.gid(), found.mtime()), (0, 0, 1000));
    assert_eq!(found.mode() & 0o7777, 0o755, "a change of owner took set-user-id away");
}

#[test]
fn chown_and_chmod_apply_to_all_of_it() {
    let scene = Scene::new(&[("d/sub/c", "3")]);
    let placement = Placement { owner: Some((5, 6)), mode: Some(0o2750), ..to("/new/") };
    scene.copy_with(&["d"], &placement, false).expect("copies");
    for (path, mode) in [("new", 0o755), ("new/sub", 0o2750), ("new/sub/c", 0o2750)] {
        let found = fs::metadata(scene.image().join(path)).expect("is there");
        assert_eq!((found.uid(), found.gid()), (5, 6), "{path}");
        assert_eq!(found.mode() & 0o7777, mode, "{path}");
    }
}

#[test]
fn wildcards_match_and_what_matches_nothing_is_named() {
    let scene = Scene::new(&[("a.txt", ""), ("b.txt", ""), ("c/x/f", ""), ("d/x/g", "")]);
    scene.copy(&["*.txt"], "/t/").expect("copies");
    scene.copy(&["[cd]/x"], "/u/").expect("copies");
    assert_eq!(scene.list(), ["t/", "t/a.txt", "t/b.txt", "u/", "u/f", "u/g"]);
    let error = scene.copy(&["*.md"], "/").expect_err("matches nothing");
    assert_eq!(error.to_string(), "there is no `*.md` in the build context");
    let error = scene.copy(&["gone"], "/").expect_err("is not there");
    assert_eq!(error.to_string(), "there is no `gone` in the build context");
}

#[test]
fn ignored_files_are_not_there() {
    let scene = Scene::new(&[
        (".dockerignore", "*.log\nout\n!out/keep\nsecret"),
        ("a.log", ""),
        ("b", ""),
        ("out/drop", ""),
        ("out/keep", ""),
        ("deep/secret", ""),
        ("secret", ""),
    ]);
    scene.copy(&["."], "/").expect("copies");
    assert_eq!(scene.list(), [".dockerignore", "b", "deep/", "deep/secret", "out/", "out/keep"]);
    let error = scene.copy(&["secret"], "/").expect_err("is ignored");
    assert!(error.to_string().ends_with(": .dockerignore leaves it out"), "{error}");
}

#[test]
fn links_are_kept_and_lead_nowhere_outside() {
    let scene = Scene::new(&[("d/f", "inside")]);
    let outside = scene.directory.path().join("outside");
    fs::write(&outside, "host").expect("a file");
    symlink(&outside, scene.context().join("d/away")).expect("a link");
    symlink("../../outside", scene.context().join("up")).expect("a link");
    scene.copy(&["d"], "/").expect("copies");
    assert_eq!(fs::read_link(scene.image().join("away")).expect("a link"), outside);
    scene.copy(&["up"], "/x").expect_err("the link's target is not in the context");
}

#[test]
fn a_link_in_the_image_cannot_lead_a_copy_out_of_it() {
    let scene = Scene::new(&[("f", "new")]);
    let outside = scene.directory.path().join("outside");
    fs::create_dir(&outside).expect("a directory");
    fs::write(outside.join("f"), "host").expect("a file");
    symlink(&outside, scene.image().join("link")).expect("a link");
    symlink(outside.join("f"), scene.image().join("file")).expect("a link");
    scene.copy(&["f"], "/link/").expect("goes below the image's root");
    scene.copy(&["f"], "/file").expect("replaces the link");
    assert_eq!(fs::read_to_string(outside.join("f")).expect("a file"), "host");
    let below = scene.image().join(outside.strip_prefix("/").expect("absolute")).join("f");
    assert_eq!(fs::read_to_string(below).expect("a file"), "new");
}

#[test]
fn a_file_cannot_replace_a_directory_nor_the_other_way() {
    let scene = Scene::new(&[("f", ""), ("d/g/h", "")]);
    fs::create_dir_all(scene.image().join("to/f")).expect("directories");
    fs::write(scene.image().join("g"), "").expect("a file");
    let error = scene.copy(&["f"], "/to/").expect_err("a directory is there");
    assert!(matches!(error, FilesError::InTheWay { .. }), "{error}");
    let error = scene.copy(&["d"], "/").expect_err("a file is there");
    assert!(matches!(error, FilesError::InTheWay { .. }), "{error}");
}

#[test]
fn a_pipe_in_the_context_is_refused() {
    let scene = Scene::new(&[("d/f", "")]);
    let mode = rustix::fs::Mode::from_raw_mode(0o600);
    rustix::fs::mkfifoat(rustix::fs::CWD, scene.context().join("d/pipe"), mode).expect("a pipe");
    let error = scene.copy(&["d"], "/").expect_err("a pipe");
    assert!(matches!(error, FilesError::Special { .. }), "{error}");
}

#[test]
fn a_file_that_changes_between_picking_and_copying_stops_the_copy() {
    let scene = Scene::new(&[("f", "before")]);
    let tree = scene.tree();
    let picks = tree.pick(&["f".to_owned()]).expect("picks");
    fs::write(scene.context().join("f"), "after!").expect("a change");
    let root = RootedDir::open(&scene.image()).expect("an image");
    let placement = to("/f");
    let error = Writer { root: &root, placement: &placement }.place(&picks, &tree);
    assert!(matches!(error, Err(FilesError::Changed(_))), "{error:?}");
}

#[test]
fn the_digest_sees_every_input_and_nothing_else() {
    let scene = Scene::new(&[("d/a", "1"), ("d/b", "2")]);
    let digest = || pick::digest(&scene.tree().pick(&["d".to_owned()]).expect("picks"));
    let first = digest();
    let touch = fs::File::options().write(true).open(scene.context().join("d/a")).expect("a file");
    touch.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("a time");
    assert_eq!(digest(), first, "the time of a context's file means nothing");
    let path = scene.context().join("d/a");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
    let with_mode = digest();
    assert_ne!(with_mode, first);
    fs::write(&path, "3").expect("a change");
    let with_content = digest();
    assert_ne!(with_content, with_mode);
    fs::rename(&path, scene.context().join("d/c")).expect("a new name");
    assert_ne!(digest(), with_content);
}

fn tar(entries: &[(&str, archive::Kind, &str)]) -> Vec<u8> {
    let mut writer = archive::Writer::new(Vec::new());
    for (path, kind, content) in entries {
        let size = u64::try_from(content.len()).expect("small");
        let entry = archive::Entry {
            uid: 3,
            size,
            modified: 5000,
            ..archive::Entry::new(*path, kind.clone(), 0o640)
        };
        writer.append(&entry, content.as_bytes()).expect("writes");
    }
    writer.finish().expect("finishes")
}

#[test]
fn an_archive_is_unpacked_and_other_files_are_copied() {
    use archive::Kind;
    let scene = Scene::new(&[("plain", "text")]);
    let bytes = tar(&[
        ("dir/", Kind::Directory, ""),
        ("dir/f", Kind::File, "hello"),
        ("dir/h", Kind::HardLink(b"dir/f".to_vec()), ""),
        ("dir/l", Kind::Symlink(b"f".to_vec()), ""),
    ]);
    fs::write(scene.context().join("a.tar"), &bytes).expect("a file");
    let zipped = zstd::encode_all(bytes.as_slice(), 1).expect("compresses");
    fs::write(scene.context().join("a.tar.zst"), zipped).expect("a file");
    scene.copy_with(&["a.tar", "plain"], &to("/x/"), true).expect("adds");
    scene.copy_with(&["a.tar.zst"], &to("/y"), true).expect("adds");
    assert_eq!(
        scene.list(),
        [
            "x/", "x/dir/", "x/dir/f", "x/dir/h", "x/dir/l", "x/plain", "y/", "y/dir/", "y/dir/f",
            "y/dir/h", "y/dir/l"
        ]
    );
    let found = fs::metadata(scene.image().join("x/dir/f")).expect("a file");
    assert_eq!((found.uid(), found.mtime(), found.nlink()), (3, 1000, 2));
    assert_eq!(found.mode() & 0o7777, 0o640);
}

#[test]
fn a_hostile_archive_is_refused_and_touches_nothing_outside() {
    use archive::Kind;
    #[track_caller]
    fn refused(entries: &[(&str, Kind, &str)], expected: &str) {
        let scene = Scene::new(&[]);
        fs::write(scene.context().join("a.tar"), tar(entries)).expect("a file");
        let error = scene.copy_with(&["a.tar"], &to("/x/"), true).expect_err("is hostile");
        assert!(error.to_string().contains(expected), "{error}");
        assert!(!scene.directory.path().join("escaped").exists());
    }
    refused(&[("../../escaped", Kind::File, "x")], "leads out of it");
    refused(&[("a", Kind::HardLink(b"../../../etc/passwd".to_vec()), "")], "leads out of it");
    let device = archive::Device { major: 1, minor: 3 };
    refused(&[("null", Kind::Character(device), "")], "is a device or pipe");
    let scene = Scene::new(&[]);
    let entries = [("l", Kind::Symlink(b"../../../".to_vec()), ""), ("l/escaped", Kind::File, "x")];
    fs::write(scene.context().join("a.tar"), tar(&entries)).expect("a file");
    scene.copy_with(&["a.tar"], &to("/x/"), true).expect("stays below the root");
    assert!(scene.image().join("escaped").exists());
    assert!(!scene.directory.path().join("escaped").exists());
}
