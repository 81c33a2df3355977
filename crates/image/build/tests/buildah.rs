//! The same Dockerfile built by buildah: the configuration and the files are equal.

#![allow(clippy::print_stdout, reason = "a test says what it did not do, and its figures")]

mod support;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::process::Command;

use carrack_content::{Image, Images, LoadLimits};
use carrack_oci::{Digest, archive};
use support::{Scene, runtime_program};

/// Path to what is there: kind, mode, owner, content.
type Files = BTreeMap<String, String>;

/// The files of an image, its layers laid over each other. Times are left out: ours are
/// the epoch's, buildah's are those of the build.
fn files(images: &Images, image: &Image) -> Files {
    let mut files = Files::new();
    for (descriptor, diff_id) in image.layers() {
        assert_eq!(descriptor.digest, *diff_id, "the layers of both are not compressed");
        let blob = images.blobs().blob(&descriptor.digest).expect("a layer");
        lay_over(&mut files, &mut archive::Reader::new(blob));
    }
    files
}

fn lay_over(files: &mut Files, layer: &mut archive::Reader<File>) {
    let mut added = Files::new();
    while let Some(entry) = layer.next_entry().expect("an archive") {
        let path = String::from_utf8_lossy(&entry.path).trim_matches('/').to_owned();
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", &path));
        let below = |gone: &str| {
            let (gone, prefix) = (gone.to_owned(), format!("{gone}/"));
            move |path: &str| path == gone || path.starts_with(&prefix)
        };
        if name == ".wh..wh..opq" {
            let prefix = format!("{parent}/");
            files.retain(|path, _| !path.starts_with(&prefix));
        } else if let Some(gone) = name.strip_prefix(".wh.") {
            let gone = below(format!("{parent}/{gone}").trim_start_matches('/'));
            files.retain(|path, _| !gone(path));
        } else if !path.is_empty() {
            let mut content = Vec::new();
            std::io::Read::read_to_end(layer, &mut content).expect("content");
            let kind = match &entry.kind {
                archive::Kind::File => format!("file {}", Digest::of(&content)),
                archive::Kind::HardLink(target) => {
                    let target = String::from_utf8_lossy(target);
                    let target = target.trim_matches('/');
                    added.get(target).or_else(|| files.get(target)).expect("a target").clone()
                }
                other => format!("{other:?}"),
            };
            let what = match &entry.kind {
                archive::Kind::HardLink(_) => kind,
                archive::Kind::Symlink(_) => format!("{kind} {}:{}", entry.uid, entry.gid),
                _ => format!("{kind} {:o} {}:{}", entry.mode, entry.uid, entry.gid),
            };
            added.insert(path, what);
        }
    }
    files.extend(added);
}

/// What buildah makes of the Dockerfile. `None`: there is no buildah here.
fn peer(scene: &Scene, dockerfile: &str) -> Option<(Images, Image)> {
    let directory = scene.directory.path();
    let file = directory.join("Dockerfile.peer");
    std::fs::write(&file, dockerfile).expect("a file");
    let out = directory.join("peer.tar");
    let buildah = |arguments: &[&str], paths: &[&Path]| {
        Command::new("buildah")
            .args(["--storage-driver", "vfs", "--root"])
            .arg(directory.join("peer"))
            .arg("--runroot")
            .arg(directory.join("peer-run"))
            .args(arguments)
            .args(paths)
            .output()
    };
    let build =
        ["build", "--isolation", "chroot", "--format", "docker", "--layers", "-t", "peer", "-f"];
    let Ok(built) = buildah(&build, &[&file, &scene.context()]) else {
        println!("skipped: buildah is not installed");
        return None;
    };
    assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
    let to = format!("docker-archive:{}:peer:latest", out.display());
    let pushed = buildah(&["push", "peer", &to], &[]).expect("buildah is there");
    assert!(pushed.status.success(), "{}", String::from_utf8_lossy(&pushed.stderr));
    let images = Images::open(directory.join("peer-store")).expect("a store");
    let archive = File::open(&out).expect("an archive");
    let loaded = images.load(archive, &LoadLimits::default()).expect("loads");
    let digest = loaded.first().expect("an image").digest.clone();
    let image = images.get(&digest).expect("the image");
    Some((images, image))
}

#[track_caller]
fn same(scene: &Scene, dockerfile: &str) {
    let Some((images, theirs)) = peer(scene, dockerfile) else { return };
    let ours = scene.image(&scene.build(dockerfile));
    same_configuration(&ours, &theirs);
    let (expected, found) = (files(&images, &theirs), files(&scene.images, &ours));
    let differences = |one: &Files, other: &Files| {
        let differs = |(path, what): &(&String, &String)| other.get(*path) != Some(what);
        one.iter().filter(differs).map(|(path, what)| format!("{path}: {what}")).collect::<Vec<_>>()
    };
    assert_eq!(differences(&found, &expected), differences(&expected, &found));
}

#[track_caller]
fn same_configuration(ours: &Image, theirs: &Image) {
    let mut expected = theirs.config.config.clone();
    expected.labels.remove("io.buildah.version");
    expected.extra.clear();
    let mut found = ours.config.config.clone();
    found.extra.clear();
    // As BuildKit does, an image from scratch is given a PATH; buildah gives it none.
    let without_path = |env: &mut Vec<String>| env.retain(|entry| !entry.starts_with("PATH="));
    without_path(&mut expected.env);
    without_path(&mut found.env);
    expected.env.sort();
    found.env.sort();
    assert_eq!(found, expected);
}

fn context() -> Scene {
    let scene = Scene::new(&[
        ("a.txt", "a"),
        ("b.txt", "b"),
        ("dir/one", "1"),
        ("dir/deep/two", "2"),
        ("dir/deep/x.log", "x"),
        ("dir/skip/me", "x"),
        (".dockerignore", "**/*.log\ndir/skip\n"),
    ]);
    std::os::unix::fs::symlink("one", scene.context().join("dir/link")).expect("a link");
    std::os::unix::fs::symlink("a.txt", scene.context().join("to-a")).expect("a link");
    scene
}

#[test]
fn configuration_is_what_buildah_makes_of_it() {
    let scene = context();
    let dockerfile = "ARG V=1\nFROM scratch\nARG V\nENV A=$V B=\"two words\" C=${A:-none}\nENV D e f\n\
         LABEL one=1 \"two words\"='v v'\nEXPOSE 80 443/tcp 53/udp\nVOLUME /v [\"/w\"]\n\
         USER 5:6\nWORKDIR /srv\nWORKDIR app/../lib\nSTOPSIGNAL SIGQUIT\n\
         HEALTHCHECK --interval=5s --timeout=2s --start-period=1m --retries=4 CMD test -e /x\n\
         ENTRYPOINT [\"/bin/x\", \"$A\"]\nCMD run it\n";
    // The files differ on purpose: as BuildKit does we make the working directory at
    // WORKDIR, for its user; buildah makes it when something needs it.
    let Some((_, theirs)) = peer(&scene, dockerfile) else { return };
    same_configuration(&scene.image(&scene.build(dockerfile)), &theirs);
}

#[test]
fn files_are_where_buildah_puts_them() {
    same(
        &context(),
        "FROM scratch\nCOPY a.txt /\nCOPY a.txt b.txt /both/\nCOPY a.txt /named\nCOPY dir /dir\n\
         COPY dir/deep /dir/\nCOPY *.txt /glob/\nCOPY [\"a.txt\", \"/json name\"]\nCOPY to-a /\n\
         WORKDIR /w/x\nCOPY a.txt .\nCOPY b.txt ../up\nCOPY . /all/\n",
    );
}

#[test]
fn owners_and_modes_are_what_buildah_gives_them() {
    same(
        &context(),
        "FROM scratch AS one\nCOPY --chown=7:8 dir /d/\nCOPY --chmod=700 a.txt /x\n\
         FROM scratch\nCOPY --from=one /d /kept/\nCOPY --from=one --chown=1:2 /x /y\n",
    );
}

#[test]
fn an_added_archive_unpacks_as_buildah_unpacks_it() {
    let scene = context();
    let tar = Command::new("tar")
        .args(["--sort=name", "--owner=3", "--group=4", "--mtime=@5", "-czf", "d.tar.gz", "dir"])
        .current_dir(scene.context())
        .status();
    assert!(tar.expect("tar is there").success());
    same(&scene, "FROM scratch\nADD d.tar.gz a.txt /to/\n");
}

#[test]
fn commands_leave_what_buildah_finds() {
    if runtime_program().is_none() {
        return;
    }
    let scene = context();
    let Some(()) = scene.busybox() else { return };
    // Mount points that buildah would leave in the image, and we would not.
    for directory in ["dev", "proc", "run", "sys"] {
        std::fs::create_dir(scene.context().join("root").join(directory)).expect("a directory");
    }
    for file in ["hostname", "hosts", "resolv.conf"] {
        scene.write(&format!("root/etc/{file}"), "");
    }
    same(
        &scene,
        "FROM scratch\nCOPY root /\nRUN mkdir -p /a/b && echo x > /a/b/c && chmod 4755 /a/b/c\n\
         RUN rm -r /a/b && mkdir /a/b && ln -s /nowhere /a/l && rm /bin/wget\n\
         RUN chown web:logs /tmp && touch /tmp/f && ln /tmp/f /tmp/g\nUSER web\nRUN id > /tmp/id\n",
    );
}
