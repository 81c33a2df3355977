//! Arguments and environment that are too long.

use std::ffi::CString;

/// The kernel's bound for one string: 32 pages.
const MAX_STRING: usize = 32 * 4096;

/// What of them is too long, for a process that the kernel answered E2BIG.
pub(crate) fn too_long(arguments: &[CString], environment: &[CString]) -> String {
    let size = |strings: &[CString]| -> usize {
        strings.iter().map(|string| string.as_bytes_with_nul().len()).sum()
    };
    let total = format!(
        "its {} arguments take {} bytes and its environment {}",
        arguments.len(),
        size(arguments),
        size(environment)
    );
    let longest = arguments.iter().chain(environment).map(|string| string.as_bytes().len()).max();
    match longest {
        Some(longest) if longest >= MAX_STRING => format!(
            "{total}; one of them has {longest} bytes, and the kernel takes {} at most; \
             pass it in a file",
            MAX_STRING - 1
        ),
        Some(_) | None => format!(
            "{total}; the kernel takes a quarter of the limit on the stack, and 6 MiB at most; \
             pass them in a file, or raise RLIMIT_STACK"
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_string_too_long_is_told_from_too_many() {
        let long = CString::new(vec![b'x'; MAX_STRING]).unwrap();
        let text = too_long(&[c"a".to_owned(), long], &[c"B=c".to_owned()]);
        assert!(text.contains("131075 bytes and its environment 4"), "{text}");
        assert!(text.contains("has 131072 bytes"), "{text}");
        assert!(too_long(&[c"a".to_owned()], &[]).contains("RLIMIT_STACK"));
    }
}
