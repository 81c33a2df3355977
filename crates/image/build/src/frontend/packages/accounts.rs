//! `/etc/passwd`, `/etc/group` and `/etc/shadow`: the accounts every Debian has, and
//! those of the recipe.
//!
//! On an installed system the package base-passwd writes the first ones from a
//! script; no script runs here, so its numbers, which never change, stand below.

use std::fmt::Write as _;

use super::recipe::{Accounts, Group, User};
use super::tree::{Metadata, Tree, TreeError};

const SECONDS_PER_DAY: i64 = 86_400;
const SHADOW_GROUP: u64 = 42;
const NOLOGIN: &str = "/usr/sbin/nologin";

/// Name, uid, gid, home directory.
const USERS: [(&str, u32, u32, &str); 18] = [
    ("root", 0, 0, "/root"),
    ("daemon", 1, 1, "/usr/sbin"),
    ("bin", 2, 2, "/bin"),
    ("sys", 3, 3, "/dev"),
    ("sync", 4, 65534, "/bin"),
    ("games", 5, 60, "/usr/games"),
    ("man", 6, 12, "/var/cache/man"),
    ("lp", 7, 7, "/var/spool/lpd"),
    ("mail", 8, 8, "/var/mail"),
    ("news", 9, 9, "/var/spool/news"),
    ("uucp", 10, 10, "/var/spool/uucp"),
    ("proxy", 13, 13, "/bin"),
    ("www-data", 33, 33, "/var/www"),
    ("backup", 34, 34, "/var/backups"),
    ("list", 38, 38, "/var/list"),
    ("irc", 39, 39, "/run/ircd"),
    ("_apt", 42, 65534, "/nonexistent"),
    ("nobody", 65534, 65534, "/nonexistent"),
];

const GROUPS: [(&str, u32); 38] = [
    ("root", 0),
    ("daemon", 1),
    ("bin", 2),
    ("sys", 3),
    ("adm", 4),
    ("tty", 5),
    ("disk", 6),
    ("lp", 7),
    ("mail", 8),
    ("news", 9),
    ("uucp", 10),
    ("man", 12),
    ("proxy", 13),
    ("kmem", 15),
    ("dialout", 20),
    ("fax", 21),
    ("voice", 22),
    ("cdrom", 24),
    ("floppy", 25),
    ("tape", 26),
    ("sudo", 27),
    ("audio", 29),
    ("dip", 30),
    ("www-data", 33),
    ("backup", 34),
    ("operator", 37),
    ("list", 38),
    ("irc", 39),
    ("src", 40),
    ("shadow", 42),
    ("utmp", 43),
    ("video", 44),
    ("sasl", 45),
    ("plugdev", 46),
    ("staff", 50),
    ("games", 60),
    ("users", 100),
    ("nogroup", 65534),
];

/// Why the accounts of a recipe cannot be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccountsError {
    /// A name that is none.
    #[error("`{0}` is not an account's name: lower-case letters, digits, `-` and `_`, 32 at most")]
    Name(String),
    /// A home directory or shell that would break the file.
    #[error("`{0}` is not an absolute path without `:`")]
    Path(String),
    /// The name is taken.
    #[error("the {kind} `{name}` is there already")]
    Taken {
        /// `user` or `group`.
        kind: &'static str,
        /// The name.
        name: String,
    },
    /// A member or `run-as` that is no account.
    #[error("there is no user `{0}`; add it under `accounts.users`")]
    NoUser(String),
    /// The files could not be put into the image.
    #[error("putting the accounts into the image")]
    Tree(#[from] TreeError),
}

/// Writes the account files and the home directories into the tree.
///
/// # Errors
///
/// [`AccountsError`] when a name is none, is taken, or is missing.
pub(crate) fn install(
    tree: &mut Tree,
    accounts: &Accounts,
    epoch: i64,
) -> Result<(), AccountsError> {
    check(accounts)?;
    tree.put_file("etc/passwd", passwd(tree, accounts).as_bytes(), Metadata::of_root(0o644))?;
    tree.put_file("etc/group", group(accounts).as_bytes(), Metadata::of_root(0o644))?;
    let shadow = shadow(accounts, epoch / SECONDS_PER_DAY);
    let metadata = Metadata { gid: SHADOW_GROUP, ..Metadata::of_root(0o640) };
    tree.put_file("etc/shadow", shadow.as_bytes(), metadata)?;
    for user in &accounts.users {
        let home = home(user);
        if !tree.has(&home) {
            let metadata = Metadata {
                uid: user.uid.into(),
                gid: user.gid.unwrap_or(user.uid).into(),
                ..Metadata::of_root(0o755)
            };
            tree.put_directory(&home, metadata)?;
        }
    }
    Ok(())
}

fn check(accounts: &Accounts) -> Result<(), AccountsError> {
    let mut users: Vec<&str> = USERS.iter().map(|(name, ..)| *name).collect();
    let mut groups: Vec<&str> = GROUPS.iter().map(|(name, _)| *name).collect();
    for User { username, homedir, shell, .. } in &accounts.users {
        add_name("user", username, &mut users)?;
        for path in [homedir, shell].into_iter().flatten() {
            if !path.starts_with('/') || path.contains([':', '\n']) {
                return Err(AccountsError::Path(path.clone()));
            }
        }
    }
    for Group { groupname, .. } in &accounts.groups {
        add_name("group", groupname, &mut groups)?;
    }
    let members = accounts.groups.iter().flat_map(|group| &group.members);
    let run_as = accounts.run_as.iter().filter(|user| user.parse::<u32>().is_err());
    for user in members.chain(run_as) {
        if !users.contains(&user.as_str()) {
            return Err(AccountsError::NoUser(user.clone()));
        }
    }
    Ok(())
}

fn add_name<'a>(
    kind: &'static str,
    name: &'a str,
    names: &mut Vec<&'a str>,
) -> Result<(), AccountsError> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c == '_');
    let rest = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    if !starts || !name.chars().all(rest) || name.len() > 32 {
        return Err(AccountsError::Name(name.to_owned()));
    }
    if names.contains(&name) {
        return Err(AccountsError::Taken { kind, name: name.to_owned() });
    }
    names.push(name);
    Ok(())
}

fn home(user: &User) -> String {
    user.homedir.clone().unwrap_or_else(|| format!("/home/{}", user.username))
}

fn passwd(tree: &Tree, accounts: &Accounts) -> String {
    let mut text = String::new();
    for (name, uid, gid, home) in USERS {
        let shell = match name {
            "root" if tree.has("bin/bash") => "/bin/bash",
            "root" => "/bin/sh",
            "sync" => "/bin/sync",
            _ => NOLOGIN,
        };
        line(&mut text, format_args!("{name}:x:{uid}:{gid}:{name}:{home}:{shell}"));
    }
    for user in &accounts.users {
        let User { username, uid, .. } = user;
        let gid = user.gid.unwrap_or(*uid);
        let (home, shell) = (home(user), user.shell.as_deref().unwrap_or(NOLOGIN));
        line(&mut text, format_args!("{username}:x:{uid}:{gid}:{username}:{home}:{shell}"));
    }
    text
}

fn group(accounts: &Accounts) -> String {
    let mut text = String::new();
    for (name, gid) in GROUPS {
        line(&mut text, format_args!("{name}:x:{gid}:"));
    }
    for Group { groupname, gid, members } in &accounts.groups {
        line(&mut text, format_args!("{groupname}:x:{gid}:{}", members.join(",")));
    }
    // A user whose group nobody named gets one of its own name.
    for User { username, uid, gid, .. } in &accounts.users {
        let gid = gid.unwrap_or(*uid);
        let is_named = GROUPS.iter().any(|(name, number)| *number == gid || name == username)
            || accounts.groups.iter().any(|g| g.gid == gid || &g.groupname == username);
        if !is_named {
            line(&mut text, format_args!("{username}:x:{gid}:"));
        }
    }
    text
}

/// Nobody has a password. Its last change is said to be the image's day, so that the
/// file depends on nothing else.
fn shadow(accounts: &Accounts, day: i64) -> String {
    let mut text = String::new();
    let names = USERS.iter().map(|(name, ..)| *name);
    for name in names.chain(accounts.users.iter().map(|user| user.username.as_str())) {
        line(&mut text, format_args!("{name}:*:{day}:0:99999:7:::"));
    }
    text
}

fn line(text: &mut String, line: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    writeln!(text, "{line}").ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn user(name: &str, uid: u32) -> User {
        User { username: name.to_owned(), uid, gid: None, homedir: None, shell: None }
    }

    fn installed(accounts: &Accounts) -> Result<Tree, String> {
        let mut tree = Tree::new(tempfile::tempfile().unwrap());
        install(&mut tree, accounts, 86_400).map_err(|error| error.to_string())?;
        Ok(tree)
    }

    fn text(tree: &Tree, path: &str) -> String {
        String::from_utf8(tree.read(path).unwrap().unwrap()).unwrap()
    }

    #[test]
    fn a_user_gets_a_line_in_each_file_and_a_home() {
        let accounts = Accounts { users: vec![user("app", 900)], ..Accounts::default() };
        let tree = installed(&accounts).unwrap();
        assert!(
            text(&tree, "etc/passwd").contains("app:x:900:900:app:/home/app:/usr/sbin/nologin\n")
        );
        assert!(text(&tree, "etc/passwd").contains("www-data:x:33:33:www-data:/var/www:"));
        assert!(text(&tree, "etc/group").ends_with("app:x:900:\n"));
        assert!(text(&tree, "etc/shadow").ends_with("app:*:1:0:99999:7:::\n"));
        assert!(tree.has("home/app"));
    }

    #[test]
    fn what_would_break_the_files_is_refused() {
        let refused = |accounts: Accounts| installed(&accounts).unwrap_err();
        for name in ["", "a:b", "A", "a\nb", "1a"] {
            let users = vec![user(name, 900)];
            assert!(refused(Accounts { users, ..Accounts::default() }).contains("not an account"));
        }
        let users = vec![user("root", 900)];
        assert!(refused(Accounts { users, ..Accounts::default() }).contains("already"));
        let users = vec![User { homedir: Some("/a:b".to_owned()), ..user("app", 1000) }];
        assert!(refused(Accounts { users, ..Accounts::default() }).contains("absolute path"));
        let run_as = Some("nobody-here".to_owned());
        assert!(refused(Accounts { run_as, ..Accounts::default() }).contains("no user"));
    }
}
