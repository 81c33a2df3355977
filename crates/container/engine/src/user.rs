//! Who a container runs as, by the accounts in its own root filesystem.

use std::io::Read;
use std::path::Path;

use carrack_linux::rooted::RootedDir;
use rustix::fs::{Mode, OFlags};

use crate::error::EngineError;

/// The largest account file that is read.
const LARGEST: u64 = 1 << 20;

/// A user, resolved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Account {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) groups: Vec<u32>,
    pub(crate) home: String,
}

/// Looks up `user`, `uid`, `user:group` or `uid:gid` in the root filesystem at `rootfs`. Nothing
/// there is followed out of it.
pub(crate) fn lookup(rootfs: &Path, asked: &str) -> Result<Account, EngineError> {
    let attempt = || format!("looking up the user `{asked}` in {}", rootfs.display());
    let root = RootedDir::open(rootfs).map_err(EngineError::failed(attempt()))?;
    let passwd = read(&root, "etc/passwd");
    let group = read(&root, "etc/group");
    resolve(asked, &passwd, &group).ok_or_else(|| {
        EngineError::Invalid(format!(
            "the image has no user or group `{asked}`; use a number, or add it to the image"
        ))
    })
}

/// A file that is absent or unreadable has no accounts.
fn read(root: &RootedDir, path: &str) -> String {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK;
    let Ok(file) = root.open_with(Path::new(path), flags, Mode::empty()) else {
        return String::new();
    };
    let mut bytes = Vec::new();
    match std::fs::File::from(file).take(LARGEST).read_to_end(&mut bytes) {
        Ok(_) => String::from_utf8_lossy(&bytes).into_owned(),
        Err(_) => String::new(),
    }
}

/// As Docker does: a user that is found brings its group, its further groups and its home; a
/// number that is not found is taken as it is; a group that is given stands alone.
fn resolve(asked: &str, passwd: &str, group: &str) -> Option<Account> {
    let (user, asked_group) = match asked.split_once(':') {
        Some((user, group)) => (user, Some(group).filter(|group| !group.is_empty())),
        None => (asked, None),
    };
    let user = if user.is_empty() { "0" } else { user };
    let entry = passwd.lines().find_map(|line| {
        let fields: Vec<&str> = line.split(':').collect();
        let [name, _, uid, gid, _, home, ..] = fields.as_slice() else { return None };
        let matches = *name == user || (user.parse::<u32>().is_ok() && *uid == user);
        let (uid, gid) = (uid.parse().ok()?, gid.parse().ok()?);
        matches.then(|| ((*name).to_owned(), uid, gid, (*home).to_owned()))
    });
    let mut account = match &entry {
        Some((_, uid, gid, home)) => {
            Account { uid: *uid, gid: *gid, groups: Vec::new(), home: home.clone() }
        }
        None => Account { uid: user.parse().ok()?, gid: 0, groups: Vec::new(), home: "/".into() },
    };
    match (asked_group, entry) {
        (Some(asked_group), _) => account.gid = find_group(asked_group, group)?,
        (None, Some((name, ..))) => account.groups = groups_of(&name, account.gid, group),
        (None, None) => {}
    }
    Some(account)
}

fn find_group(asked: &str, group: &str) -> Option<u32> {
    let found = group.lines().find_map(|line| {
        let mut fields = line.split(':');
        let (name, gid) = (fields.next()?, fields.nth(1)?);
        (name == asked).then(|| gid.parse().ok()).flatten()
    });
    found.or_else(|| asked.parse().ok())
}

fn groups_of(user: &str, primary: u32, group: &str) -> Vec<u32> {
    let mut groups: Vec<u32> = group
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(':').skip(2);
            let (gid, members) = (fields.next()?.parse().ok()?, fields.next()?);
            members.split(',').any(|member| member == user).then_some(gid)
        })
        .filter(|gid| *gid != primary)
        .collect();
    groups.sort_unstable();
    groups.dedup();
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    const PASSWD: &str =
        "root:x:0:0:root:/root:/bin/sh\nredis:x:101:102::/var/lib/redis:/bin/false\n";
    const GROUP: &str = "root:x:0:\nredis:x:102:\ntls:x:200:redis,web\n";

    #[track_caller]
    fn check(asked: &str, expected: Option<(u32, u32, &[u32], &str)>) {
        let found = resolve(asked, PASSWD, GROUP);
        let found = found.as_ref().map(|a| (a.uid, a.gid, a.groups.as_slice(), a.home.as_str()));
        assert_eq!(found, expected, "for `{asked}`");
    }

    #[test]
    fn nobody_asked_for_is_root() {
        check("", Some((0, 0, &[], "/root")));
    }

    #[test]
    fn a_user_brings_its_groups_and_home() {
        check("redis", Some((101, 102, &[200], "/var/lib/redis")));
        check("101", Some((101, 102, &[200], "/var/lib/redis")));
    }

    #[test]
    fn a_group_that_is_given_stands_alone() {
        check("redis:tls", Some((101, 200, &[], "/var/lib/redis")));
        check("65534:65534", Some((65534, 65534, &[], "/")));
    }

    #[test]
    fn a_number_nobody_has_is_taken_as_it_is() {
        check("1000", Some((1000, 0, &[], "/")));
    }

    #[test]
    fn a_name_nobody_has_is_refused() {
        check("nobody", None);
        check("redis:wheel", None);
    }

    #[test]
    fn accounts_without_files_are_numbers_only() {
        assert_eq!(resolve("5:6", "", "").map(|a| (a.uid, a.gid)), Some((5, 6)));
        assert_eq!(resolve("root", "", ""), None);
    }
}
