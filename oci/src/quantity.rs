//! Sizes and times as people write them on a command line, in an annotation or in a file.

use std::time::Duration;

/// Bytes: `64MiB`, `64Mi`, `64M`, `1GiB`, `4096`. Powers of 1024, whatever the letters say, as Docker's users expect of
/// memory.
///
/// # Errors
/// A sentence that says how to write it.
pub fn bytes(text: &str) -> Result<u64, String> {
    const UNITS: &[(&str, u32)] = &[("", 0), ("b", 0), ("k", 10), ("m", 20), ("g", 30), ("t", 40)];
    let (number, unit) = split(text);
    let unit = unit.to_ascii_lowercase();
    let letter =
        ["ib", "i", "b"].iter().find_map(|ending| unit.strip_suffix(ending)).filter(|letter| !letter.is_empty());
    let shift = UNITS.iter().find(|(name, _)| *name == letter.unwrap_or(&unit)).map(|(_, shift)| *shift);
    let size = number.parse::<u64>().ok().zip(shift).and_then(|(number, shift)| number.checked_mul(1 << shift));
    size.filter(|size| *size > 0).ok_or_else(|| format!("{text:?} is no size; write it as 64MiB or 1GiB"))
}

/// `500ms`, `5s`, `2m`, `1h`; a bare number is seconds.
///
/// # Errors
/// A sentence that says how to write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    const UNITS: &[(&str, u64)] = &[("ms", 1), ("", 1000), ("s", 1000), ("m", 60_000), ("h", 3_600_000)];
    let (number, unit) = split(text);
    let scale = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, scale)| *scale);
    let millis = number.parse::<u64>().ok().zip(scale).and_then(|(number, scale)| number.checked_mul(scale));
    let millis = millis.filter(|millis| *millis > 0);
    millis.map(Duration::from_millis).ok_or_else(|| format!("{text:?} is no time; write it as 500ms, 5s, 2m or 1h"))
}

fn split(text: &str) -> (&str, &str) {
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    (number, unit.trim_start())
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for text in ["64MiB", "64Mi", "64m", "64 MB", "65536k", "65536KiB", "67108864", "67108864b"] {
            assert_eq!(bytes(text).unwrap(), 64 << 20, "{text}");
        }
        for text in ["", "MiB", "64x", "-1", "1.5G", "0", "99999999999T", "64ib", "64i"] {
            assert!(bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times() {
        for text in ["60000ms", "60s", "60", "1m"] {
            assert_eq!(duration(text).unwrap(), Duration::from_secs(60), "{text}");
        }
        for text in ["", "s", "0", "5d", "1.5s", "99999999999999999999h"] {
            assert!(duration(text).is_err(), "{text}");
        }
    }
}
