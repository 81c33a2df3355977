//! What needs a program of ours in the guest; started there by `guest.sh`.

use std::fs;
use std::path::Path;

use carrack_shim::{Client, Log, ShimConfig};
use serde_json::json;

#[test]
#[ignore = "runs in the guest"]
fn a_shim_says_that_memory_ran_out() {
    let directory = Path::new("/run/shim");
    let bundle = Path::new("/run/shim-bundle");
    for path in [directory, bundle] {
        fs::create_dir_all(path).unwrap();
    }
    let program = "exec dd if=/dev/zero of=/dev/null bs=64M count=1";
    let mut config = crate::bundles::script("shim", program);
    config["linux"]["resources"]["memory"] = json!({ "limit": 8 << 20, "swap": 8 << 20 });
    config["linux"]["resources"]["pids"] = json!({ "limit": 9 });
    fs::write(bundle.join("config.json"), config.to_string()).unwrap();
    let config = ShimConfig {
        id: "shim".into(),
        bundle: bundle.to_owned(),
        runtime_root: "/run/states".into(),
        terminal: false,
        open_stdin: false,
        log: Log::Discard,
        init: false,
    };
    let client = Client::spawn(Path::new("/guest/carrack-runtime"), directory, &config).unwrap();
    let stats = client.stats().unwrap();
    assert_eq!(stats.memory_limit_bytes, Some(8 << 20));
    assert_eq!(stats.pids_limit, Some(9));
    assert_eq!(stats.pids, 1);
    client.start().unwrap();
    let exit = client.wait().unwrap();
    assert!(exit.oom, "{exit:?}");
    assert_eq!(exit.code, 137);
    client.delete(false).unwrap();
    assert!(!Path::new("/sys/fs/cgroup/cases/shim").exists());
}
