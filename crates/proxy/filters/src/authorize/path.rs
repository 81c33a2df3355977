//! One path, as it was sent and as an application may read it.

use std::borrow::Cow;

/// The path of a request target: what stands before the query or fragment.
pub(super) fn without_query(target: &str) -> &str {
    let end = target.find(['?', '#']).unwrap_or(target.len());
    target.get(..end).unwrap_or(target)
}

/// Resolves escapes, backslashes, doubled slashes and dot segments.
pub(super) fn resolved(path: &str) -> Cow<'_, str> {
    if is_plain(path) {
        return Cow::Borrowed(path);
    }
    let decoded = decode(path);
    let mut kept: Vec<&str> = Vec::new();
    let mut ends_in_slash = false;
    for segment in decoded.split(['/', '\\']) {
        ends_in_slash = matches!(segment, "" | "." | "..");
        match segment {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            name => kept.push(name),
        }
    }
    let mut resolved = String::with_capacity(decoded.len());
    for name in &kept {
        resolved.push('/');
        resolved.push_str(name);
    }
    if ends_in_slash || resolved.is_empty() {
        resolved.push('/');
    }
    Cow::Owned(resolved)
}

fn is_plain(path: &str) -> bool {
    path.starts_with('/')
        && !path.contains(['%', '\\'])
        && !path.contains("//")
        && !path.contains("/.")
}

/// Undoes every escape, as often as it was done: `%252e` is a dot to whoever decodes twice.
fn decode(path: &str) -> String {
    let mut bytes = path.as_bytes().to_vec();
    loop {
        let decoded = decode_once(&bytes);
        if decoded.len() == bytes.len() {
            return String::from_utf8_lossy(&bytes).into_owned();
        }
        bytes = decoded;
    }
}

fn decode_once(bytes: &[u8]) -> Vec<u8> {
    let digit = |byte: Option<&u8>| {
        byte.and_then(|byte| char::from(*byte).to_digit(16))
            .and_then(|digit| u8::try_from(digit).ok())
    };
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while let Some(byte) = bytes.get(at) {
        match (byte, digit(bytes.get(at + 1)), digit(bytes.get(at + 2))) {
            (b'%', Some(high), Some(low)) => {
                decoded.push(high << 4 | low);
                at += 3;
            }
            _ => {
                decoded.push(*byte);
                at += 1;
            }
        }
    }
    decoded
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(path: &str, expected: &str) {
        assert_eq!(resolved(path), expected, "for {path}");
    }

    #[test]
    fn a_path_reads_the_same_however_it_is_written() {
        for path in [
            "/admin/x",
            "//admin//x",
            "/./admin/x",
            "/public/../admin/x",
            "/%61dmin/x",
            "/%2561dmin/x",
            "/admin%2fx",
            "\\admin\\x",
            "/a/b/../../../admin/x",
            "/public/%2e%2e/admin/x",
        ] {
            check(path, "/admin/x");
        }
        check("/", "/");
        check("", "/");
        check("/a/", "/a/");
        check("/a/..", "/");
        check("/a%", "/a%");
        check("/.hidden", "/.hidden");
    }

    #[test]
    fn a_query_is_no_part_of_the_path() {
        assert_eq!(without_query("/a?b#c"), "/a");
        assert_eq!(without_query("/a#c"), "/a");
        assert_eq!(without_query("/a"), "/a");
    }
}
