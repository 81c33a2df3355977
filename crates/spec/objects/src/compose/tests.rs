//! Compose files in, applications or problems out.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::time::Duration;

use super::*;
use crate::mesh::AppProtocol;

fn environment() -> Environment {
    Environment {
        directory: "/srv/shop".into(),
        project: None,
        variables: [("TAG", "3.20"), ("HOME", "/home/me"), ("SECRET", "s")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into(),
    }
}

#[track_caller]
fn application_of(text: &str) -> Application {
    match parse(text, "compose.yaml", &environment()) {
        Ok(application) => application,
        Err(problems) => panic!("{}", lines(&problems).join("\n")),
    }
}

/// The service `web` whose fields are `fields`.
#[track_caller]
fn web(fields: &str) -> Service {
    let text = format!("services:\n  web:\n    image: i\n{}", indented(fields));
    application_of(&text).services.swap_remove("web").expect("web is there")
}

fn indented(fields: &str) -> String {
    fields.lines().map(|line| format!("    {line}\n")).collect()
}

fn lines(problems: &[Problem]) -> Vec<String> {
    problems.iter().map(ToString::to_string).collect()
}

#[track_caller]
fn refused(text: &str, expected: &[&str]) {
    let problems = parse(text, "compose.yaml", &environment()).expect_err("is refused");
    assert_eq!(lines(&problems), expected);
}

/// The messages, without place, about a service `web` with `fields`.
#[track_caller]
fn refused_in_web(fields: &str, expected: &[&str]) {
    let text = format!("services:\n  web:\n    image: i\n{}", indented(fields));
    let problems = parse(&text, "compose.yaml", &environment()).expect_err("is refused");
    let messages: Vec<_> = problems.iter().map(|problem| problem.message.as_str()).collect();
    assert_eq!(messages, expected);
}

#[test]
fn the_shop_is_understood() {
    let text = include_str!("../../../../../examples/shop/compose.yaml");
    let shop = application_of(text);
    assert_eq!(shop.name, "shop");
    let names: Vec<_> = shop.services.keys().collect();
    assert_eq!(names, ["store", "api", "edge", "client"]);
    let edge = &shop.services["edge"];
    assert_eq!(edge.ports[0].host, Ipv4Addr::LOCALHOST);
    assert_eq!(edge.protocols(), [(8080, AppProtocol::Http)].into());
    assert_eq!(shop.services["api"].replicas, 2);
    assert_eq!(shop.volumes["store-data"].name, "shop_store-data");
    let build = shop.services["store"].build.as_ref().expect("is built");
    assert_eq!(build.dockerfile, PathBuf::from("/srv/shop/store/Dockerfile"));
    assert_eq!(
        build.additional_contexts["redis"],
        AdditionalContext::Recipe("/srv/shop/images/redis.yaml".into())
    );
}

#[test]
fn an_application_crosses_a_socket_unchanged() {
    let shop = application_of(include_str!("../../../../../examples/shop/compose.yaml"));
    let json = serde_json::to_string(&shop).expect("writes");
    assert_eq!(serde_json::from_str::<Application>(&json).expect("reads"), shop);
}

#[test]
fn every_problem_is_reported_at_once_and_in_order() {
    refused(
        "services:\n  web:\n    image: i\n    gpus: all\n    comand: x\n    mem_limit: lots\n  two:\n    cpus: 1\n    logging: {driver: none}\n",
        &[
            "compose.yaml:4:5: `services.web.gpus` is not supported yet",
            "compose.yaml:5:5: `services.web.comand` is not a field of the Compose specification; did you mean `command`?",
            "compose.yaml:6:16: `services.web.mem_limit` takes a size such as `128m`, not `lots`",
            "compose.yaml:8:5: `services.two` has neither `image` nor `build`",
            "compose.yaml:9:5: `services.two.logging` is not supported yet: logs are kept by the engine with a bound on their size",
        ],
    );
}

#[test]
fn fields_that_begin_with_x_and_fields_that_mean_nothing_here_are_accepted() {
    application_of(
        "version: '3'\nx-common: {a: 1}\nservices:\n  web:\n    image: i\n    x-note: y\n    develop: {watch: []}\n    privileged: false\n    deploy: {mode: replicated, x-a: 1}\n",
    );
}

#[test]
fn a_field_accepted_with_one_value_is_refused_with_another() {
    refused_in_web(
        "privileged: true\nnetwork_mode: host\ntty: true",
        &[
            "`services.web.privileged` is not supported yet but as `false`: use `cap_add`",
            "`services.web.network_mode` is not supported yet: every container is in the mesh",
            "`services.web.tty` is not supported yet but as `false`: use `carrack run -t`",
        ],
    );
}

#[test]
fn variables_are_replaced_and_those_nobody_set_are_told() {
    let text = "services:\n  web:\n    image: alpine:${TAG}\n    command: echo $$HOME ${NOPE}\n    environment:\n      - SECRET\n      - GONE\n      - A=${NOPE:-b}\n";
    let application = application_of(text);
    let web = &application.services["web"];
    assert_eq!(web.image.as_deref(), Some("alpine:3.20"));
    assert_eq!(web.command.as_deref(), Some(&["echo".to_owned(), "$HOME".to_owned()][..]));
    let environment: Vec<_> =
        web.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(environment, [("SECRET", "s"), ("A", "b")]);
    assert_eq!(
        lines(&application.warnings),
        ["compose.yaml:4:14: the variable `NOPE` is not set; it becomes nothing"]
    );
}

#[test]
fn a_merged_anchor_gives_fields_to_a_service() {
    let text = "x-base: &base\n  image: i\n  restart: always\nservices:\n  web:\n    <<: *base\n    restart: on-failure:3\n  two: *base\n";
    let application = application_of(text);
    let restart = |name: &str| application.services[name].restart;
    assert_eq!(restart("web"), Restart::OnFailure { max_retries: Some(3) });
    assert_eq!(restart("two"), Restart::Always);
}

#[test]
fn a_port_is_on_loopback_unless_an_address_is_given() {
    let ports: Vec<_> = web(
        "ports:\n  - 80\n  - 8080:80\n  - 0.0.0.0:81:81\n  - '[::1]:82:82'\n  - 9000-9001:90-91\n  - 127.0.0.2::83\n  - {target: 84, published: '8084', host_ip: 10.0.0.1, app_protocol: grpc}",
    )
    .ports
    .iter()
    .map(|p| {
        let host_port = p.host_port.map_or("?".to_owned(), |port| port.to_string());
        let protocol = p.protocol.map_or("", AppProtocol::as_str);
        format!("{} {host_port} {} {protocol}", p.host, p.container_port)
    })
    .collect();
    assert_eq!(
        ports,
        [
            "127.0.0.1 ? 80 ",
            "127.0.0.1 8080 80 ",
            "0.0.0.0 81 81 ",
            "::1 82 82 ",
            "127.0.0.1 9000 90 ",
            "127.0.0.1 9001 91 ",
            "127.0.0.2 ? 83 ",
            "10.0.0.1 8084 84 http2",
        ]
    );
}

#[test]
fn a_port_that_is_not_tcp_or_makes_no_sense_is_refused() {
    refused_in_web(
        "ports: [53:53/udp, ':80', 0, '1-3:1-2', 'here:1:1']",
        &[
            "`services.web.ports[0]` is udp, which is not supported yet: the mesh carries TCP",
            "`services.web.ports[1]` takes `[[ADDRESS:]HOST:]CONTAINER`, such as `8080:80`, not `:80`",
            "`services.web.ports[2]` takes `[[ADDRESS:]HOST:]CONTAINER`, such as `8080:80`, not `0`",
            "`services.web.ports[3]` pairs ranges of different length, which is not supported yet",
            "`services.web.ports[4]` names `here`, which is no IP address",
        ],
    );
}

#[test]
fn one_host_port_serves_one_service() {
    refused(
        "services:\n  a:\n    image: i\n    ports: ['80:80']\n  b:\n    image: i\n    ports: ['0.0.0.0:80:81']\n",
        &["compose.yaml:7:5: host port 80 of `b` is already that of `a`"],
    );
}

#[test]
fn mounts_are_written_out() {
    let text = "services:\n  web:\n    image: i\n    volumes:\n      - ./html:/html:ro\n      - ~/x:/x\n      - data:/data\n      - /cache\n      - {type: bind, source: ../up, target: /up, bind: {create_host_path: false}}\n      - {type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0o1777}}\n    tmpfs: ['/run:size=64k,mode=700', /tmp]\nvolumes: {data: {external: true}}\n";
    let application = application_of(text);
    let mounts: Vec<_> = application.services["web"]
        .mounts
        .iter()
        .map(|m| format!("{} {} {:?}", m.target, m.read_only, m.kind))
        .collect();
    assert_eq!(
        mounts,
        [
            r#"/html true Bind { source: "/srv/shop/html", create: true }"#,
            r#"/x false Bind { source: "/home/me/x", create: true }"#,
            r#"/data false Volume { name: Some("data"), nocopy: false }"#,
            "/cache false Volume { name: None, nocopy: false }",
            r#"/up false Bind { source: "/srv/up", create: false }"#,
            "/t false Tmpfs { size: Some(1048576), mode: Some(1023) }",
            "/run false Tmpfs { size: Some(65536), mode: Some(448) }",
            "/tmp false Tmpfs { size: None, mode: None }",
        ]
    );
    assert_eq!(application.volumes["data"].name, "data");
}

#[test]
fn a_mount_that_leaves_its_place_is_refused() {
    refused_in_web(
        "volumes: ['a:/x/../../etc', 'rel:rel', './a:/b', './c:/b/']",
        &[
            "`services.web.volumes[0]` takes an absolute path without `..`, not `/x/../../etc`",
            "`services.web.volumes[1]` takes an absolute path without `..`, not `rel`",
            "`services.web.volumes[3]` mounts on `/b/` a second time",
        ],
    );
}

#[test]
fn names_that_lead_nowhere_and_circles_are_reported() {
    refused(
        "services:\n  a:\n    image: i\n    depends_on: [b, nobody]\n  b:\n    image: i\n    depends_on: {a: {condition: service_healthy}}\n    volumes: ['data:/d']\n    build:\n      additional_contexts: {x: 'service:a'}\n",
        &[
            "compose.yaml:4:5: `depends_on` goes in a circle: a → b → a",
            "compose.yaml:4:5: `services.a.depends_on` names `nobody`, which is no service here",
            "compose.yaml:8:5: `services.b.volumes` names the volume `data`, which is not under `volumes`; write `./data` for a directory",
            "compose.yaml:9:5: `services.b.build.additional_contexts` names `service:a`, which is no service here that is built",
        ],
    );
}

#[test]
fn limits_may_stand_in_two_places_but_not_in_both() {
    let service = web("deploy:\n  resources:\n    limits: {cpus: '0.25', memory: 1g, pids: 5}");
    assert_eq!(service.nano_cpus, Some(250_000_000));
    assert_eq!(service.mem_limit, Some(1 << 30));
    assert_eq!(service.pids_limit, Some(PidsLimit::AtMost(5)));
    refused_in_web(
        "mem_limit: 1m\ndeploy: {resources: {limits: {memory: 2m}}}",
        &[
            "`services.web.deploy.resources.limits.memory` and `services.web.mem_limit` exclude each other",
        ],
    );
}

#[test]
fn a_health_check_is_understood_in_its_three_forms() {
    let test = |test: &str| {
        let service =
            web(&format!("healthcheck:\n  test: {test}\n  interval: 1m30s\n  retries: 2"));
        let healthcheck = service.healthcheck.expect("is there");
        assert_eq!(healthcheck.interval, Some(Duration::from_secs(90)));
        healthcheck.test.expect("is there")
    };
    assert_eq!(test("[CMD, a, b]"), HealthTest::Exec(vec!["a".into(), "b".into()]));
    assert_eq!(test("[CMD-SHELL, a b]"), HealthTest::Shell("a b".into()));
    assert_eq!(test("a b"), HealthTest::Shell("a b".into()));
    assert_eq!(test("[NONE]"), HealthTest::Disabled);
}

#[test]
fn words_of_a_closed_list_are_checked() {
    refused_in_web(
        "restart: sometimes\ncap_add: [FLY]\nstop_signal: SIGNOPE\nsecurity_opt: ['seccomp:./own.json']\nstop_grace_period: 10\nnetworks: [other]",
        &[
            "`services.web.restart` takes `no`, `always`, `on-failure[:TIMES]` or `unless-stopped`, not `sometimes`",
            "`services.web.cap_add` names `FLY`, which is no capability",
            "`services.web.stop_signal` takes a signal such as `SIGTERM`, not `SIGNOPE`",
            "`services.web.security_opt` holds `seccomp:./own.json`, which is not supported yet",
            "`services.web.stop_grace_period` takes a duration such as `1m30s`, not `10`",
            "`services.web.networks[0]` names the network `other`, which is not supported yet: a project has one network, `default`",
        ],
    );
}

#[test]
fn a_service_may_not_take_the_name_of_the_doors_or_one_that_is_no_host_name() {
    refused(
        "services:\n  carrack-ingress: {image: i}\n  a.b: {image: i}\n",
        &[
            "compose.yaml:2:3: the service name `carrack-ingress` is that of the project's own doors",
            "compose.yaml:3:3: the service name `a.b` takes up to 63 letters, digits, `-` and `_`, first and last a letter or digit",
        ],
    );
}

#[test]
fn the_project_is_named_from_outside_or_by_the_file_or_by_its_directory() {
    let named = |text: &str, project: Option<&str>| {
        let environment = Environment {
            directory: "/srv/My Shop.d".into(),
            project: project.map(str::to_owned),
            ..Environment::default()
        };
        parse(text, "f", &environment).map(|application| application.name)
    };
    let services = "services: {a: {image: i}}";
    assert_eq!(named(services, None), Ok("myshopd".to_owned()));
    assert_eq!(named(&format!("name: file\n{services}"), None), Ok("file".to_owned()));
    assert_eq!(named(&format!("name: file\n{services}"), Some("out")), Ok("out".to_owned()));
    assert!(named(&format!("name: ../up\n{services}"), None).is_err());
    assert!(named(services, Some("a/b")).is_err());
}

#[test]
fn env_files_stand_under_the_environment() {
    let application = application_of(
        "services:\n  web:\n    image: i\n    env_file: [a.env, {path: b.env, required: false}, {path: c.env, format: raw}]\n    environment: {A: own}\n",
    );
    let read = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        Some("a.env") => Ok("A=file\nB=1\n".to_owned()),
        Some("c.env") => Ok("C='x'\n".to_owned()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    };
    let application = application.read_env_files(&BTreeMap::new(), read).expect("reads");
    let web = &application.services["web"];
    let environment: Vec<_> =
        web.environment.iter().map(|(k, v)| (k.as_str(), v.as_str())).collect();
    assert_eq!(environment, [("A", "own"), ("B", "1"), ("C", "'x'")]);
    assert!(web.env_files.is_empty());
}

#[test]
fn an_env_file_that_is_required_and_missing_is_a_problem() {
    let application = application_of("services:\n  web:\n    image: i\n    env_file: a.env\n");
    let problems = application
        .read_env_files(&BTreeMap::new(), |_| Err(io::ErrorKind::NotFound.into()))
        .expect_err("is refused");
    assert_eq!(lines(&problems), ["/srv/shop/a.env:1:1: cannot be read: entity not found"]);
}

#[test]
fn what_is_no_compose_file_is_refused_in_one_line() {
    refused("", &["compose.yaml:1:1: holds no services"]);
    refused("- a\n", &["compose.yaml:1:1: is not a mapping with `services`"]);
    refused(
        "services: {}\n",
        &["compose.yaml:1:11: `services` takes a mapping with at least one service"],
    );
    refused("a: 1\n---\nb: 2\n", &["compose.yaml:1:1: holds more than one YAML document"]);
}

#[test]
fn a_problem_brings_along_the_variable_that_caused_it() {
    refused(
        "services:\n  web:\n    image: i\n    mem_limit: ${LIMIT}\n    user: ${NOBODY}\n",
        &[
            "compose.yaml:4:16: `services.web.mem_limit` takes a size such as `128m`, not ``",
            "compose.yaml:4:16: the variable `LIMIT` is not set; it becomes nothing",
        ],
    );
}

#[test]
fn an_image_name_that_is_none_is_refused() {
    let text = "services:\n  web:\n    image: 'Not A Name'\n";
    let problems = parse(text, "compose.yaml", &environment()).expect_err("is refused");
    assert_eq!(problems.len(), 1);
    assert!(problems[0].message.starts_with("`services.web.image` is no image name"));
}

/// Bytes drawn from a seed, so that a case that failed can be drawn again.
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound).expect("fits")).expect("fits")
    }
}

#[test]
fn a_file_that_was_damaged_is_understood_or_refused_but_never_a_panic() {
    let shop = include_str!("../../../../../examples/shop/compose.yaml");
    let pieces = [
        "&a ", "*a", "<<: ", "${", "}", "- ", ": ", "[", "]", "{", "'", "\"", "\n  ", "!x ", "~",
        "|\n", "é", "0", "-1", "$",
    ];
    for seed in 1..1500 {
        let mut draw = Draw(seed * 0x9e37_79b9);
        let mut text: Vec<char> = shop.chars().collect();
        for _ in 0..=draw.below(6) {
            let at = draw.below(text.len());
            let end = (at + draw.below(12)).min(text.len());
            let piece = pieces[draw.below(pieces.len())].chars();
            text.splice(at..end, piece);
        }
        let text: String = text.into_iter().collect();
        if let Err(problems) = parse(&text, "compose.yaml", &environment()) {
            assert!(!problems.is_empty(), "seed {seed}: refused without a reason");
        }
    }
}
