//! Somebody who shares the root file system exchanges what is in it, all the while
//! containers are made on it.

use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use carrack_conformance::{Bundle, Canaries};
use rustix::fs::{Mode, OFlags, RenameFlags};
use serde_json::json;

/// What is exchanged for a link to the host and back: parents of mount points of every
/// kind, of the working directory, of masked and read-only paths, and `/dev` itself.
const SWAPPED: [&str; 8] = ["bind", "file", "tmpfs", "masked", "readonly", "work", "dev", "moved"];

/// How many containers are made.
fn rounds() -> u32 {
    std::env::var("CARRACK_ESCAPE_ROUNDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10_000)
}

#[test]
fn cve_2021_30465_2024_23651_and_2024_45310_no_exchange_during_10_000_creations_reaches_the_host() {
    let canaries = Canaries::new();
    let Some(first) = Bundle::program(&["/bin/true"]) else { return };
    let root = first.root();
    lay_traps(&root, canaries.path());
    let (made, refused, next) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU32::new(0));
    let stop = AtomicBool::new(false);
    let begun = Instant::now();
    std::thread::scope(|scope| {
        let swapping = scope.spawn(|| exchange(&root, &stop));
        let workers = [false, true, false, false, true, false].map(|terminal| {
            let (root, made, refused, next) = (&root, &made, &refused, &next);
            scope.spawn(move || {
                let mut bundle = racing(root, terminal).unwrap();
                while next.fetch_add(1, Ordering::Relaxed) < rounds() {
                    bundle.rename();
                    let created = create(&bundle, terminal);
                    if created { made } else { refused }.fetch_add(1, Ordering::Relaxed);
                    bundle.remove();
                }
            })
        });
        let ended = workers.map(std::thread::ScopedJoinHandle::join);
        stop.store(true, Ordering::Relaxed);
        let exchanges = swapping.join().unwrap();
        let (made, refused) = (made.load(Ordering::Relaxed), refused.load(Ordering::Relaxed));
        eprintln!(
            "{made} containers made, {refused} refused, {exchanges} exchanges, in {:?}",
            begun.elapsed()
        );
        assert!(ended.iter().all(Result::is_ok));
        assert!(made * 50 > refused, "hardly any container was made, so nothing was tried");
    });
    canaries.assert_untouched();
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    for place in [canaries.path(), &root] {
        assert!(!mounts.contains(place.to_str().unwrap()), "a mount is left on the host");
    }
}

/// Beside each directory, a link out of the root by the same name and `-out`.
fn lay_traps(root: &Path, host: &Path) {
    for (count, name) in SWAPPED.iter().enumerate() {
        fs::create_dir_all(root.join(name)).unwrap();
        let host = host.join("empty");
        let out = match count % 3 {
            0 => host,
            1 => Path::new("../../../../../../../../..").join(host.strip_prefix("/").unwrap()),
            _ => Path::new("/proc/self/root").join(host.strip_prefix("/").unwrap()),
        };
        symlink(out, root.join(format!("{name}-out"))).unwrap();
    }
    fs::write(root.join("masked/file"), "").unwrap();
    fs::create_dir(root.join("readonly/directory")).unwrap();
    fs::create_dir_all(root.join("moved/from/below")).unwrap();
    fs::create_dir(root.join("to")).unwrap();
}

/// Exchanges each in turn until told to stop, and moves a directory to and fro; how often.
fn exchange(root: &Path, stop: &AtomicBool) -> u64 {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(root, flags, Mode::empty()).unwrap();
    let swap = |one: &str, other: &str, flags| {
        // Somebody else's move may have been quicker.
        rustix::fs::renameat_with(directory.as_fd(), one, directory.as_fd(), other, flags).is_ok()
    };
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        for name in SWAPPED {
            let out = format!("{name}-out");
            count += u64::from(swap(name, &out, RenameFlags::EXCHANGE));
            std::thread::yield_now();
            count += u64::from(swap(name, &out, RenameFlags::EXCHANGE));
        }
        count += u64::from(swap("moved/from", "to/from", RenameFlags::empty()));
        count += u64::from(swap("to/from", "moved/from", RenameFlags::empty()));
        // Some hundred exchanges for each container, and the processors left to those.
        std::thread::sleep(Duration::from_micros(200));
    }
    count
}

/// A bundle on the shared root, with as much to look up below it as there can be.
fn racing(root: &Path, terminal: bool) -> Option<Bundle> {
    let mut bundle = Bundle::program(&["/bin/true"])?;
    let source = bundle.path().join("source");
    fs::create_dir(&source).unwrap();
    let file = bundle.path().join("source-file");
    fs::write(&file, "").unwrap();
    bundle.use_root(root);
    bundle.mounts().retain(|mount| mount["destination"] == "/proc");
    bundle.bind(&source, "/bind/made/here");
    bundle.bind(&source, "/moved/from/below/made");
    bundle.bind(&file, "/file/made/here");
    for destination in ["/tmpfs/made/here", "/bind/made/here/above"] {
        bundle.mounts().push(json!({
            "destination": destination, "type": "tmpfs", "source": "tmpfs",
        }));
    }
    if terminal {
        bundle.mounts().push(json!({
            "destination": "/dev/pts", "type": "devpts", "source": "devpts",
            "options": ["newinstance", "ptmxmode=0666", "mode=0620"],
        }));
    }
    bundle.config["process"]["terminal"] = json!(terminal);
    bundle.config["process"]["cwd"] = json!("/work/made/here");
    bundle.config["linux"]["maskedPaths"] = json!(["/masked/file", "/masked", "/proc/keys"]);
    bundle.config["linux"]["readonlyPaths"] = json!(["/readonly/directory", "/proc/sys"]);
    bundle.config["linux"]["namespaces"] = json!([{ "type": "mount" }, { "type": "pid" }]);
    for name in ["hostname", "linux/seccomp", "linux/resources", "linux/sysctl"] {
        let (object, name) = match name.split_once('/') {
            Some((outer, name)) => (&mut bundle.config[outer], name),
            None => (&mut bundle.config, name),
        };
        object.as_object_mut().unwrap().remove(name);
    }
    Some(bundle)
}

fn create(bundle: &Bundle, terminal: bool) -> bool {
    if terminal {
        return bundle.create_with_terminal().is_ok();
    }
    let mut command = bundle.command(&["create", &bundle.id]);
    let null = || std::process::Stdio::from(fs::File::create(PathBuf::from("/dev/null")).unwrap());
    command.stdout(null()).stderr(null()).status().unwrap().success()
}
