//! This process's own memory.

use std::io;

/// Lets go of the pages of the program's code that are mapped now.
///
/// They are the file's and come back from it when they run again; for a process that did a
/// lot once and then mostly waits.
///
/// # Errors
///
/// When `/proc` is not mounted.
pub fn release_code() -> io::Result<()> {
    let maps = std::fs::read_to_string("/proc/self/maps")?;
    for (start, length) in maps.lines().filter_map(code) {
        let start = std::ptr::without_provenance_mut::<libc::c_void>(start);
        // SAFETY: the range is a whole private mapping of a file that is executable and was
        // never writable, as the caller of `code` read a moment ago in the process's own
        // list, so no page of it differs from the file's and dropping them changes nothing
        // that can be read. Should the mapping have gone, the call answers an error.
        unsafe { libc::madvise(start, length, libc::MADV_DONTNEED) };
    }
    Ok(())
}

/// Start and length of a line's mapping, if that is code from a file:
/// `7f59…000-7f59…000 r-xp 0014f000 00:2d 10109149   /carrack-runtime`.
fn code(line: &str) -> Option<(usize, usize)> {
    let mut words = line.split_ascii_whitespace();
    let (range, kind) = (words.next()?, words.next()?);
    let is_file = words.nth(2).is_some_and(|inode| inode != "0");
    if kind != "r-xp" || !is_file {
        return None;
    }
    let (start, end) = range.split_once('-')?;
    let number = |text| usize::from_str_radix(text, 16).ok();
    let start = number(start)?;
    Some((start, number(end)?.checked_sub(start)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn code_of_a_file_is_told_from_all_else() {
        let line = "7f598d366000-7f598d74c000 r-xp 0014f000 00:2d 10109149     /carrack-runtime";
        assert_eq!(code(line), Some((0x7f59_8d36_6000, 0x3e_6000)));
        for other in [
            "7f598d214000-7f598d216000 r-xp 00000000 00:00 0          [vdso]",
            "7f598d74c000-7f598d798000 r--p 00534000 00:2d 10109149   /carrack-runtime",
            "7f598d798000-7f598d79c000 rw-p 0057f000 00:2d 10109149   /carrack-runtime",
            "",
        ] {
            assert_eq!(code(other), None, "{other}");
        }
    }

    #[test]
    fn a_process_goes_on_after_its_code_was_released() {
        release_code().unwrap();
        assert!(
            std::fs::read_to_string("/proc/self/maps")
                .unwrap()
                .lines()
                .any(|line| code(line).is_some())
        );
    }
}
