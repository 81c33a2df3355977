//! Sizes, durations and command lines as Compose writes them.

use std::time::Duration;

/// Reads `512`, `64m`, `1.5g`, `10KiB`: bytes, in powers of 1024.
pub fn bytes(text: &str) -> Option<u64> {
    let text = text.trim().to_ascii_lowercase();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return None,
    };
    decimal(number, 1u64 << shift)
}

/// Reads a number of CPUs, such as `0.5`, in billionths of a CPU.
pub fn nano_cpus(text: &str) -> Option<u64> {
    decimal(text.trim(), 1_000_000_000)
}

/// `number` times `unit`, exactly, without going through a floating point number.
fn decimal(number: &str, unit: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
    if (whole.is_empty() && fraction.is_empty()) || !all_digits(whole) || !all_digits(fraction) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut total = u128::from(whole).checked_mul(u128::from(unit))?;
    let fraction = fraction.get(..fraction.len().min(18))?;
    if !fraction.is_empty() {
        let digits: u128 = fraction.parse().ok()?;
        let scale = 10u128.checked_pow(u32::try_from(fraction.len()).ok()?)?;
        total = total.checked_add(digits * u128::from(unit) / scale)?;
    }
    u64::try_from(total).ok()
}

/// Reads `1m30s`, `500ms`, `2h`; a unit is needed except for `0`.
pub fn duration(text: &str) -> Option<Duration> {
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total = 0u64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(digits);
        let unit_end = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let nanos = match unit {
            "ns" => 1,
            "us" | "µs" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            "d" => 86_400_000_000_000,
            _ => return None,
        };
        total = total.checked_add(decimal(number, nanos)?)?;
        rest = tail;
    }
    Some(Duration::from_nanos(total))
}

/// Splits a command line into words as a shell would, quotes and backslashes
/// understood and nothing else. `None` when a quote is left open.
pub(crate) fn words(line: &str) -> Option<Vec<String>> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut characters = line.chars();
    while let Some(character) = characters.next() {
        match character {
            ' ' | '\t' | '\n' | '\r' => words.extend(word.take()),
            '\'' => {
                let word = word.get_or_insert_default();
                loop {
                    match characters.next()? {
                        '\'' => break,
                        inner => word.push(inner),
                    }
                }
            }
            '"' => double_quoted(&mut characters, word.get_or_insert_default())?,
            '\\' => match characters.next()? {
                '\n' => {}
                escaped => word.get_or_insert_default().push(escaped),
            },
            other => word.get_or_insert_default().push(other),
        }
    }
    words.extend(word);
    Some(words)
}

fn double_quoted(characters: &mut std::str::Chars<'_>, word: &mut String) -> Option<()> {
    loop {
        match characters.next()? {
            '"' => return Some(()),
            '\\' => match characters.next()? {
                escaped @ ('"' | '\\' | '$' | '`') => word.push(escaped),
                '\n' => {}
                other => word.extend(['\\', other]),
            },
            inner => word.push(inner),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_exact() {
        assert_eq!(bytes("128m"), Some(128 << 20));
        assert_eq!(bytes("1.5g"), Some(3 << 29));
        assert_eq!(bytes("10KiB"), Some(10 << 10));
        assert_eq!(bytes("4096"), Some(4096));
        assert_eq!(bytes("1 GB"), Some(1 << 30));
        for wrong in ["", "m", "-1", "1x", "1.2.3m", "99999999t"] {
            assert_eq!(bytes(wrong), None, "for {wrong:?}");
        }
    }

    #[test]
    fn cpus_are_counted_in_billionths() {
        assert_eq!(nano_cpus("0.5"), Some(500_000_000));
        assert_eq!(nano_cpus("2"), Some(2_000_000_000));
        assert_eq!(nano_cpus("half"), None);
    }

    #[test]
    fn durations_add_up_and_need_their_units() {
        assert_eq!(duration("1m30s"), Some(Duration::from_secs(90)));
        assert_eq!(duration("1.5s"), Some(Duration::from_millis(1500)));
        assert_eq!(duration("0"), Some(Duration::ZERO));
        for wrong in ["", "10", "1x", "s", "-1s"] {
            assert_eq!(duration(wrong), None, "for {wrong:?}");
        }
    }

    #[test]
    fn a_command_line_is_split_as_a_shell_would() {
        assert_eq!(
            words(r#"sh -c 'echo "a b"' x\ y "q\"r" ''"#),
            Some(vec![
                "sh".into(),
                "-c".into(),
                "echo \"a b\"".into(),
                "x y".into(),
                "q\"r".into(),
                String::new(),
            ])
        );
        assert_eq!(words("echo 'open"), None);
    }
}
