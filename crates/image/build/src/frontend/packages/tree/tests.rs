use super::*;
use carrack_oci::archive::Reader;

fn tree() -> Tree {
    Tree::new(tempfile::tempfile().unwrap())
}

fn add(tree: &mut Tree, package: &str, entry: Entry, bytes: &[u8]) -> Result<(), TreeError> {
    let entry = Entry { size: bytes.len() as u64, ..entry };
    tree.add(package, &entry, &mut &*bytes, |_| Overlap::Refuse)
}

fn file(path: &str) -> Entry {
    Entry::file(path, 0o644, 0)
}

fn link(path: &str, target: &str) -> Entry {
    Entry::new(path, Kind::Symlink(target.into()), 0o777)
}

fn listed(tree: &Tree) -> Vec<String> {
    let bytes = tree.write(Vec::new(), 0).unwrap();
    let mut archive = Reader::new(&*bytes);
    let mut names = Vec::new();
    while let Some(entry) = archive.next_entry().unwrap() {
        names.push(String::from_utf8(entry.path).unwrap().trim_end_matches('/').to_owned());
    }
    names
}

#[test]
fn a_file_below_a_link_lands_where_the_link_leads_inside_the_tree() {
    let mut tree = tree();
    add(&mut tree, "a", link("./bin", "usr/bin"), b"").unwrap();
    add(&mut tree, "b", file("./bin/sh"), b"x").unwrap();
    assert_eq!(listed(&tree), ["bin", "usr", "usr/bin", "usr/bin/sh"]);
    assert_eq!(tree.read("/bin/sh").unwrap().unwrap(), b"x");
}

#[test]
fn links_cannot_lead_out() {
    let mut tree = tree();
    add(&mut tree, "a", link("up", "../../../.."), b"").unwrap();
    add(&mut tree, "a", link("abs", "/etc"), b"").unwrap();
    add(&mut tree, "a", file("up/x"), b"1").unwrap();
    add(&mut tree, "a", file("abs/y"), b"2").unwrap();
    assert_eq!(listed(&tree), ["abs", "etc", "etc/y", "up", "x"]);
    for path in ["../x", "a/../../x", "/../x", "a\0b"] {
        assert!(add(&mut tree, "a", file(path), b"").is_err(), "{path}");
    }
}

#[test]
fn links_that_go_round_are_refused() {
    let mut tree = tree();
    add(&mut tree, "a", link("x", "y"), b"").unwrap();
    add(&mut tree, "a", link("y", "x"), b"").unwrap();
    let error = add(&mut tree, "a", file("x/z"), b"").unwrap_err();
    assert!(error.to_string().contains("too many symbolic links"));
}

#[test]
fn devices_and_pipes_are_refused() {
    use carrack_oci::archive::Device;
    let device = Device { major: 1, minor: 1 };
    for kind in [Kind::Character(device), Kind::Block(device), Kind::Fifo] {
        let error = add(&mut tree(), "a", Entry::new("x", kind, 0), b"").unwrap_err();
        assert!(matches!(error, TreeError::Unsupported { .. }));
    }
}

#[test]
fn two_packages_may_share_directories_but_not_files() {
    let mut tree = tree();
    add(&mut tree, "a", Entry::new("d", Kind::Directory, 0o750), b"").unwrap();
    add(&mut tree, "b", Entry::new("d", Kind::Directory, 0o755), b"").unwrap();
    add(&mut tree, "a", file("d/x"), b"1").unwrap();
    let error = add(&mut tree, "b", file("d/x"), b"2").unwrap_err();
    assert!(
        matches!(&error, TreeError::Occupied { first, second, .. } if first == "a" && second == "b")
    );
    let replace = |bytes: &[u8], decision| {
        let mut tree = Tree::new(tempfile::tempfile().unwrap());
        add(&mut tree, "a", file("x"), b"1").unwrap();
        tree.add("b", &file("x"), &mut &*bytes, |first| {
            assert_eq!(first, "a");
            decision
        })
        .unwrap();
        tree.read("x").unwrap().unwrap()
    };
    assert_eq!(replace(b"2", Overlap::Replace), b"2");
    assert_eq!(replace(b"2", Overlap::Keep), b"1");
}

#[test]
fn hard_links_stay_one_file() {
    let mut tree = tree();
    add(&mut tree, "a", file("b"), b"content").unwrap();
    add(&mut tree, "a", Entry::new("a", Kind::HardLink("./b".into()), 0o644), b"").unwrap();
    let bytes = tree.write(Vec::new(), 0).unwrap();
    let mut archive = Reader::new(&*bytes);
    let first = archive.next_entry().unwrap().unwrap();
    assert_eq!((first.kind, first.size), (Kind::File, 7));
    let second = archive.next_entry().unwrap().unwrap();
    assert_eq!(second.kind, Kind::HardLink("a".into()));
    for target in ["none", "../etc/passwd"] {
        let entry = Entry::new("c", Kind::HardLink(target.into()), 0o644);
        assert!(add(&mut tree, "a", entry, b"").is_err());
    }
}

#[test]
fn no_time_is_after_the_epoch() {
    let mut tree = tree();
    for (name, modified) in [("old", 5), ("new", 50)] {
        add(&mut tree, "a", Entry { modified, ..file(name) }, b"").unwrap();
    }
    assert_eq!(tree.newest(), 50);
    let bytes = tree.write(Vec::new(), 10).unwrap();
    let mut archive = Reader::new(&*bytes);
    assert_eq!(archive.next_entry().unwrap().unwrap().modified, 10);
    assert_eq!(archive.next_entry().unwrap().unwrap().modified, 5);
}
