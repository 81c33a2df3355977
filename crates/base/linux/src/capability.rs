//! Capability sets: names, dropping, raising.

use std::io;

use rustix::thread::{CapabilitySet, CapabilitySets};

/// A set of capabilities.
pub type Set = CapabilitySet;

/// Names in the order of their numbers, without `CAP_`.
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The capability of that name, with or without `CAP_`, in any case.
pub fn parse(name: &str) -> Option<Set> {
    let upper = name.to_ascii_uppercase();
    let bare = upper.strip_prefix("CAP_").unwrap_or(&upper);
    let number = NAMES.iter().position(|known| *known == bare)?;
    Some(Set::from_bits_retain(1 << number))
}

/// The names of a set's members, with `CAP_`, in the order of their numbers.
pub fn names(set: Set) -> Vec<String> {
    members(set).filter_map(|number| NAMES.get(number)).map(|name| format!("CAP_{name}")).collect()
}

/// Every name there is, with `CAP_`.
pub fn all_names() -> Vec<String> {
    NAMES.iter().map(|name| format!("CAP_{name}")).collect()
}

/// The calling thread's five sets, as a container is meant to have them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sets {
    /// The most a program started from here can ever have.
    pub bounding: Set,
    /// What counts.
    pub effective: Set,
    /// What may be made to count.
    pub permitted: Set,
    /// What a program with file capabilities can take over.
    pub inheritable: Set,
    /// What any program started from here keeps.
    pub ambient: Set,
}

impl Default for Sets {
    /// No capability at all.
    fn default() -> Self {
        let none = Set::empty();
        Self { bounding: none, effective: none, permitted: none, inheritable: none, ambient: none }
    }
}

fn members(set: Set) -> impl Iterator<Item = usize> {
    (0..64).filter(move |number| set.bits() & (1 << number) != 0)
}

/// Takes away from the bounding set what is not in `keep`. It cannot come back.
///
/// # Errors
///
/// `EPERM` without CAP_SETPCAP.
pub fn limit_bounding(keep: Set) -> io::Result<()> {
    for number in 0..64 {
        let one = Set::from_bits_retain(1 << number);
        if keep.contains(one) {
            continue;
        }
        match rustix::thread::remove_capability_from_bounding_set(one) {
            Ok(()) => {}
            // Past the last one this kernel has.
            Err(rustix::io::Errno::INVAL) => break,
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Keeps the permitted set when the user id changes from root to another.
///
/// # Errors
///
/// As `prctl`.
pub fn keep_across_user_change() -> io::Result<()> {
    Ok(rustix::thread::set_keep_capabilities(true)?)
}

/// Sets all but the bounding set of the calling thread.
///
/// # Errors
///
/// `EPERM` when more is asked for than the thread may have.
pub fn apply(sets: &Sets) -> io::Result<()> {
    let wanted = CapabilitySets {
        effective: sets.effective,
        permitted: sets.permitted,
        inheritable: sets.inheritable,
    };
    rustix::thread::set_capabilities(None, wanted)?;
    rustix::thread::clear_ambient_capability_set()?;
    for number in members(raisable(sets)) {
        let one = Set::from_bits_retain(1 << number);
        rustix::thread::configure_capability_in_ambient_set(one, true)?;
    }
    Ok(())
}

/// The ambient capabilities the kernel lets a thread raise: those that are permitted and
/// inheritable too. The others are left out, as runc does, whose own template asks for some.
fn raisable(sets: &Sets) -> Set {
    sets.ambient & sets.permitted & sets.inheritable
}

/// What the calling thread has now.
///
/// # Errors
///
/// As `capget`.
pub fn current() -> io::Result<CapabilitySets> {
    Ok(rustix::thread::capabilities(None)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ambient_capability_that_is_not_inheritable_is_left_out() {
        let asked = Set::KILL | Set::CHOWN;
        let sets =
            Sets { ambient: asked, permitted: asked, inheritable: Set::KILL, ..Sets::default() };
        assert_eq!(raisable(&sets), Set::KILL);
    }

    #[test]
    fn names_are_read_in_any_case_with_or_without_prefix() {
        assert_eq!(parse("CAP_NET_ADMIN"), Some(Set::NET_ADMIN));
        assert_eq!(parse("net_admin"), Some(Set::NET_ADMIN));
        assert_eq!(parse("CAP_CHECKPOINT_RESTORE"), Some(Set::CHECKPOINT_RESTORE));
        assert_eq!(parse("CAP_FLY"), None);
    }

    #[test]
    fn a_set_prints_its_members_in_order() {
        assert_eq!(names(Set::KILL | Set::CHOWN), ["CAP_CHOWN", "CAP_KILL"]);
    }

    #[test]
    fn dropped_capabilities_stay_dropped() {
        std::thread::spawn(|| {
            if !rustix::process::geteuid().is_root() {
                eprintln!("skipped: needs root");
                return;
            }
            limit_bounding(Set::KILL).unwrap();
            assert!(rustix::thread::capability_is_in_bounding_set(Set::KILL).unwrap());
            assert!(!rustix::thread::capability_is_in_bounding_set(Set::CHOWN).unwrap());
            let sets = Sets { permitted: Set::KILL, effective: Set::KILL, ..Sets::default() };
            apply(&sets).unwrap();
            assert_eq!(current().unwrap().permitted, Set::KILL);
            apply(&Sets { permitted: Set::CHOWN, ..sets }).unwrap_err();
        })
        .join()
        .unwrap();
    }
}
