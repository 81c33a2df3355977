//! Builds that run no command: files, configuration, cache.

mod support;

use std::collections::BTreeMap;

use carrack_build::{BuildRequest, NamedContext};
use support::Scene;

#[test]
fn files_and_configuration_become_an_image() {
    let scene = Scene::new(&[("app/main.py", "print()"), ("app/deep/x", "1")]);
    let built = scene.build(
        "FROM scratch\nENV A=1\nWORKDIR /srv\nCOPY app lib\nCOPY --chown=5:6 --chmod=700 app/deep/x .\n\
         LABEL l=v\nEXPOSE 80\nUSER 5\nENTRYPOINT [\"/x\"]\nCMD [\"y\"]\n",
    );
    assert_eq!((built.steps_run, built.steps_cached), (3, 0));
    assert_eq!(
        scene.entries(&built),
        [
            "srv/ 755 0:0",
            "srv/ 755 0:0",
            "srv/lib/ 755 0:0",
            "srv/lib/deep/ 755 0:0",
            "srv/lib/deep/x 644 0:0 1",
            "srv/lib/main.py 644 0:0 print()",
            "srv/ 755 0:0",
            "srv/x 700 5:6 1",
        ]
    );
    let config = scene.image(&built).config;
    assert_eq!(config.config.variable("A"), Some("1"));
    assert_eq!(config.config.working_dir, "/srv");
    assert_eq!(config.config.user, "5");
    assert_eq!(config.config.entrypoint, ["/x"]);
    assert_eq!(config.config.cmd, ["y"]);
    assert_eq!(config.created.as_deref(), Some("1970-01-01T00:00:00Z"));
    assert_eq!(config.history.len(), 9);
    let with_layer = config.history.iter().filter(|entry| !entry.empty_layer).count();
    assert_eq!(with_layer, config.rootfs.diff_ids.len());
}

#[test]
fn a_second_build_runs_nothing_and_makes_the_same_image() {
    let scene = Scene::new(&[("a", "1"), ("b", "2")]);
    let text = "FROM scratch\nCOPY a /\nCOPY b /d/\nWORKDIR /w\n";
    let first = scene.build(text);
    let second = scene.build(text);
    assert_eq!((first.steps_run, first.steps_cached), (3, 0));
    assert_eq!((second.steps_run, second.steps_cached), (0, 3));
    assert_eq!(first.digest, second.digest);
}

#[test]
fn equal_inputs_make_equal_digests_in_another_store_at_another_time() {
    let build = |files: &[(&str, &str)]| {
        Scene::new(files).build("FROM scratch\nCOPY . /\nWORKDIR /w\nCOPY a /w/b\n").digest
    };
    assert_eq!(build(&[("a", "1"), ("b/c", "2")]), build(&[("b/c", "2"), ("a", "1")]));
}

#[test]
fn a_changed_file_runs_its_step_and_those_after_it() {
    let scene = Scene::new(&[("a", "1"), ("b", "2"), ("c", "3")]);
    let text = "FROM scratch\nCOPY a /\nCOPY b /\nCOPY c /\n";
    scene.build(text);
    scene.write("b", "changed");
    let second = scene.build(text);
    assert_eq!((second.steps_run, second.steps_cached), (2, 1));
    assert!(scene.entries(&second).contains(&"b 644 0:0 changed".to_owned()));
}

#[test]
fn without_the_cache_every_step_is_done_again() {
    let scene = Scene::new(&[("a", "1")]);
    let request = scene.request("FROM scratch\nCOPY a /\n");
    let first = scene.try_build(&request).expect("builds");
    let second = scene.try_build(&BuildRequest { no_cache: true, ..request }).expect("builds");
    assert_eq!((second.steps_run, second.digest), (1, first.digest));
}

#[test]
fn a_layer_that_left_the_store_is_made_again() {
    use carrack_store::BlobStore as _;
    let scene = Scene::new(&[("a", "1")]);
    let text = "FROM scratch\nCOPY a /\n";
    let first = scene.build(text);
    let layer = scene.image(&first).manifest.layers[0].digest.clone();
    scene.images.blobs().delete(&layer).expect("goes");
    let second = scene.build(text);
    assert_eq!((second.steps_run, second.digest), (1, first.digest));
}

#[test]
fn stages_are_copied_from_and_only_those_needed_are_built() {
    let scene = Scene::new(&[("a", "1"), ("b", "2")]);
    let text = "FROM scratch AS one\nCOPY --chown=7:8 a b /out/\nFROM scratch AS never\nCOPY gone /\n\
                FROM scratch\nCOPY --from=one /out/a /x\nCOPY --from=0 /out /y/\n";
    let built = scene.build(text);
    assert_eq!(built.steps_run, 3);
    assert_eq!(
        scene.entries(&built),
        ["x 644 7:8 1", "y/ 755 0:0", "y/a 644 7:8 1", "y/b 644 7:8 2"],
        "what comes from a stage keeps its owner"
    );
    assert_eq!(scene.build(text).steps_run, 0);
}

#[test]
fn an_image_can_be_started_from_and_copied_from() {
    let scene = Scene::new(&[("a", "1"), ("b", "2")]);
    let base = BuildRequest {
        tags: vec!["base:1".parse().expect("a name")],
        ..scene.request("FROM scratch\nENV FROM_BASE=yes\nCOPY a /a\n")
    };
    let base = scene.try_build(&base).expect("builds");
    let built = scene.build("FROM base:1\nCOPY b /$FROM_BASE\nCOPY --from=base:1 /a /again\n");
    assert_eq!(scene.entries(&built), ["a 644 0:0 1", "yes 644 0:0 2", "again 644 0:0 1"]);
    let image = scene.image(&built);
    assert_eq!(image.manifest.layers[0], scene.image(&base).manifest.layers[0]);
    assert_eq!(image.config.history.len(), 4);
    let error = scene.refused("FROM nowhere:9\n");
    assert!(error.contains("the build needs the image `nowhere:9`, which is not in the store"));
}

#[test]
fn named_contexts_are_images_and_directories() {
    let scene = Scene::new(&[("a", "1")]);
    let other = tempfile::tempdir().expect("a directory");
    std::fs::write(other.path().join("f"), "other").expect("a file");
    std::fs::write(other.path().join(".dockerignore"), "secret").expect("a file");
    std::fs::write(other.path().join("secret"), "x").expect("a file");
    let base = BuildRequest {
        tags: vec!["real:1".parse().expect("a name")],
        ..scene.request("FROM scratch\nCOPY a /a\n")
    };
    scene.try_build(&base).expect("builds");
    let request = BuildRequest {
        named_contexts: BTreeMap::from([
            ("base".to_owned(), NamedContext::Image("real:1".parse().expect("a name"))),
            ("files".to_owned(), NamedContext::Directory(other.path().to_owned())),
        ]),
        ..scene.request("FROM base\nCOPY --from=files . /d/\n")
    };
    let built = scene.try_build(&request).expect("builds");
    assert_eq!(
        scene.entries(&built),
        ["a 644 0:0 1", "d/ 755 0:0", "d/.dockerignore 644 0:0 secret", "d/f 644 0:0 other"]
    );
}

#[test]
fn a_copy_that_changes_nothing_makes_no_layer() {
    let scene = Scene::new(&[("empty/.keep", "")]);
    std::fs::remove_file(scene.context().join("empty/.keep")).expect("goes");
    let built = scene.build("FROM scratch\nCOPY empty /\n");
    assert_eq!(scene.image(&built).manifest.layers.len(), 0);
    assert!(scene.image(&built).config.history[0].empty_layer);
    assert_eq!(scene.build("FROM scratch\nCOPY empty /\n").steps_cached, 1);
}

#[test]
fn documents_in_the_dockerfile_become_files() {
    let scene = Scene::new(&[]);
    let built = scene.build("FROM scratch\nENV V=1\nCOPY --chmod=600 <<EOF /etc/conf\nv=$V\nEOF\n");
    assert_eq!(scene.entries(&built), ["etc/ 755 0:0", "etc/conf 600 0:0 v=1"]);
}

#[test]
fn problems_come_all_at_once_before_anything_is_done() {
    let scene = Scene::new(&[("a", "1")]);
    let error = scene.refused("FROM scratch\nCOPY a /\nADD http://x/y /\nRUN --network=host x\n");
    assert_eq!(
        error,
        "Dockerfile:3:5: ADD of a remote source is not supported: `http://x/y`\n\
         Dockerfile:4:5: the flag --network of RUN is not supported; give the whole build a \
         network with `carrack build --network`"
    );
}

#[test]
fn a_failed_step_is_named_with_its_place() {
    let scene = Scene::new(&[]);
    let error = scene.refused("FROM scratch\n\nCOPY gone /\n");
    assert_eq!(error, "Dockerfile:3:1: COPY gone /: there is no `gone` in the build context");
    let error = scene.refused("FROM scratch\nWORKDIR /w\nCOPY --chown=nobody . /\n");
    assert!(error.ends_with("the image knows no user `nobody`; add it first, or give its number"));
}

#[test]
fn unused_arguments_are_told() {
    let scene = Scene::new(&[]);
    let mut request = scene.request("FROM scratch\nARG USED\nLABEL u=$USED\n");
    request.args =
        BTreeMap::from([("USED".to_owned(), "1".to_owned()), ("STRAY".to_owned(), "2".to_owned())]);
    request.labels = BTreeMap::from([("added".to_owned(), "yes".to_owned())]);
    let built = scene.try_build(&request).expect("builds");
    assert_eq!(scene.heard.messages(), ["the build argument `STRAY` is declared by no ARG"]);
    let labels = scene.image(&built).config.config.labels;
    assert_eq!(labels.get("u").map(String::as_str), Some("1"));
    assert_eq!(labels.get("added").map(String::as_str), Some("yes"));
}

#[test]
fn a_build_leaves_nothing_behind_but_its_cache_and_sweeps_what_others_left() {
    let scene = Scene::new(&[("a", "1")]);
    scene.build("FROM scratch\nCOPY a /\n");
    assert_eq!(scene.live_workspaces(), 0);
    let debris = scene.path().join("build/steps/live/1-1/upper/x");
    std::fs::create_dir_all(debris).expect("debris");
    assert_eq!(scene.live_workspaces(), 1);
    drop(scene.builder());
    assert_eq!(scene.live_workspaces(), 0);
}

#[test]
fn builds_at_the_same_time_do_not_disturb_each_other() {
    let files: Vec<_> = (0..20).map(|n| (format!("d/{n}"), n.to_string())).collect();
    let files: Vec<_> = files.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let scene = Scene::new(&files);
    let text = "FROM scratch\nCOPY d /a/\nWORKDIR /w\nCOPY d .\n";
    let digests: Vec<_> = std::thread::scope(|scope| {
        let builds: Vec<_> = (0..6).map(|_| scope.spawn(|| scene.build(text).digest)).collect();
        builds.into_iter().map(|build| build.join().expect("builds")).collect()
    });
    assert!(digests.windows(2).all(|pair| pair[0] == pair[1]), "{digests:?}");
    assert_eq!(scene.live_workspaces(), 0);
}

/// Steps of a small random walk that is the same each time.
struct Dice(u64);

impl Dice {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// One change that a build must see. Says what it was.
fn change(scene: &Scene, dice: &mut Dice) -> String {
    let name = format!("d/{}", dice.below(5));
    let path = scene.context().join(&name);
    std::fs::remove_file(&path).ok(); // It may not be there.
    match dice.below(4) {
        0 => format!("{name} is gone"),
        1 => {
            let target = format!("target-{}", dice.below(3));
            std::os::unix::fs::symlink(&target, &path).expect("a link");
            format!("{name} is a link to {target}")
        }
        _ => {
            use std::os::unix::fs::PermissionsExt;
            let (text, mode) =
                (dice.below(3).to_string(), 0o600 + u32::try_from(dice.below(3)).expect("small"));
            std::fs::write(&path, &text).expect("a file");
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("a mode");
            format!("{name} is {text}, mode {mode:o}")
        }
    }
}

#[test]
fn the_cache_never_answers_with_what_a_fresh_build_would_not_make() {
    let scene = Scene::new(&[("d/0", "0"), ("d/1", "1")]);
    let text = "FROM scratch\nCOPY d /d/\nCOPY d/* /e/\n";
    let cached = scene.request(text);
    let fresh = BuildRequest { no_cache: true, ..scene.request(text) };
    let mut dice = Dice(20_260_101);
    let mut hits = 0;
    scene.write("d/keep", "so that the wildcard matches");
    for round in 0..60 {
        let what = change(&scene, &mut dice);
        // A link whose target is missing cannot be copied by name; both have to say so.
        let by_cache = scene.try_build(&cached).map_err(|error| error.to_string());
        let by_hand = scene.try_build(&fresh).map_err(|error| error.to_string());
        hits += by_cache.as_ref().map_or(0, |built| built.steps_cached);
        let digest = |built: Result<carrack_build::Built, String>| built.map(|built| built.digest);
        assert_eq!(digest(by_cache), digest(by_hand), "round {round}: {what}");
    }
    assert!(hits > 0, "the walk comes back to where it was");
}
