//! Who makes control groups, by the command line and by who and where we are.

use std::path::Path;

use carrack_container_runtime::{Bus, CgroupOptions};

/// What `--systemd-cgroup` and `--rootless` mean here.
pub(crate) fn options(systemd: bool, rootless: Option<bool>) -> Result<CgroupOptions, String> {
    let root = rustix::process::geteuid().is_root();
    let elsewhere = carrack_linux::namespace::is_user_namespace();
    let rootless = rootless.unwrap_or(!root || elsewhere);
    let bus = match (systemd, rootless) {
        (false, _) => None,
        (true, false) => Some(Bus::System),
        // Root in a namespace may be the root of a whole system in there.
        (true, true) => match session(|name| std::env::var(name).ok(), Path::exists) {
            None if root => Some(Bus::System),
            found => Some(Bus::User(found.ok_or(NO_SESSION)?)),
        },
    };
    Ok(CgroupOptions { systemd: bus, rootless })
}

const NO_SESSION: &str = "--systemd-cgroup: no systemd of this user is known: neither \
                          DBUS_SESSION_BUS_ADDRESS nor XDG_RUNTIME_DIR leads to one; log in through \
                          systemd, set one of them, or leave --systemd-cgroup out";

/// The bus of the user's session.
fn session(
    environment: impl Fn(&str) -> Option<String>,
    exists: impl Fn(&Path) -> bool,
) -> Option<String> {
    let set = |name| environment(name).filter(|value| !value.is_empty());
    set("DBUS_SESSION_BUS_ADDRESS").or_else(|| {
        let socket = Path::new(&set("XDG_RUNTIME_DIR")?).join("bus");
        let text = socket.to_str()?.replace('%', "%25").replace(',', "%2c").replace(';', "%3b");
        exists(&socket).then(|| format!("unix:path={text}"))
    })
}
