//! Builds that run commands, in containers of our own runtime.

mod support;

use carrack_build::{BuildRequest, RunNetwork};
use support::{Scene, runtime_program};

const BASE: &str = "FROM scratch\nCOPY root /\n";

/// A scene with a busybox to build on and a runtime to run it.
fn scene() -> Option<Scene> {
    runtime_program()?;
    let scene = Scene::new(&[]);
    scene.busybox()?;
    Some(scene)
}

#[track_caller]
fn outputs(text: &str, expected: &str) {
    let Some(scene) = scene() else { return };
    scene.build(&format!("{BASE}{text}"));
    assert_eq!(scene.heard.output(), expected, "{text}");
}

/// The entries of the layers above the base.
#[track_caller]
fn makes(text: &str, expected: &[&str]) {
    let Some(scene) = scene() else { return };
    let below = scene.entries(&scene.build(BASE)).len();
    let built = scene.build(&format!("{BASE}{text}"));
    let entries = scene.entries(&built);
    assert_eq!(entries[below..], *expected, "{text}");
}

#[test]
fn a_command_leaves_what_it_did_and_nothing_else() {
    makes("RUN echo hello > /file\n", &["file 644 0:0 hello"]);
    makes(
        "RUN mkdir -p /a/b && touch /a/b/c && rm /bin/ls\n",
        &["a/ 755 0:0", "a/b/ 755 0:0", "a/b/c 644 0:0 ", "bin/ 755 0:0", "bin/.wh.ls 644 0:0 "],
    );
    makes("RUN true\n", &[]);
    makes("RUN [\"/bin/ln\", \"-s\", \"x\", \"/l\"]\n", &["l 777 0:0 -> x"]);
}

#[test]
fn a_command_sees_environment_arguments_user_and_directory() {
    outputs("ARG V=1\nENV E=2\nRUN echo $V $E $HOME\n", "1 2 /root\n");
    outputs(
        "USER web\nWORKDIR /srv/x\nRUN id; pwd\n",
        "uid=33(web) gid=34(web) groups=34(web),50(logs)\n/srv/x\n",
    );
    outputs("RUN id -u; hostname\n", "0\nbuild\n");
    outputs("RUN <<EOF\necho one\necho two\nEOF\n", "one\ntwo\n");
    outputs("SHELL [\"/bin/sh\", \"-xc\"]\nRUN true\n", "+ true\n");
}

#[test]
fn a_command_that_fails_stops_the_build_and_says_how() {
    let Some(scene) = scene() else { return };
    let error = scene.refused(&format!("{BASE}RUN echo why >&2; exit 3\n"));
    assert_eq!(
        error,
        "Dockerfile:3:1: RUN echo why >&2; exit 3: the command ended with exit code 3"
    );
    assert_eq!(scene.heard.output(), "why\n");
    let error = scene.refused(&format!("{BASE}RUN [\"/no/such/program\"]\n"));
    assert!(
        error.ends_with("the image has no program `/no/such/program`; copy or install it first"),
        "{error}"
    );
    let error = scene.refused("FROM scratch\nRUN true\n");
    assert!(error.contains("no program `/bin/sh`") && error.contains("needs no shell"), "{error}");
    scene.build(&format!("{BASE}RUN true\n"));
}

#[test]
fn a_second_build_runs_no_command() {
    let Some(scene) = scene() else { return };
    let text = format!("{BASE}RUN echo $RANDOM > /x\nRUN cat /x\n");
    let first = scene.build(&text);
    let second = scene.build(&text);
    assert_eq!((first.steps_run, second.steps_run), (3, 0));
    assert_eq!(first.digest, second.digest);
}

#[test]
fn an_argument_changes_the_steps_that_can_see_it_and_a_proxy_none() {
    let Some(scene) = scene() else { return };
    let text = format!("{BASE}RUN echo before\nARG V\nRUN echo $V $http_proxy\n");
    scene.build(&text);
    let mut request = scene.request(&text);
    request.args.insert("V".to_owned(), "other".to_owned());
    request.args.insert("http_proxy".to_owned(), "http://p".to_owned());
    let second = scene.try_build(&request).expect("builds");
    assert_eq!((second.steps_cached, second.steps_run), (2, 1));
    assert!(scene.heard.output().ends_with("other http://p\n"));
    request.args.insert("http_proxy".to_owned(), "http://q".to_owned());
    assert_eq!(scene.try_build(&request).expect("builds").steps_run, 0);
}

#[test]
fn the_same_commands_make_the_same_image_elsewhere() {
    let (Some(one), Some(two)) = (scene(), scene()) else { return };
    let text = format!("{BASE}RUN mkdir /d && echo x > /d/f && touch /d/g && ln /d/f /d/h\n");
    assert_eq!(one.build(&text).digest, two.build(&text).digest);
}

#[test]
fn a_command_has_a_network_none_or_ours() {
    let Some(scene) = scene() else { return };
    let with = |network| {
        // The step shows its network, so it must not be taken from the cache.
        let request = BuildRequest {
            network,
            no_cache: true,
            ..scene.request(&format!("{BASE}RUN ip -o link show eth0 2>&1; ip route\n"))
        };
        let before = scene.heard.output().len();
        scene.try_build(&request).unwrap_or_else(|error| panic!("{}", support::chain(&error)));
        scene.heard.output().get(before..).unwrap_or_default().to_owned()
    };
    let own = with(RunNetwork::Default);
    assert!(own.contains("eth0") && own.contains("default via 10.88."), "{own}");
    let none = with(RunNetwork::None);
    assert!(none.contains("can't find device") && !none.contains("default"), "{none}");
    with(RunNetwork::Host);
    let left = std::process::Command::new("ip").args(["-o", "link"]).output().expect("ip runs");
    let left = String::from_utf8_lossy(&left.stdout).into_owned();
    let id = format!("{}-", std::process::id());
    assert!(!left.contains(&id), "{left}");
}

#[test]
fn a_command_is_confined() {
    let Some(scene) = scene() else { return };
    let error = scene.refused(&format!("{BASE}RUN mount -t tmpfs x /tmp\n"));
    assert!(error.contains("exit code"), "{error}");
    outputs(
        "RUN cat /etc/resolv.conf > /tmp/r; ls /dev | head -1 >/dev/null 2>&1; echo ok\n",
        "ok\n",
    );
}

#[test]
fn an_interrupted_build_ends_its_command_and_takes_everything_down() {
    let Some(scene) = scene() else { return };
    let builder = scene.builder();
    let interrupter = builder.interrupter();
    let request = scene.request(&format!("{BASE}RUN echo started; sleep 1000\n"));
    // The command's first output is the event to wait for.
    let stopper = Stopper { interrupter, heard: &scene.heard };
    let error = builder.build(&request, &stopper).expect_err("is interrupted");
    assert!(support::chain(&error).ends_with("the build was interrupted"), "{error}");
    assert_eq!(scene.live_workspaces(), 0);
    scene.build(&format!("{BASE}RUN true\n"));
}

struct Stopper<'a> {
    interrupter: carrack_build::Interrupter,
    heard: &'a support::Heard,
}

impl carrack_build::Progress for Stopper<'_> {
    fn event(&self, event: carrack_build::BuildEvent) {
        if matches!(event, carrack_build::BuildEvent::StepOutput { .. }) {
            self.interrupter.interrupt();
        }
        carrack_build::Progress::event(self.heard, event);
    }
}
