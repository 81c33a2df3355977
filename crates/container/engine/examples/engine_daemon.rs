//! An engine in a process of its own, for this crate's tests to kill.
//!
//! `engine_daemon ROOT RUN SHIM NETWORKS CGROUP SOCKET`

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use carrack_engine::{Engine, EngineConfig, OpenGate};
use carrack_spiffe::TrustDomain;

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [root, run, shim, networks, cgroup, socket] = arguments.as_slice() else {
        return ExitCode::FAILURE;
    };
    let trust_domain = TrustDomain::new("test.example").expect("a trust domain");
    let mut config = EngineConfig::new(root, run, shim, trust_domain);
    config.networks = networks.parse().expect("a subnet");
    config.interface_prefix = "ckt".to_owned();
    config.cgroup.clone_from(cgroup);
    let engine = Engine::open(config, Arc::new(OpenGate)).expect("the engine opens");
    let listener = carrack_net::unix::bind(Path::new(socket)).expect("the socket is bound");
    engine.serve(listener, std::future::pending()).await;
    ExitCode::SUCCESS
}
