//! Signals by the names people use.

/// Reads `SIGTERM`, `TERM`, `term` or `15`; a number outside 1 to 64 is none.
pub(crate) fn parse(word: &str) -> Option<i32> {
    if let Ok(number) = word.parse::<i32>() {
        return (1..=64).contains(&number).then_some(number);
    }
    let upper = word.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    if let Some(number) =
        NAMES.iter().find_map(|(known, number)| (*known == name).then_some(*number))
    {
        return Some(number);
    }
    // Real-time signals as glibc counts them: the first two belong to threads.
    let (base, sign, rest) = if let Some(rest) = name.strip_prefix("RTMIN") {
        (34, '+', rest)
    } else {
        (64, '-', name.strip_prefix("RTMAX")?)
    };
    let offset = if rest.is_empty() { 0 } else { rest.strip_prefix(sign)?.parse::<u8>().ok()? };
    let number = if sign == '+' { base + i32::from(offset) } else { base - i32::from(offset) };
    (34..=64).contains(&number).then_some(number)
}

const NAMES: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("INT", libc::SIGINT),
    ("QUIT", libc::SIGQUIT),
    ("ILL", libc::SIGILL),
    ("TRAP", libc::SIGTRAP),
    ("ABRT", libc::SIGABRT),
    ("IOT", libc::SIGABRT),
    ("BUS", libc::SIGBUS),
    ("FPE", libc::SIGFPE),
    ("KILL", libc::SIGKILL),
    ("USR1", libc::SIGUSR1),
    ("SEGV", libc::SIGSEGV),
    ("USR2", libc::SIGUSR2),
    ("PIPE", libc::SIGPIPE),
    ("ALRM", libc::SIGALRM),
    ("TERM", libc::SIGTERM),
    ("STKFLT", libc::SIGSTKFLT),
    ("CHLD", libc::SIGCHLD),
    ("CLD", libc::SIGCHLD),
    ("CONT", libc::SIGCONT),
    ("STOP", libc::SIGSTOP),
    ("TSTP", libc::SIGTSTP),
    ("TTIN", libc::SIGTTIN),
    ("TTOU", libc::SIGTTOU),
    ("URG", libc::SIGURG),
    ("XCPU", libc::SIGXCPU),
    ("XFSZ", libc::SIGXFSZ),
    ("VTALRM", libc::SIGVTALRM),
    ("PROF", libc::SIGPROF),
    ("WINCH", libc::SIGWINCH),
    ("IO", libc::SIGIO),
    ("POLL", libc::SIGIO),
    ("PWR", libc::SIGPWR),
    ("SYS", libc::SIGSYS),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(word: &str, expected: Option<i32>) {
        assert_eq!(parse(word), expected, "for {word}");
    }

    #[test]
    fn a_signal_is_read_however_people_write_it() {
        check("SIGTERM", Some(15));
        check("term", Some(15));
        check("9", Some(9));
        check("SIGRTMIN+3", Some(37));
        check("RTMAX-1", Some(63));
        check("SIGRTMIN", Some(34));
    }

    #[test]
    fn what_is_no_signal_is_refused() {
        check("0", None);
        check("65", None);
        check("SIGSIG", None);
        check("RTMIN+31", None);
        check("", None);
    }
}
