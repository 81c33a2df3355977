//! Writing the ids of a new user namespace, with privilege or with the help of those who have it.

use std::io;
use std::process::{Command, Stdio};

use carrack_linux::namespace;
use carrack_linux::procfs::Proc;
use rustix::process::Pid;

/// Maps the ids of the user namespace that `pid` is the first process of.
///
/// Root writes the maps. Anybody else may map one id, their own; for more there are
/// `newuidmap` and `newgidmap`, which look into `/etc/subuid` and `/etc/subgid`.
///
/// # Errors
///
/// What the kernel or those programs answer.
pub(crate) fn write(pid: Pid, uid_map: &str, gid_map: &str) -> io::Result<()> {
    if rustix::process::geteuid().is_root() {
        return namespace::write_maps(pid, uid_map, gid_map);
    }
    let (uid, gid) = (rustix::process::geteuid(), rustix::process::getegid());
    if is_own(uid_map, uid.as_raw()) && is_own(gid_map, gid.as_raw()) {
        // Whoever could drop groups could reach files that are kept from a group.
        Proc::mounted()?.write_of(pid, "setgroups", "deny")?;
        return namespace::write_maps(pid, uid_map, gid_map);
    }
    ask("newuidmap", pid, uid_map)?;
    ask("newgidmap", pid, gid_map)
}

/// Whether a map is of one id, which is `own` outside.
fn is_own(map: &str, own: u32) -> bool {
    let mut numbers = map.split_ascii_whitespace().skip(1);
    let outside = numbers.next().and_then(|number| number.parse().ok()) == Some(own);
    outside && numbers.next() == Some("1") && numbers.next().is_none()
}

fn ask(program: &str, pid: Pid, map: &str) -> io::Result<()> {
    let said = Command::new(program)
        .arg(pid.as_raw_nonzero().to_string())
        .args(map.split_ascii_whitespace())
        .stdin(Stdio::null())
        .output()
        .map_err(|source| {
            let message = format!(
                "{program}: {source}; mapping more than one id without being root needs it \
                 (Debian has it in uidmap)"
            );
            io::Error::new(source.kind(), message)
        })?;
    if said.status.success() {
        return Ok(());
    }
    let words = String::from_utf8_lossy(&said.stderr);
    Err(io::Error::other(format!("{program}: {}", words.trim())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_of_ones_own_id_alone_needs_no_help() {
        assert!(is_own("0 1000 1\n", 1000));
        assert!(!is_own("0 1000 1\n", 1001));
        assert!(!is_own("0 1000 2\n", 1000));
        assert!(!is_own("0 1000 1\n1 100000 65536\n", 1000));
    }
}
