//! The chain from a signature to a package, broken in every link in turn.
//!
//! Each test makes a small archive of its own, signed by a key of its own, and
//! serves it on loopback. The archive's tools (gpg, dpkg-deb, apt-ftparchive) are
//! those that real archives are made with.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking, in its own functions too")]

mod archive;

use std::error::Error as _;
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use archive::{Archive, Deb};
use carrack_build::frontend::packages::{
    FetchError, PackagesEnvironment, PackagesError, Recipe, SignatureError, build_recipe,
};
use carrack_build::{BuildEvent, Progress};
use carrack_content::Images;
use carrack_oci::Digest;
use carrack_oci::archive::{Device, Entry, Kind, Reader};
use jiff::{Span, Timestamp};

#[derive(Default)]
struct Messages(Mutex<Vec<String>>);

impl Progress for Messages {
    fn event(&self, event: BuildEvent) {
        if let BuildEvent::Message(message) = event {
            self.0.lock().unwrap().push(message);
        }
    }
}

/// A store, a cache and an apt configuration of their own.
struct Machine {
    directory: tempfile::TempDir,
    images: Images,
    messages: Messages,
    maximum_age: Duration,
    now: Timestamp,
}

impl Machine {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("apt")).unwrap();
        let images = Images::open(directory.path().join("store")).unwrap();
        let (messages, maximum_age) = (Messages::default(), Duration::ZERO);
        Self { directory, images, messages, maximum_age, now: Timestamp::now() }
    }

    /// A machine whose apt is configured for these archives.
    fn using(archives: &[&Archive]) -> Self {
        let machine = Self::new();
        let lines: String = archives.iter().map(|archive| archive.line() + "\n").collect();
        std::fs::write(machine.directory.path().join("apt/sources.list"), lines).unwrap();
        machine
    }

    fn build(&self, packages: &str) -> Result<Digest, PackagesError> {
        let text = format!("contents: {{packages: [{packages}]}}\n");
        let recipe = Recipe::parse(&text, Path::new("recipe.yaml")).unwrap();
        let path = |name| self.directory.path().join(name);
        let mut environment = PackagesEnvironment::new(path("packages"), path("apt"));
        environment.maximum_age = self.maximum_age;
        environment.now = self.now;
        build_recipe(&recipe, &environment, &self.images, None, &self.messages)
    }

    fn entries(&self, manifest: &Digest) -> Vec<(Entry, String)> {
        let layer = self.images.get(manifest).unwrap().manifest.layers[0].digest.clone();
        let mut archive = Reader::new(self.images.blobs().blob(&layer).unwrap());
        let mut entries = Vec::new();
        while let Some(entry) = archive.next_entry().unwrap() {
            let mut content = String::new();
            std::io::Read::read_to_string(&mut archive, &mut content).unwrap();
            entries.push((entry, content));
        }
        entries
    }

    fn content(&self, manifest: &Digest, path: &str) -> String {
        let entries = self.entries(manifest);
        let found = entries.into_iter().find(|(entry, _)| entry.path == path.as_bytes());
        found.unwrap_or_else(|| panic!("`{path}` is in the image")).1
    }
}

/// An archive with one package that has a file, a configuration file and a dependency.
fn archive() -> Archive {
    Archive::new(&[
        Deb::new("hello", "1.0-1")
            .field("Depends: greeting (>= 2)")
            .file("usr/bin/hello", "#!/bin/sh\necho hello\n")
            .file("etc/hello.conf", "loud=1\n")
            .conffile("/etc/hello.conf"),
        Deb::new("greeting", "1").file("usr/share/greeting", "old\n"),
        Deb::new("greeting", "2.1").file("usr/share/greeting", "new\n"),
    ])
}

fn says(error: &PackagesError) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}

#[test]
fn what_is_signed_becomes_an_image_and_the_second_time_nothing_is_asked() {
    let archive = archive();
    let mut machine = Machine::using(&[&archive]);
    machine.maximum_age = Duration::from_hours(1);
    let image = machine.build("hello").unwrap();
    assert_eq!(machine.content(&image, "usr/share/greeting"), "new\n");
    let status = machine.content(&image, "var/lib/dpkg/status");
    assert!(status.contains("Package: hello\nStatus: install ok installed\n"), "{status}");
    assert!(
        status.contains("Conffiles:\n /etc/hello.conf 6976198b9ffb7c132abb3a0c490b0433"),
        "{status}"
    );
    let list = machine.content(&image, "var/lib/dpkg/info/hello.list");
    assert!(list.starts_with("/.\n") && list.contains("/usr/bin/hello\n"), "{list}");

    let asked = archive.requests();
    assert!(asked > 0);
    assert_eq!(machine.build("hello").unwrap(), image);
    assert_eq!(archive.requests(), asked);
}

#[test]
fn a_new_index_alone_makes_no_new_image() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    let image = machine.build("hello").unwrap();
    archive.add(&Deb::new("other", "1").file("usr/share/other", "x"));
    let asked = archive.requests();
    assert_eq!(machine.build("hello").unwrap(), image);
    // The Release file and the index, no package.
    assert_eq!(archive.requests(), asked + 2);
}

#[test]
fn a_tampered_index_is_refused() {
    let archive = archive();
    archive.tamper("dists/stable/main/binary-all-and-own/Packages.xz");
    let error = Machine::using(&[&archive]).build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::Fetch(FetchError::Corrupt { .. })), "{error:?}");
    assert!(says(&error).contains("Packages.xz was tampered with"), "{}", says(&error));
}

#[test]
fn a_tampered_package_is_refused() {
    let archive = archive();
    archive.tamper("pool/hello_1.0-1.deb");
    let error = Machine::using(&[&archive]).build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::Fetch(FetchError::Corrupt { .. })), "{error:?}");
    assert!(says(&error).contains("hello_1.0-1.deb was tampered with"), "{}", says(&error));
}

#[test]
fn a_package_that_grew_is_refused_before_it_is_all_here() {
    let archive = archive();
    archive.append("pool/hello_1.0-1.deb", &vec![0; 1 << 20]);
    let error = Machine::using(&[&archive]).build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::Fetch(FetchError::TooLarge { .. })), "{error:?}");
}

#[test]
fn a_package_changed_in_the_cache_is_fetched_again() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    let image = machine.build("hello").unwrap();
    let blobs = machine.directory.path().join("packages/sha256");
    for entry in std::fs::read_dir(blobs).unwrap() {
        std::fs::write(entry.unwrap().path(), b"rotten").unwrap();
    }
    let other = machine.build("greeting").unwrap();
    assert_ne!(other, image);
    assert_eq!(machine.content(&other, "usr/share/greeting"), "new\n");
}

#[test]
fn a_release_file_altered_after_signing_is_refused() {
    let archive = archive();
    archive.replace("dists/stable/InRelease", "Suite: stable", "Suite: stabel");
    refused(&archive, |error| matches!(error, SignatureError::Bad { .. }));
}

#[test]
fn a_release_file_without_a_signature_is_refused() {
    let archive = archive();
    archive.copy("dists/stable/Release", "dists/stable/InRelease");
    refused(&archive, |error| matches!(error, SignatureError::NotSigned));
}

#[test]
fn an_archive_without_a_signed_release_file_is_named() {
    let archive = archive();
    archive.remove("dists/stable/InRelease");
    let error = Machine::using(&[&archive]).build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::Unanswered { .. }), "{error:?}");
    assert!(error.to_string().contains("no signed Release file at http://127.0.0.1"), "{error}");
}

#[test]
fn text_around_the_signed_text_is_refused() {
    for place in ["before", "after"] {
        let archive = archive();
        archive.surround("dists/stable/InRelease", place, "SHA256:\n evil\n");
        refused(&archive, |error| matches!(error, SignatureError::NotSigned));
    }
}

#[test]
fn a_signature_by_someone_else_is_refused() {
    let (archive, other) = (archive(), archive());
    archive.trust_instead(&other);
    refused(&archive, |error| matches!(error, SignatureError::UnknownSigner { .. }));
}

#[test]
fn a_signature_by_an_expired_key_is_refused() {
    let archive = archive();
    let mut machine = Machine::using(&[&archive]);
    machine.now = Timestamp::now() + Span::new().hours(24 * 400);
    let error = machine.build("hello").unwrap_err();
    let PackagesError::Signature { source, .. } = &error else { panic!("{error:?}") };
    assert!(matches!(source, SignatureError::Unusable { problem: "has expired", .. }), "{error:?}");
}

#[test]
fn a_source_whose_key_is_missing_is_refused() {
    let archive = archive();
    let machine = Machine::new();
    let unsigned = archive.line().replace(&archive.signed_by(), "");
    std::fs::write(machine.directory.path().join("apt/sources.list"), unsigned).unwrap();
    let error = machine.build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::NoKeys { .. }), "{error:?}");
}

#[track_caller]
fn refused(archive: &Archive, expected: impl Fn(&SignatureError) -> bool) {
    let error = Machine::using(&[archive]).build("hello").unwrap_err();
    let PackagesError::Signature { release, source } = &error else { panic!("{error:?}") };
    assert!(release.ends_with("/dists/stable/InRelease") && expected(source), "{error:?}");
}

#[test]
fn an_expired_release_file_is_refused_unless_the_source_says_otherwise() {
    let archive = archive();
    archive.sign_with("Valid-Until: Mon, 01 Jan 2024 00:00:00 UTC\n");
    let error = Machine::using(&[&archive]).build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::Expired { .. }), "{error:?}");
    assert!(error.to_string().contains("valid until 2024-01-01T00:00:00Z"), "{error}");

    let machine = Machine::new();
    let lenient = archive.line().replace("deb [", "deb [check-valid-until=no ");
    std::fs::write(machine.directory.path().join("apt/sources.list"), lenient).unwrap();
    machine.build("hello").unwrap();
}

#[test]
fn an_expired_release_file_is_taken_where_the_hosts_apt_takes_it() {
    let archive = archive();
    archive.sign_with("Valid-Until: Mon, 01 Jan 2024 00:00:00 UTC\n");
    let machine = Machine::using(&[&archive]);
    let settings = machine.directory.path().join("apt/apt.conf.d");
    std::fs::create_dir(&settings).unwrap();
    std::fs::write(settings.join("99frozen"), "Acquire::Check-Valid-Until \"false\";\n").unwrap();
    machine.build("hello").unwrap();
}

#[test]
fn builds_at_the_same_time_share_a_cache_and_agree() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    let images: Vec<Digest> = std::thread::scope(|scope| {
        let builds: Vec<_> =
            (0..6).map(|_| scope.spawn(|| machine.build("hello").unwrap())).collect();
        builds.into_iter().map(|build| build.join().unwrap()).collect()
    });
    assert!(images.windows(2).all(|pair| pair[0] == pair[1]));
    let left = machine.directory.path().join("packages/unfinished");
    assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
}

const KILLED_IN: &str = "PACKAGES_KILLED_IN";

#[test]
fn a_build_killed_at_any_moment_leaves_what_the_next_one_uses() {
    let archive = archive();
    let expected = Machine::using(&[&archive]).build("hello").unwrap();
    for round in 0..25 {
        let machine = Machine::using(&[&archive]);
        let mut child = std::process::Command::new("/proc/self/exe")
            .args(["--ignored", "--exact", "a_build_to_be_killed"])
            .env(KILLED_IN, machine.directory.path())
            .stdout(std::process::Stdio::null())
            .spawn()
            .unwrap();
        // Not a wait for something: a moment to strike, another each round.
        std::thread::sleep(Duration::from_millis(4 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(machine.build("hello").unwrap(), expected, "after {round} rounds");
        let left = machine.directory.path().join("packages/unfinished");
        assert_eq!(std::fs::read_dir(left).unwrap().count(), 0);
    }
}

#[test]
#[ignore = "run, and killed, by a_build_killed_at_any_moment_leaves_what_the_next_one_uses"]
fn a_build_to_be_killed() {
    let Some(directory) = std::env::var_os(KILLED_IN) else { return };
    let path = |name| Path::new(&directory).join(name);
    let recipe =
        Recipe::parse("contents: {packages: [hello]}\n", Path::new("recipe.yaml")).unwrap();
    let environment = PackagesEnvironment::new(path("packages"), path("apt"));
    let images = Images::open(path("store")).unwrap();
    build_recipe(&recipe, &environment, &images, None, &Messages::default()).unwrap();
}

#[test]
fn an_image_that_was_collected_is_made_again() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    let image = machine.build("hello").unwrap();
    machine.images.gc(&[]).unwrap();
    assert!(machine.images.get(&image).is_err());
    assert_eq!(machine.build("hello").unwrap(), image);
    assert_eq!(machine.content(&image, "usr/share/greeting"), "new\n");
}

#[test]
fn the_release_file_of_another_suite_is_refused() {
    let archive = archive();
    let machine = Machine::new();
    archive.copy("dists/stable/InRelease", "dists/unstable/InRelease");
    let line = archive.line().replace(" stable ", " unstable ");
    std::fs::write(machine.directory.path().join("apt/sources.list"), line).unwrap();
    let error = machine.build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::OtherSuite { .. }), "{error:?}");
}

#[test]
fn an_older_release_file_than_the_one_known_is_not_gone_back_to() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    archive.add(&Deb::new("other", "1").file("usr/share/other", "x"));
    machine.build("other").unwrap();
    archive.sign_with("Date: Mon, 01 Jan 2024 00:00:00 UTC\n");
    machine.build("other").unwrap();
    let messages = machine.messages.0.lock().unwrap();
    assert!(messages.iter().any(|message| message.contains("older than before")), "{messages:?}");
}

#[test]
fn a_source_that_does_not_answer_is_told_and_named_when_something_is_missing() {
    let (archive, away) = (archive(), archive());
    away.stop();
    let machine = Machine::using(&[&away, &archive]);
    machine.build("hello").unwrap();
    assert_eq!(machine.messages.0.lock().unwrap().len(), 1);
    let error = machine.build("absent").unwrap_err();
    assert!(error.to_string().contains("some sources did not answer"), "{error}");
    assert!(says(&error).contains("no source has a package `absent`"), "{}", says(&error));

    let error = Machine::using(&[&away]).build("hello").unwrap_err();
    assert!(matches!(error, PackagesError::Unanswered { .. }), "{error:?}");
}

#[test]
fn a_source_gone_away_is_used_as_it_was_last_known() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    let image = machine.build("hello").unwrap();
    archive.stop();
    assert_eq!(machine.build("hello").unwrap(), image);
    let messages = machine.messages.0.lock().unwrap();
    assert!(messages[0].contains("as they were when it last answered"), "{messages:?}");
}

#[test]
fn sources_named_in_the_recipe_are_the_only_ones() {
    let archive = archive();
    let machine = Machine::new();
    let text = format!(
        "contents:\n  packages: [hello]\n  repositories: ['{}']\n  keyring: ['{}']\n",
        archive.line().replace(&archive.signed_by(), ""),
        archive.key().display()
    );
    let recipe = Recipe::parse(&text, Path::new("recipe.yaml")).unwrap();
    let path = |name| machine.directory.path().join(name);
    let environment = PackagesEnvironment::new(path("packages"), path("no-apt-here"));
    build_recipe(&recipe, &environment, &machine.images, None, &machine.messages).unwrap();
}

#[test]
fn a_package_that_reaches_out_of_the_image_is_refused_and_the_machine_untouched() {
    let outside = std::env::temp_dir().join(format!("carrack-out-{}", std::process::id()));
    let path = format!("./../../../../../../../..{}", outside.display());
    let up = Entry::new(path.as_str(), Kind::File, 0o644);
    let device = Entry::new("./dev/sda", Kind::Block(Device { major: 8, minor: 0 }), 0o660);
    let hard = Entry::new("./x", Kind::HardLink("../../../../etc/passwd".into()), 0o644);
    for (entry, expected) in
        [(up, "leads out of the image"), (device, "is a device"), (hard, "leads out of the image")]
    {
        let archive = Archive::new(&[Deb::new("evil", "1").raw(entry)]);
        let error = Machine::using(&[&archive]).build("evil").unwrap_err();
        assert!(matches!(&error, PackagesError::Unpack { package, .. } if package == "evil"));
        assert!(says(&error).contains(expected), "{}", says(&error));
        assert!(!outside.exists());
    }
}

#[test]
fn a_link_in_one_package_leads_another_nowhere_but_inside() {
    let link = Entry::new("./out", Kind::Symlink("/../../tmp".into()), 0o777);
    let archive = Archive::new(&[
        Deb::new("first", "1").raw(link),
        Deb::new("second", "1").field("Depends: first").file("out/file", "inside\n"),
    ]);
    let machine = Machine::using(&[&archive]);
    let image = machine.build("second").unwrap();
    assert_eq!(machine.content(&image, "tmp/file"), "inside\n");
}

#[test]
fn two_packages_with_one_file_are_refused_unless_one_replaces_the_other() {
    let first = || Deb::new("first", "1").file("usr/share/both", "1\n");
    let second = || Deb::new("second", "1").file("usr/share/both", "2\n");
    let archive = Archive::new(&[first(), second()]);
    let error = Machine::using(&[&archive]).build("first, second").unwrap_err();
    assert!(says(&error).contains("neither replaces the other"), "{}", says(&error));
    let archive = Archive::new(&[first(), second().field("Replaces: first (<< 2)")]);
    let machine = Machine::using(&[&archive]);
    let image = machine.build("first, second").unwrap();
    assert_eq!(machine.content(&image, "usr/share/both"), "2\n");
}

#[test]
fn the_epoch_asked_for_bounds_every_time() {
    let archive = archive();
    let machine = Machine::using(&[&archive]);
    let recipe = Recipe::parse("contents: {packages: [hello]}", Path::new("recipe.yaml")).unwrap();
    let path = |name| machine.directory.path().join(name);
    let environment = PackagesEnvironment::new(path("packages"), path("apt"));
    let build = |epoch| {
        build_recipe(&recipe, &environment, &machine.images, epoch, &machine.messages).unwrap()
    };
    let image = build(Some(1_000_000));
    assert!(machine.entries(&image).iter().all(|(entry, _)| entry.modified <= 1_000_000));
    let created = machine.images.get(&image).unwrap().config.created;
    assert_eq!(created.as_deref(), Some("1970-01-12T13:46:40Z"));
    assert_ne!(build(None), image);
}
