//! Sizes and times as people write and read them.

use std::time::Duration;

/// Bytes with one decimal in decimal units, as Docker shows image sizes.
pub(crate) fn size(bytes: u64) -> String {
    scaled(bytes, 1000, &["B", "kB", "MB", "GB", "TB"])
}

/// Bytes with one decimal in binary units, as Docker shows memory.
pub(crate) fn memory(bytes: u64) -> String {
    scaled(bytes, 1024, &["B", "KiB", "MiB", "GiB", "TiB"])
}

fn scaled(bytes: u64, step: u64, units: &[&str]) -> String {
    let mut unit = 0;
    let mut whole = bytes;
    let mut divisor = 1_u64;
    while whole >= step && unit + 1 < units.len() {
        whole /= step;
        divisor = divisor.saturating_mul(step);
        unit += 1;
    }
    if unit == 0 {
        return format!("{bytes}{}", units[0]);
    }
    let tenths = bytes.saturating_mul(10) / divisor;
    format!("{}.{}{}", tenths / 10, tenths % 10, units[unit])
}

/// A length of time in its largest unit, as Docker shows ages.
pub(crate) fn age(elapsed: Duration) -> String {
    let seconds = elapsed.as_secs();
    let (count, unit) = match seconds {
        0..60 => (seconds, "second"),
        60..3_600 => (seconds / 60, "minute"),
        3_600..172_800 => (seconds / 3_600, "hour"),
        _ => (seconds / 86_400, "day"),
    };
    if count == 1 { format!("1 {unit}") } else { format!("{count} {unit}s") }
}

/// Milliseconds with as many digits as matter.
pub(crate) fn millis(milliseconds: f64) -> String {
    if milliseconds < 10.0 {
        format!("{milliseconds:.1}ms")
    } else if milliseconds < 10_000.0 {
        format!("{milliseconds:.0}ms")
    } else {
        format!("{:.1}s", milliseconds / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_keep_one_decimal() {
        assert_eq!(size(999), "999B");
        assert_eq!(size(1_540_000), "1.5MB");
        assert_eq!(memory(1536), "1.5KiB");
    }

    #[test]
    fn one_of_a_unit_is_singular() {
        assert_eq!(age(Duration::from_secs(1)), "1 second");
        assert_eq!(age(Duration::from_secs(7200)), "2 hours");
    }
}
