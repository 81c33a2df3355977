//! Users and groups by the names an image gives them.

use std::path::Path;

use super::FilesError;
use super::tree::Tree;

/// More than any account file needs.
const LARGEST_FILE: u64 = 16 * 1024 * 1024;

/// Whom a command runs as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// Every group the user is in, its own first.
    pub(crate) groups: Vec<u32>,
    /// Where the user is at home; `/` when the image does not say.
    pub(crate) home: String,
}

/// The accounts of an image, as `/etc/passwd` and `/etc/group` have them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Accounts {
    users: Vec<User>,
    groups: Vec<Group>,
}

#[derive(Clone, Debug)]
struct User {
    name: String,
    uid: u32,
    gid: u32,
    home: String,
}

#[derive(Clone, Debug)]
struct Group {
    name: String,
    gid: u32,
    members: Vec<String>,
}

impl Accounts {
    /// Reads them from a root filesystem; one without account files has none.
    pub(crate) fn read(tree: &Tree) -> Result<Self, FilesError> {
        let text = |path: &str| -> Result<String, FilesError> {
            let bytes = tree.read_small(Path::new(path), LARGEST_FILE)?.unwrap_or_default();
            Ok(String::from_utf8_lossy(&bytes).into_owned())
        };
        Ok(Self::parse(&text("etc/passwd")?, &text("etc/group")?))
    }

    /// Lines that are not accounts are passed over, as every reader of these files does.
    fn parse(passwd: &str, group: &str) -> Self {
        let users = passwd.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let uid = fields.nth(1)?.parse().ok()?;
            let gid = fields.next()?.parse().ok()?;
            let home = fields.nth(1).unwrap_or_default().to_owned();
            Some(User { name, uid, gid, home })
        });
        let groups = group.lines().filter_map(|line| {
            let mut fields = line.split(':');
            let name = fields.next()?.to_owned();
            let gid = fields.nth(1)?.parse().ok()?;
            let members = fields.next().unwrap_or_default().split(',').map(ToOwned::to_owned);
            Some(Group { name, gid, members: members.collect() })
        });
        Self { users: users.collect(), groups: groups.collect() }
    }

    /// Owner and group for `--chown`. A user without a group has, as Docker has it,
    /// the group of its own name or number.
    pub(crate) fn owner(&self, words: &str) -> Result<(u32, u32), FilesError> {
        let (user, group) = words.split_once(':').map_or((words, None), |(u, g)| (u, Some(g)));
        let uid = match self.user(user)? {
            (uid, _) if !user.is_empty() => uid,
            _ => 0,
        };
        let gid = match group.filter(|group| !group.is_empty()) {
            Some(group) => self.group(group)?,
            None => match user.parse::<u32>() {
                Ok(number) => number,
                Err(_) => self.user(user)?.1.map_or(uid, |known| known.gid),
            },
        };
        Ok((uid, gid))
    }

    /// Whom `USER` means, with the groups the image puts them in.
    pub(crate) fn identity(&self, words: &str) -> Result<Identity, FilesError> {
        let words = if words.is_empty() { "0" } else { words };
        let (user, group) = words.split_once(':').map_or((words, None), |(u, g)| (u, Some(g)));
        let (uid, known) = self.user(user)?;
        let home = known.map_or("/", |known| known.home.as_str());
        let home = if home.is_empty() { "/" } else { home }.to_owned();
        if let Some(group) = group.filter(|group| !group.is_empty()) {
            let gid = self.group(group)?;
            return Ok(Identity { uid, gid, groups: vec![gid], home });
        }
        let gid = known.map_or(0, |known| known.gid);
        let name = known.map_or("", |known| known.name.as_str());
        let is_in = |group: &&Group| group.members.iter().any(|member| member == name);
        let groups = self.groups.iter().filter(|group| !name.is_empty() && is_in(group));
        // Its own group is among them, or permissions that exclude the group could be
        // had back by a set-group-id program.
        let further = groups.map(|group| group.gid).filter(|further| *further != gid);
        Ok(Identity { uid, gid, groups: std::iter::once(gid).chain(further).collect(), home })
    }

    fn user(&self, word: &str) -> Result<(u32, Option<&User>), FilesError> {
        if word.is_empty() {
            return Ok((0, None));
        }
        let by_name = self.users.iter().find(|user| user.name == word);
        if let Some(user) = by_name {
            return Ok((user.uid, Some(user)));
        }
        if let Ok(uid) = word.parse::<u32>() {
            return Ok((uid, self.users.iter().find(|user| user.uid == uid)));
        }
        Err(FilesError::Account { kind: "user", name: word.to_owned() })
    }

    fn group(&self, word: &str) -> Result<u32, FilesError> {
        if let Some(group) = self.groups.iter().find(|group| group.name == word) {
            return Ok(group.gid);
        }
        let unknown = || FilesError::Account { kind: "group", name: word.to_owned() };
        word.parse().map_err(|_| unknown())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accounts() -> Accounts {
        Accounts::parse(
            "root:x:0:0:root:/root:/bin/sh\nweb:x:33:34::/var/www:/x\n# odd\n",
            "root:x:0:\nweb:x:34:\nlogs:x:50:web,root\n",
        )
    }

    #[test]
    fn owners_are_found_by_name_and_number() {
        let owner = |words: &str| accounts().owner(words).expect("known");
        assert_eq!(owner("web"), (33, 34));
        assert_eq!(owner("web:logs"), (33, 50));
        assert_eq!(owner("1000"), (1000, 1000));
        assert_eq!(owner("1000:7"), (1000, 7));
        assert_eq!(owner(":logs"), (0, 50));
        assert!(accounts().owner("nobody").is_err());
        assert!(accounts().owner("0:nogroup").is_err());
    }

    #[test]
    fn a_user_brings_groups_and_home_along() {
        let web = accounts().identity("web").expect("known");
        let home = "/var/www".to_owned();
        assert_eq!(web, Identity { uid: 33, gid: 34, groups: vec![34, 50], home });
        let number = accounts().identity("33").expect("known");
        assert_eq!(number, web);
        let stranger = accounts().identity("999").expect("a number needs no account");
        assert_eq!((stranger.gid, stranger.home.as_str()), (0, "/"));
        assert_eq!(accounts().identity("").expect("root").home, "/root");
        assert_eq!(accounts().identity("web:0").expect("known").groups, [0]);
    }
}
