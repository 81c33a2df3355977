//! Replays every seed, cut short and with bytes changed, so that what the fuzzer
//! found once stays found.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fs;
use std::path::{Path, PathBuf};

use carrack_build::frontend::dockerfile;
use carrack_build::frontend::packages::{Recipe, untrusted};
use carrack_container_runtime::diagnose::cache;
use carrack_container_runtime::diagnose::format::{Format, inspect};
use carrack_content::{Images, LoadLimits};
use carrack_linux::rooted::RootedDir;
use carrack_objects::{compose, policy};
use carrack_parsers::{PARSERS, Parser};
use carrack_rootfs::{ApplyOptions, apply};
use carrack_spiffe::{Bundle, SpiffeId, TrustDomain, X509Svid};

/// How many times each seed is spoiled.
const SPOILED: usize = 30;

fn seeds() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("seeds")
}

/// The same numbers in every run.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, bound: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        usize::try_from(self.0 >> 33).unwrap() % bound.max(1)
    }

    fn spoil(&mut self, seed: &[u8]) -> Vec<u8> {
        let mut bytes = seed.to_vec();
        match self.below(4) {
            0 => bytes.truncate(self.below(seed.len())),
            1 => {
                let place = self.below(seed.len());
                bytes.splice(place..place, seed.iter().copied().take(40));
            }
            _ => {
                for _ in 0..=self.below(4) {
                    let place = self.below(bytes.len());
                    if let Some(byte) = bytes.get_mut(place) {
                        *byte = u8::try_from(self.below(256)).unwrap();
                    }
                }
            }
        }
        bytes
    }
}

fn replay(parser: &Parser) -> usize {
    let mut numbers = Numbers(42);
    let mut count = 0;
    for entry in fs::read_dir(seeds().join(parser.name)).unwrap() {
        let seed = fs::read(entry.unwrap().path()).unwrap();
        (parser.run)(&seed);
        for _ in 0..SPOILED {
            (parser.run)(&numbers.spoil(&seed));
        }
        count += 1;
    }
    count
}

#[test]
fn no_seed_spoiled_or_not_breaks_a_parser() {
    std::thread::scope(|scope| {
        for parser in PARSERS {
            scope.spawn(move || assert!(replay(parser) > 0, "{} has a seed", parser.name));
        }
    });
}

#[test]
fn the_sound_seeds_are_accepted() {
    let seed = |path: &str| fs::read(seeds().join(path)).unwrap();
    let directory = tempfile::tempdir().unwrap();
    let images = Images::open(directory.path().join("store")).unwrap();
    for path in ["load/oci", "load/docker"] {
        let loaded = images.load(seed(path).as_slice(), &LoadLimits::default()).unwrap();
        assert_eq!(loaded[0].references[0].to_string(), "shop:1", "{path}");
    }
    for path in ["apply/pax", "apply/gnu", "apply/whiteouts"] {
        let root = directory.path().join(path.replace('/', "-"));
        fs::create_dir(&root).unwrap();
        let root = RootedDir::open(&root).unwrap();
        let applied = apply(seed(path).as_slice(), &root, &ApplyOptions::layer()).unwrap();
        assert!(applied.entries >= 3, "{path}");
    }
    let text = |path: &str| String::from_utf8(seed(path)).unwrap();
    dockerfile::parse(&text("dockerfile/plain"), "Dockerfile").unwrap();
    Recipe::parse(&text("recipe/plain"), Path::new("recipe.yaml")).unwrap();
    policy::parse(&text("policy/plain"), "policy.yaml", "shop").unwrap();
    let environment = compose::Environment {
        directory: "/shop".into(),
        project: None,
        variables: std::collections::BTreeMap::new(),
    };
    compose::parse(&text("compose/plain"), "compose.yaml", &environment).unwrap();
}

#[test]
fn the_sound_seeds_of_packages_and_identities_are_accepted() {
    let seed = |path: &str| fs::read(seeds().join(path)).unwrap();
    let text = |path: &str| String::from_utf8(seed(path)).unwrap();
    for path in ["deb/gzip", "deb/xz", "deb/zstd"] {
        assert_eq!(untrusted::deb(&seed(path)).unwrap(), 4, "{path}");
    }
    assert_eq!(untrusted::deb822(&text("deb822/plain")).unwrap(), 2);
    assert_eq!(untrusted::relations(&text("relations/plain")).unwrap(), 4);
    untrusted::release(&text("release/plain")).unwrap();
    assert_eq!(untrusted::index(&text("package_index/plain"), "redis-server"), 1);
    SpiffeId::parse(&text("spiffe_id/workload")).unwrap();
    SpiffeId::parse(&text("spiffe_id/port")).unwrap_err();
    X509Svid::parse(&seed("svid/leaf")).unwrap();
    let trust_domain = TrustDomain::new("carrack.local".to_owned()).unwrap();
    Bundle::from_pem(trust_domain, &seed("bundle/root")).unwrap();
}

#[test]
fn the_sound_seeds_of_programs_are_read() {
    let seed = |path: &str| fs::read(seeds().join("program").join(path)).unwrap();
    let Format::Elf(elf) = inspect(&seed("dynamic-elf").as_slice()) else { panic!("it is ELF") };
    assert_eq!(elf.interpreter.as_deref(), Some(&b"/lib64/ld-linux-x86-64.so.2"[..]));
    assert_eq!(elf.needed, [b"libfoo.so.1"]);
    assert_eq!(elf.runpath.as_deref(), Some(&b"$ORIGIN/lib"[..]));
    let Format::Elf(elf) = inspect(&seed("static-elf").as_slice()) else { panic!("it is ELF") };
    assert!(elf.interpreter.is_none() && elf.needed.is_empty());
    let Format::Script(script) = inspect(&seed("script").as_slice()) else { panic!("a script") };
    assert!(script.carriage_return);
    assert_eq!(cache::lookup(&seed("cache"), b"libfoo.so.1"), [b"/lib/libfoo.so.1"]);
}

#[test]
fn every_parser_has_its_fuzz_target_and_every_seed_its_parser() {
    let targets = seeds().parent().unwrap().join("fuzz_targets");
    for parser in PARSERS {
        assert!(targets.join(format!("{}.rs", parser.name)).is_file(), "{}", parser.name);
    }
    for entry in fs::read_dir(seeds()).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        assert!(PARSERS.iter().any(|parser| parser.name == name), "seeds/{name}");
    }
}
