use std::io::Read as _;

use proptest::prelude::*;

use super::*;

fn written(entries: &[(Entry, Vec<u8>)]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry, content.as_slice()).unwrap();
    }
    writer.finish().unwrap()
}

fn read(bytes: &[u8]) -> Result<Vec<(Entry, Vec<u8>)>, ArchiveError> {
    let mut reader = Reader::new(bytes);
    let mut found = Vec::new();
    while let Some(entry) = reader.next_entry()? {
        let mut content = Vec::new();
        reader.read_to_end(&mut content)?;
        found.push((entry, content));
    }
    Ok(found)
}

fn kinds() -> impl Strategy<Value = Kind> {
    let text = || proptest::collection::vec(1_u8.., 1..200);
    prop_oneof![
        Just(Kind::File),
        Just(Kind::Directory),
        Just(Kind::Fifo),
        text().prop_map(Kind::Symlink),
        text().prop_map(Kind::HardLink),
        (0_u32..0o777_7777, 0_u32..0o777_7777)
            .prop_map(|(major, minor)| Kind::Character(Device { major, minor })),
    ]
}

prop_compose! {
    fn entries()(
        path in proptest::collection::vec(1_u8.., 1..300),
        kind in kinds(),
        content in proptest::collection::vec(any::<u8>(), 0..1500),
        mode in 0_u32..=0o7777,
        uid: u64, gid: u64,
        modified: i64,
        attributes in proptest::collection::btree_map(
            proptest::collection::vec(b'a'..=b'z', 1..20),
            proptest::collection::vec(any::<u8>(), 0..120),
            0..4,
        ),
    ) -> (Entry, Vec<u8>) {
        let content = if kind == Kind::File { content } else { Vec::new() };
        let kind = if kind == Kind::File && path.ends_with(b"/") { Kind::Directory } else { kind };
        let content = if kind == Kind::File { content } else { Vec::new() };
        let size = content.len() as u64;
        (Entry { path, kind, mode, uid, gid, size, modified, attributes }, content)
    }
}

proptest! {
    #[test]
    fn what_is_written_is_read(entries in proptest::collection::vec(entries(), 0..6)) {
        let bytes = written(&entries);
        prop_assert_eq!(bytes.len() % BLOCK, 0);
        prop_assert_eq!(read(&bytes).unwrap(), entries);
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..3000)) {
        read(&bytes).ok();
    }

    #[test]
    fn no_damage_makes_the_reader_panic(
        entries in proptest::collection::vec(entries(), 1..3),
        place: proptest::sample::Index,
        byte: u8,
    ) {
        let mut bytes = written(&entries);
        let place = place.index(bytes.len());
        bytes[place] = byte;
        read(&bytes).ok();
    }
}

fn plain() -> (Entry, Vec<u8>) {
    (Entry::file("hull", 0o644, 4), b"wood".to_vec())
}

/// `plain`'s archive with its header changed and sealed again.
fn with_header(change: impl FnOnce(&mut header::Header)) -> Vec<u8> {
    let mut bytes = written(&[plain()]);
    let mut header = header::Header::empty();
    header.0.copy_from_slice(&bytes[..BLOCK]);
    change(&mut header);
    header.seal();
    bytes[..BLOCK].copy_from_slice(&header.0);
    bytes
}

#[test]
fn a_cut_archive_is_noticed() {
    let bytes = written(&[plain()]);
    for length in [1, 100, BLOCK - 1, BLOCK, BLOCK + 3] {
        assert!(read(&bytes[..length]).is_err(), "cut at {length}");
    }
    assert_eq!(read(&bytes[..BLOCK + 4]).unwrap(), [plain()], "padding may be missing");
}

#[test]
fn a_wrong_checksum_is_noticed() {
    let mut bytes = written(&[plain()]);
    bytes[0] = b'n';
    assert!(matches!(read(&bytes), Err(ArchiveError::Header("checksum is wrong"))));
}

#[test]
fn an_extended_header_of_gigabytes_is_refused_unread() {
    for kind in *b"LKxg" {
        let bytes = with_header(|header| {
            header.set_kind(kind);
            header.set_size(GIGABYTES);
        });
        assert!(matches!(read(&bytes), Err(ArchiveError::HeaderTooLarge(GIGABYTES))));
    }
    const GIGABYTES: u64 = 7 << 30;
}

#[test]
fn sparse_files_are_refused_by_name() {
    let bytes = with_header(|header| header.set_kind(b'S'));
    let message = read(&bytes).unwrap_err().to_string();
    assert!(message.contains("`hull` as a sparse file"), "{message}");
}

#[test]
fn an_old_archive_marks_directories_by_a_slash() {
    let bytes = with_header(|header| {
        header.set_path(b"hull/");
        header.set_kind(0);
        header.set_size(0);
    });
    let mut reader = Reader::new(bytes.as_slice());
    assert_eq!(reader.next_entry().unwrap().unwrap().kind, Kind::Directory);
}

#[test]
fn content_that_is_not_as_long_as_announced_is_refused() {
    let mut writer = Writer::new(Vec::new());
    let entry = Entry::file("hull", 0o644, 4);
    assert!(matches!(writer.append(&entry, &b"woo"[..]), Err(ArchiveError::Content { .. })));
    let mut writer = Writer::new(Vec::new());
    assert!(matches!(writer.append(&entry, &b"woods"[..]), Err(ArchiveError::Content { .. })));
}

#[test]
fn a_negative_size_is_refused() {
    let bytes = with_header(|header| {
        header.0[124..136].fill(0xff);
    });
    assert!(matches!(read(&bytes), Err(ArchiveError::Header(_))));
}
