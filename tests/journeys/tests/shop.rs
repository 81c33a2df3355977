//! The shop, from an empty machine to `down`: one fixture, many sentences.

mod bridge;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::time::{Duration, Instant};

use carrack_testkit::{Journey, Machine, eventually, http_get};
use serde_json::Value;

const SECOND: Duration = Duration::from_secs(1);

struct Shop {
    machine: Machine,
    directory: String,
    edge: SocketAddr,
}

impl Shop {
    fn new() -> Self {
        let machine = Machine::new();
        let directory = machine.files().join("shop");
        copy_tree(&example(), &directory);
        let port = machine.page_port() + 1000;
        let compose = directory.join("compose.yaml");
        let text = fs::read_to_string(&compose).expect("a compose file");
        let text = text.replace("published: 8080", &format!("published: {port}"));
        fs::write(&compose, text).expect("a compose file");
        let directory = directory.to_str().expect("a plain path").to_owned();
        Self { machine, directory, edge: SocketAddr::from(([127, 0, 0, 1], port)) }
    }

    fn containers(&self) -> Vec<Value> {
        let listed = self.machine.json(&["ps", "-a", "-p", "shop", "--format", "json"]);
        listed.as_array().expect("a list").clone()
    }

    fn container(&self, service: &str) -> Value {
        let all = self.containers();
        all.into_iter().find(|one| one["service"] == service).expect("a container of the service")
    }

    fn inspect(&self, name: &str) -> Value {
        self.machine.json(&["inspect", name])[0].clone()
    }

    /// A request through all four, which must be answered.
    #[track_caller]
    fn visit(&self) -> u64 {
        let (status, answer) = http_get(self.edge, "/").expect("the edge answers");
        assert_eq!(status, 200, "{answer}");
        let body = answer.rsplit("\r\n\r\n").next().expect("a body");
        let body: Value = serde_json::from_str(body.trim()).expect("JSON");
        body["visits"].as_u64().expect("a count kept by the store")
    }

    fn can_visit(&self) -> bool {
        http_get(self.edge, "/").is_ok_and(|(status, _)| status == 200)
    }

    fn apply(&self, name: &str, policy: &str) {
        let file = self.machine.files().join(name);
        fs::write(&file, policy).expect("a file");
        let file = file.to_str().expect("a plain path").to_owned();
        self.machine.carrack(&["apply", "-p", "shop", "-f", &file]).expect_ok();
    }
}

fn main() -> ExitCode {
    let mut journey = Journey::default();
    let shop = Shop::new();
    comes_up(&mut journey, &shop);
    connects(&mut journey, &shop);
    authorizes(&mut journey, &shop);
    looks(&mut journey, &shop);
    survives(&mut journey, &shop);
    goes_down(&mut journey, &shop);
    if journey.has_failed() {
        show_logs(&shop.machine);
    }
    drop(shop);
    journey.end()
}

fn comes_up(journey: &mut Journey, shop: &Shop) {
    journey.required(
        "up builds, starts and connects the shop, and prints the page's address",
        || {
            let ran = shop.machine.carrack(&["up", "-d", "--wait", &shop.directory]);
            let page = format!("http://127.0.0.1:{}/", shop.machine.page_port());
            assert!(ran.stdout.contains(&page) || ran.stderr.contains(&page), "{ran:?}");
            ran.expect_ok();
        },
    );
    journey.required("a request through the edge is answered with the store's data", || {
        let first = shop.visit();
        assert!(shop.visit() > first);
    });
    journey.step("a second up runs no build step and keeps every container", || {
        let before = ids(&shop.containers());
        let said = shop.machine.carrack(&["up", "-d", &shop.directory]);
        assert_eq!(said.stderr.matches(": unchanged").count(), 4, "{}", said.stderr);
        said.expect_ok();
        assert_eq!(ids(&shop.containers()), before);
    });
    journey.step("an image of packages is the same digest from an empty cache", || {
        let listed = shop.machine.json(&["images", "--format", "json"]);
        let digest_of = |listed: &Value, name: &str| {
            let images = listed.as_array().expect("a list").clone();
            let image = images
                .into_iter()
                .find(|image| image["name"].as_str().unwrap_or("").contains(name));
            image.expect("the image is listed")["digest"].clone()
        };
        let other = Machine::new();
        let recipe = format!("{}/images/python.yaml", shop.directory);
        other.carrack(&["build", "-t", "python:check", &recipe]).expect_ok();
        shop.machine.carrack(&["build", "-t", "python:check", &recipe]).expect_ok();
        let listed_here = shop.machine.json(&["images", "--format", "json"]);
        let listed_there = other.json(&["images", "--format", "json"]);
        assert_eq!(
            digest_of(&listed_here, "python:check"),
            digest_of(&listed_there, "python:check")
        );
        assert!(listed.as_array().is_some_and(|images| images.len() >= 4));
    });
    journey.step("skopeo reads what save writes", || {
        let archive = shop.machine.files().join("api.tar");
        let archive = archive.to_str().expect("a plain path");
        let image = shop.container("api")["image"].as_str().expect("a name").to_owned();
        shop.machine.carrack(&["save", "-o", archive, &image]).expect_ok();
        let read = run("skopeo", &["inspect", "--config", &format!("oci-archive:{archive}")]);
        assert!(read.contains("/app/api.py"), "{read}");
    });
}

fn connects(journey: &mut Journey, shop: &Shop) {
    journey.step(
        "a capture of the bridge during traffic contains none of the payload in clear",
        || {
            let captured = bridge::capture(&bridge_of(shop), || {
                for _ in 0..20 {
                    run(
                        "curl",
                        &["-sS", "-d", "payload-in-clear", &format!("http://{}/cart", shop.edge)],
                    );
                }
            });
            assert!(
                captured.len() > 10_000,
                "traffic crossed the bridge: {} bytes",
                captured.len()
            );
            for secret in ["payload-in-clear", "served_by", "RPUSH", "GET /"] {
                let seen = captured.windows(secret.len()).any(|window| window == secret.as_bytes());
                assert!(!seen, "`{secret}` crossed the bridge in clear");
            }
        },
    );
    journey.step("a client outside the mesh is refused, in plaintext and over TLS", || {
        let api = shop.container("api")["address"].as_str().expect("an address").to_owned();
        let outsider = bridge::Outsider::join(&bridge_of(shop), &api);
        let plain =
            outsider.run("curl", &["-sS", "-m", "5", &format!("http://{api}:8000/healthz")]);
        assert!(!plain.status.success(), "plaintext was answered: {plain:?}");
        assert!(!String::from_utf8_lossy(&plain.stdout).contains("ok"));
        let tls = outsider.run("curl", &["-sSk", "-m", "5", &format!("https://{api}:15008/")]);
        assert!(!tls.status.success(), "TLS without a certificate was answered: {tls:?}");
    });
    journey.step("a container proves its SPIFFE identity to its peers", || {
        let api = shop.container("api")["address"].as_str().expect("an address").to_owned();
        let outsider = bridge::Outsider::join(&bridge_of(shop), &api);
        let script = format!(
            "openssl s_client -connect {api}:15008 -alpn h2 </dev/null 2>/dev/null | \
             openssl x509 -noout -ext subjectAltName -checkend 86400; true"
        );
        let said = outsider.run("sh", &["-c", &script]);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        assert!(said.contains("URI:spiffe://carrack.internal/ns/shop/sa/api"), "{said}");
        assert!(said.contains("will expire"), "at most 24 hours: {said}");
    });
    journey.step("published ports listen on loopback only", || {
        let listening = run("ss", &["-Hltn", &format!("sport = :{}", shop.edge.port())]);
        assert!(listening.contains("127.0.0.1:") && listening.lines().count() == 1, "{listening}");
    });
}

fn authorizes(journey: &mut Journey, shop: &Shop) {
    journey.step("a DENY policy takes effect on the next request, and why names it", || {
        shop.visit();
        shop.apply("deny.yaml", DENY_POSTS);
        let url = format!("http://{}/cart", shop.edge);
        let answer = run("curl", &["-sS", "-i", "-d", "tea", &url]);
        assert!(answer.starts_with("HTTP/1.1 403"), "{answer}");
        shop.visit();
        let id = answer
            .lines()
            .find_map(|line| line.strip_prefix("x-carrack-decision: "))
            .unwrap_or_else(|| panic!("the refusal carries an id: {answer}"));
        let why = shop.machine.carrack(&["why", id.trim()]).expect_ok();
        for part in ["no-posts-to-the-edge", "deny.yaml", "POST"] {
            assert!(why.contains(part), "`{part}` in: {why}");
        }
        let line = DENY_POSTS.lines().position(|line| line.contains("POST")).expect("a line") + 1;
        assert!(why.contains(&format!("deny.yaml:{line}")), "line {line} in: {why}");
        let file = shop.machine.files().join("deny.yaml");
        shop.machine
            .carrack(&["delete", "-p", "shop", "-f", file.to_str().expect("plain")])
            .expect_ok();
        let answer = run("curl", &["-sS", "-i", "-d", "tea", &url]);
        assert!(answer.starts_with("HTTP/1.1 201"), "{answer}");
    });
    journey.step("a service that no policy allows is closed to, and why names the policy", || {
        let client = shop.container("client")["name"].as_str().expect("a name").to_owned();
        let script = "import socket; s = socket.create_connection(('store', 6379), 5); \
                      s.sendall(b'PING\\r\\n'); print('got', s.recv(64))";
        let said = shop.machine.carrack(&["exec", &client, "python3", "-c", script]);
        assert!(!said.stdout.contains("PONG"), "{said:?}");
        let refused = eventually("the refusal is on the page", 5 * SECOND, || {
            let (_, answer) = http_get(page(shop), "/api/records?limit=50&refused=true").ok()?;
            answer.contains("store-only-for-api").then_some(answer)
        });
        assert!(refused.contains("shop"), "{refused}");
    });
}

const DENY_POSTS: &str = "apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: no-posts-to-the-edge
spec:
  selector:
    matchLabels:
      app: edge
  action: DENY
  rules:
    - to:
        - operation:
            methods: [\"POST\"]
";

fn looks(journey: &mut Journey, shop: &Shop) {
    journey.step("ps, logs, exec and stats show what runs", || {
        let listed = shop.machine.carrack(&["ps"]).expect_ok();
        for name in ["shop-edge-1", "shop-api-1", "shop-api-2", "shop-store-1", "shop-client-1"] {
            assert!(listed.contains(name), "{listed}");
        }
        let said = shop
            .machine
            .carrack(&["exec", "shop-api-1", "python3", "-c", "print(6 * 7)"])
            .expect_ok();
        assert_eq!(said.trim(), "42");
        let code = shop
            .machine
            .carrack(&["exec", "shop-api-1", "python3", "-c", "raise SystemExit(7)"])
            .code;
        assert_eq!(code, 7);
        let logged = shop.machine.carrack(&["logs", "-n", "5", "shop-api-1"]).expect_ok();
        assert!(logged.contains("GET"), "{logged}");
        let stats = shop.machine.carrack(&["stats", "--no-stream", "--format", "json"]).expect_ok();
        let stats: Value = serde_json::from_str(&stats).expect("JSON");
        assert!(stats[0]["memory_bytes"].as_u64().is_some_and(|bytes| bytes > 0), "{stats}");
    });
    journey.step("the graph shows who calls whom, how often and how fast", || {
        let graph = eventually("both edges carry traffic", 20 * SECOND, || {
            let graph = shop.machine.carrack(&["graph", "-p", "shop"]).expect_ok();
            (graph.contains("edge") && graph.contains("store") && graph.contains("client"))
                .then_some(graph)
        });
        assert!(graph.contains("P99"), "{graph}");
    });
    journey.step("metrics are readable by Prometheus", || {
        let (status, answer) = http_get(page(shop), "/metrics").expect("the page answers");
        assert_eq!(status, 200);
        assert!(answer.contains("carrack_requests_total"), "{answer}");
    });
    journey.step("the page shows the live graph in a browser", || {
        let dom = browse(shop);
        for name in ["edge", "api", "store", "client"] {
            assert!(dom.contains(&format!(">{name}<")), "{name} in: {dom}");
        }
    });
}

fn survives(journey: &mut Journey, shop: &Shop) {
    journey.step("a killed node proxy is back within a second", || {
        kill(shop.machine.pid_of("proxy").expect("the proxy has an id"));
        let killed = Instant::now();
        eventually("a new request is answered", 5 * SECOND, || shop.can_visit().then_some(()));
        assert!(killed.elapsed() < SECOND, "it took {:?}", killed.elapsed());
    });
    journey.step("a killed daemon comes back and takes over what runs", || {
        let before = pids(shop);
        let daemon = shop.machine.pid_of("daemon").expect("the daemon has an id");
        kill(daemon);
        shop.visit();
        let back = eventually("another daemon runs", 5 * SECOND, || {
            shop.machine.pid_of("daemon").filter(|&pid| pid != daemon)
        });
        assert_ne!(back, daemon);
        assert_eq!(pids(shop), before, "containers lived on");
        shop.visit();
    });
    journey.step(
        "the container of a killed shim is reported as lost and restarted by its policy",
        || {
            let before = shop.inspect("shop-api-2");
            kill(
                i32::try_from(before["shim_pid"].as_i64().expect("a shim")).expect("a process id"),
            );
            let after = eventually("it runs again", 15 * SECOND, || {
                let now = shop.inspect("shop-api-2");
                (now["status"] == "running" && now["pid"] != before["pid"]).then_some(now)
            });
            assert!(after["restarts"].as_u64() > before["restarts"].as_u64(), "{after}");
            shop.visit();
        },
    );
}

fn goes_down(journey: &mut Journey, shop: &Shop) {
    journey.step("down removes containers, volumes, namespaces, mounts and the bridge", || {
        let bridge = bridge_of(shop);
        shop.machine.carrack(&["down", "-v", &shop.directory]).expect_ok();
        assert!(shop.containers().is_empty());
        let mounts = fs::read_to_string("/proc/self/mountinfo").expect("mounts");
        let run_dir = shop.machine.run_dir();
        let run_dir = run_dir.to_str().expect("a plain path");
        let left: Vec<_> = mounts.lines().filter(|line| line.contains(run_dir)).collect();
        assert!(left.iter().all(|line| !line.contains("shop")), "{left:#?}");
        assert!(!Path::new("/sys/class/net").join(bridge).exists());
    });
}

fn page(shop: &Shop) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], shop.machine.page_port()))
}

/// The page as headless Chromium has it after its scripts ran; the screenshot is
/// kept beside the test's own output when a directory is named for it.
fn browse(shop: &Shop) -> String {
    let profile = shop.machine.files().join("chromium");
    let profile = format!("--user-data-dir={}", profile.display());
    let url = format!("http://{}/", page(shop));
    let common = [
        "--headless",
        "--no-sandbox",
        "--disable-gpu",
        "--disable-quic",
        "--no-first-run",
        "--disable-background-networking",
        "--disable-component-update",
        "--disable-sync",
        "--virtual-time-budget=6000",
        "--window-size=1280,900",
        &profile,
    ];
    if let Some(directory) = std::env::var_os("CARRACK_SCREENSHOTS") {
        let file = PathBuf::from(directory).join("page.png");
        let shot = format!("--screenshot={}", file.display());
        run("chromium", &[&common[..], &[&shot, &url]].concat());
    }
    run("chromium", &[&common[..], &["--dump-dom", &url]].concat())
}

fn bridge_of(shop: &Shop) -> String {
    let address = shop.container("api")["address"].as_str().expect("an address").to_owned();
    let routes = run("ip", &["-o", "route", "get", &address]);
    let words: Vec<&str> = routes.split_whitespace().collect();
    let device = words.iter().position(|&word| word == "dev").expect("a device");
    words[device + 1].to_owned()
}

fn ids(containers: &[Value]) -> Vec<String> {
    let mut ids: Vec<_> = containers.iter().map(|one| one["id"].to_string()).collect();
    ids.sort();
    ids
}

fn pids(shop: &Shop) -> Vec<String> {
    let names = shop.containers();
    let names = names.iter().map(|one| one["name"].as_str().expect("a name").to_owned());
    let mut pids: Vec<_> =
        names.map(|name| format!("{name} {}", shop.inspect(&name)["pid"])).collect();
    pids.sort();
    pids
}

fn kill(pid: i32) {
    let pid = rustix::process::Pid::from_raw(pid).expect("a process id");
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it can be killed");
}

/// Runs a program that must start, and returns its stdout.
#[track_caller]
fn run(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let output = output.unwrap_or_else(|error| panic!("{program}: {error}"));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn example() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples/shop")
}

fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("a directory");
    for entry in fs::read_dir(from).expect("a directory").flatten() {
        let target = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_tree(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).expect("a copy");
        }
    }
}

#[expect(clippy::print_stdout, reason = "a failed journey shows the logs it leaves behind")]
fn show_logs(machine: &Machine) {
    for role in ["daemon", "proxy"] {
        let log =
            fs::read_to_string(machine.root().join(format!("log/{role}.log"))).unwrap_or_default();
        println!("--- {role}.log, its end");
        let lines: Vec<&str> = log.lines().collect();
        for line in lines.iter().skip(lines.len().saturating_sub(60)) {
            println!("{line}");
        }
    }
}
