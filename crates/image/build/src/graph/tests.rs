use super::*;
use crate::frontend::dockerfile::{Problem, parse};

struct Asked {
    arguments: BTreeMap<String, String>,
    target: Option<&'static str>,
    contexts: BTreeMap<String, ContextKind>,
    platform: Platform,
}

fn nothing() -> Asked {
    Asked {
        arguments: BTreeMap::new(),
        target: None,
        contexts: BTreeMap::new(),
        platform: "linux/amd64".parse().expect("a platform"),
    }
}

fn with_arguments(arguments: &[(&str, &str)]) -> Asked {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Asked { arguments: arguments.iter().map(owned).collect(), ..nothing() }
}

impl Asked {
    fn plan(&self, text: &str, base: &ExecutionConfig) -> Result<Graph, Vec<Problem>> {
        let dockerfile = parse(text, "Dockerfile")?;
        let inputs = Inputs {
            arguments: &self.arguments,
            target: self.target,
            platform: &self.platform,
            contexts: &self.contexts,
        };
        let outline = outline(&dockerfile, &inputs)?;
        let configs = outline.origins().into_iter().map(|o| (o.clone(), base.clone())).collect();
        plan(&outline, &configs)
    }

    #[track_caller]
    fn target(&self, text: &str) -> PlannedStage {
        let graph = match self.plan(text, &ExecutionConfig::default()) {
            Ok(graph) => graph,
            Err(problems) => panic!("{problems:?}"),
        };
        graph.stages.last().expect("a stage").clone()
    }

    #[track_caller]
    fn problems(&self, text: &str, expected: &[&str]) {
        let problems = match self.plan(text, &ExecutionConfig::default()) {
            Ok(graph) => panic!("was planned: {graph:?}"),
            Err(problems) => problems,
        };
        let problems: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(problems, expected);
    }
}

fn run(stage: &PlannedStage) -> &RunStep {
    let mut steps = stage.steps.iter().filter_map(|step| match &step.action {
        Action::Run(run) => Some(run),
        _ => None,
    });
    steps.next_back().expect("a RUN")
}

fn copy(stage: &PlannedStage) -> &CopyStep {
    let mut steps = stage.steps.iter().filter_map(|step| match &step.action {
        Action::Copy(copy) => Some(copy),
        _ => None,
    });
    steps.next_back().expect("a COPY")
}

#[test]
fn arguments_reach_from_and_the_stages_that_ask_for_them() {
    let text = "ARG TAG=1\nARG OTHER=x$TAG\nFROM base:$OTHER\nARG TAG\nARG NONE\nRUN true\n";
    let stage = nothing().target(text);
    assert_eq!(stage.origin, Origin::Image("base:x1".parse().expect("a name")));
    let env = &run(&stage).env;
    assert!(env.contains(&"TAG=1".to_owned()), "{env:?}");
    assert!(!env.iter().any(|entry| entry.starts_with("NONE") || entry.starts_with("OTHER")));
    let stage = with_arguments(&[("TAG", "2")]).target(text);
    assert_eq!(stage.origin, Origin::Image("base:x2".parse().expect("a name")));
}

#[test]
fn an_argument_is_seen_by_run_and_is_not_in_the_image() {
    let stage =
        with_arguments(&[("A", "given")]).target("FROM scratch\nARG A=b\nENV B=$A\nRUN x\n");
    assert_eq!(stage.config.variable("A"), None);
    assert_eq!(stage.config.variable("B"), Some("given"));
    assert!(run(&stage).env.contains(&"A=given".to_owned()));
}

#[test]
fn a_proxy_setting_needs_no_arg_and_is_kept_apart() {
    let asked = with_arguments(&[("HTTP_PROXY", "http://p"), ("STRAY", "1")]);
    let graph = asked.plan("FROM scratch\nRUN x\n", &ExecutionConfig::default()).expect("plans");
    let step = run(graph.stages.last().expect("a stage"));
    assert_eq!(step.proxies, ["HTTP_PROXY=http://p"]);
    assert!(!step.env.iter().any(|entry| entry.contains("PROXY")));
    assert_eq!(graph.unused_arguments, ["STRAY"]);
}

#[test]
fn pairs_of_one_env_do_not_see_each_other() {
    let stage = nothing().target("FROM scratch\nENV a=1\nENV a=2 b=$a\nENV c=$b$a\n");
    assert_eq!(stage.config.variable("b"), Some("1"));
    assert_eq!(stage.config.variable("c"), Some("12"));
}

#[test]
fn the_environment_of_the_base_takes_part() {
    let base = ExecutionConfig {
        env: vec!["PATH=/bin".to_owned(), "HOME_OF=/srv".to_owned()],
        cmd: vec!["old".to_owned()],
        working_dir: "/base".to_owned(),
        ..ExecutionConfig::default()
    };
    let text = "FROM base\nWORKDIR $HOME_OF\nWORKDIR app\nENTRYPOINT [\"/x\"]\n";
    let graph = nothing().plan(text, &base).expect("plans");
    let config = &graph.stages.last().expect("a stage").config;
    assert_eq!(config.working_dir, "/srv/app");
    assert_eq!(config.entrypoint, ["/x"]);
    assert!(config.cmd.is_empty(), "an ENTRYPOINT clears the base's CMD");
    assert_eq!(config.env, base.env);
}

#[test]
fn a_command_of_this_stage_survives_its_entrypoint() {
    let stage = nothing().target("FROM scratch\nCMD echo a\nENTRYPOINT [\"/x\"]\n");
    assert_eq!(stage.config.cmd, ["/bin/sh", "-c", "echo a"]);
    let stage = nothing().target("FROM scratch\nSHELL [\"/bin/bash\", \"-ec\"]\nCMD a\nRUN b\n");
    assert_eq!(stage.config.cmd, ["/bin/bash", "-ec", "a"]);
    assert_eq!(run(&stage).args, ["/bin/bash", "-ec", "b"]);
}

#[test]
fn a_stage_nobody_needs_is_left_out() {
    let text = "FROM missing/image AS unused\nRUN $(\nFROM scratch AS a\nCOPY x /\n\
                FROM scratch AS b\nCOPY --from=a /x /y\nFROM scratch\nCOPY --from=1 / /\n";
    let indexes = |asked: &Asked| {
        let graph = asked.plan(text, &ExecutionConfig::default()).expect("plans");
        graph.stages.iter().map(|stage| stage.index).collect::<Vec<_>>()
    };
    assert_eq!(indexes(&nothing()), [1, 3]);
    assert_eq!(indexes(&Asked { target: Some("b"), ..nothing() }), [1, 2]);
    assert_eq!(indexes(&Asked { target: Some("1"), ..nothing() }), [1]);
}

#[test]
fn a_stage_from_a_stage_inherits_its_arguments_and_config() {
    let text = "FROM scratch AS a\nARG V=1\nUSER me\nFROM a\nRUN x\nLABEL l=$V\n";
    let stage = nothing().target(text);
    assert_eq!(stage.origin, Origin::Stage(0));
    assert_eq!(stage.config.labels.get("l").map(String::as_str), Some("1"));
    assert_eq!(run(&stage).user, "me");
}

#[test]
fn destinations_are_taken_from_the_working_directory() {
    #[track_caller]
    fn check(instruction: &str, expected: &str) {
        let stage = nothing().target(&format!("FROM scratch\nWORKDIR /w\nCOPY {instruction}\n"));
        assert_eq!(copy(&stage).destination, expected, "{instruction}");
    }
    check("a b", "/w/b");
    check("a b/", "/w/b/");
    check("a .", "/w/");
    check("a ./", "/w/");
    check("a /x/../y", "/y");
    check("a /", "/");
    check("a ../..", "/");
}

#[test]
fn documents_expand_unless_their_name_was_quoted() {
    let text = "FROM scratch\nENV V=1\nCOPY <<a <<'b' /d/\n\"$V\" \\$V\na\n$V\nb\n";
    let stage = nothing().target(text);
    let documents = &copy(&stage).documents;
    let expected = [("a", "\"1\" $V\n"), ("b", "$V\n")];
    assert_eq!(*documents, expected.map(|(name, text)| (name.to_owned(), text.to_owned())));
}

#[test]
fn configuration_instructions_are_taken_over() {
    let stage = nothing().target(
        "FROM scratch\nEXPOSE 80 53/UDP 8000-8002\nVOLUME /a [\"/b\"]\nVOLUME [\"/c\"]\n\
         STOPSIGNAL SIGUSR1\nHEALTHCHECK --interval=5s --retries=3 CMD [\"/ok\"]\nLABEL a=b \"c d\"=e\n",
    );
    let ports: Vec<_> = stage.config.exposed_ports.iter().map(String::as_str).collect();
    assert_eq!(ports, ["53/udp", "80/tcp", "8000/tcp", "8001/tcp", "8002/tcp"]);
    assert!(stage.config.volumes.contains("/c"));
    assert_eq!(stage.config.stop_signal.as_deref(), Some("SIGUSR1"));
    let check = stage.config.healthcheck.expect("a check");
    assert_eq!((check.test, check.retries), (vec!["CMD".to_owned(), "/ok".to_owned()], 3));
    assert_eq!(stage.config.labels.get("c d").map(String::as_str), Some("e"));
}

#[test]
fn wrong_values_are_all_named_where_they_stand() {
    nothing().problems(
        "FROM scratch\nENV A=${X:?missing}\nEXPOSE 80 99999\nSTOPSIGNAL SIGNOPE\n\
         COPY --chmod=u+x a b\nCOPY a b c\nUSER $NOBODY\n",
        &[
            "Dockerfile:2:5: X: missing",
            "Dockerfile:3:11: `99999` is not a port, such as 80, 53/udp or 8000-8010",
            "Dockerfile:4:12: `SIGNOPE` is not a signal, such as SIGTERM or 15",
            "Dockerfile:5:6: --chmod takes an octal mode such as 755, not `u+x`",
            "Dockerfile:6:10: with more than one source `c` has to end with /",
            "Dockerfile:7:6: the user `$NOBODY` is empty",
        ],
    );
}

#[test]
fn names_that_mean_nothing_are_named_where_they_stand() {
    nothing().problems(
        "FROM --platform=linux/s390x base\nFROM $EMPTY\nFROM scratch AS me\nCOPY --from=me a b\n\
         COPY --from=7 a b\n",
        &[
            "Dockerfile:1:6: the platform `linux/s390x` is not supported; this machine is \
             linux/amd64",
            "Dockerfile:2:6: the base `$EMPTY` of this stage is empty",
            "Dockerfile:4:6: --from=me names this stage or a later one",
            "Dockerfile:5:6: --from=7 is not an earlier stage; this one is 2",
        ],
    );
    let asked = Asked { target: Some("none"), ..nothing() };
    asked.problems("FROM scratch\n", &["Dockerfile:1:1: there is no stage `none` to build"]);
}

#[test]
fn a_named_context_goes_before_an_image_of_that_name() {
    let contexts = BTreeMap::from([
        ("base".to_owned(), ContextKind::Image),
        ("files".to_owned(), ContextKind::Directory),
    ]);
    let asked = Asked { contexts, ..nothing() };
    let stage = asked.target("FROM base\nCOPY --from=files a b\n");
    assert_eq!(stage.origin, Origin::Context("base".to_owned()));
    assert_eq!(copy(&stage).from, Origin::Context("files".to_owned()));
    asked.problems(
        "FROM files\n",
        &["Dockerfile:1:6: the context `files` is a directory, which can be copied from but not \
           started from"],
    );
}
