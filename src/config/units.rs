//! Amounts as people write them: `30m`, `4MiB`, `100`. Pure; every error says what would have been
//! right.

use std::ops::RangeInclusive;
use std::time::Duration;

/// Suffix and milliseconds of a unit of time, largest first.
const TIMES: [(&str, u64); 5] = [
    ("d", 86_400_000),
    ("h", 3_600_000),
    ("m", 60_000),
    ("s", 1_000),
    ("ms", 1),
];

/// Suffix and bytes of a unit of size, largest first.
const SIZES: [(&str, u64); 4] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("", 1),
];

/// A time: `0`, or a whole number with `ms`, `s`, `m`, `h` or `d`.
pub(crate) fn duration(text: &str, allowed: RangeInclusive<Duration>) -> Result<Duration, String> {
    let amount = match text {
        "0" => Some(0),
        _ => amount(text, &TIMES),
    };
    let Some(amount) = amount else {
        return Err(format!(
            "{text:?} is not a time: write it like 90s, 30m, 2h or 1d"
        ));
    };
    let time = Duration::from_millis(amount);
    if !allowed.contains(&time) {
        return Err(format!(
            "{text} is not between {} and {}",
            show_time(allowed.start()),
            show_time(allowed.end())
        ));
    }
    Ok(time)
}

/// A size in bytes: a whole number, or one with `KiB`, `MiB` or `GiB`.
pub(crate) fn size(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    let Some(size) = amount(text, &SIZES).and_then(|size| usize::try_from(size).ok()) else {
        return Err(format!(
            "{text:?} is not a size: write it like 1000, 16KiB or 4MiB"
        ));
    };
    if !allowed.contains(&size) {
        return Err(format!(
            "{text} is not between {} and {}",
            show_size(*allowed.start()),
            show_size(*allowed.end())
        ));
    }
    Ok(size)
}

/// A plain number.
pub(crate) fn count(text: &str, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    let Some(count) = digits(text).and_then(|count| usize::try_from(count).ok()) else {
        return Err(format!("{text:?} is not a whole number"));
    };
    if !allowed.contains(&count) {
        return Err(format!(
            "{text} is not between {} and {}",
            allowed.start(),
            allowed.end()
        ));
    }
    Ok(count)
}

fn amount(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let end = text
        .find(|letter: char| !letter.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, suffix) = text.split_at(end);
    let (_, factor) = units.iter().find(|(name, _)| *name == suffix)?;
    digits(number)?.checked_mul(*factor)
}

/// Digits only: `str::parse` would take a sign too.
fn digits(text: &str) -> Option<u64> {
    if !text.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    text.parse().ok()
}

fn show_time(time: &Duration) -> String {
    show(u64::try_from(time.as_millis()).unwrap_or(u64::MAX), &TIMES)
}

fn show_size(size: usize) -> String {
    show(u64::try_from(size).unwrap_or(u64::MAX), &SIZES)
}

/// The amount in the largest unit that fits it without a rest.
fn show(amount: u64, units: &[(&str, u64)]) -> String {
    match units
        .iter()
        .find(|(_, factor)| amount != 0 && amount.is_multiple_of(*factor))
    {
        Some((name, factor)) => format!("{}{name}", amount / factor),
        None => amount.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times() {
        let check = |text: &str, expected: Result<u64, &str>| {
            let allowed = Duration::ZERO..=Duration::from_hours(48);
            let found = duration(text, allowed).map(|time| time.as_millis() as u64);
            assert_eq!(found, expected.map_err(str::to_owned), "{text}");
        };
        check("0", Ok(0));
        check("0s", Ok(0));
        check("250ms", Ok(250));
        check("90s", Ok(90_000));
        check("30m", Ok(1_800_000));
        check("2h", Ok(7_200_000));
        check("1d", Ok(86_400_000));
        check("3d", Err("3d is not between 0 and 2d"));
        for text in [
            "",
            "10",
            "s",
            "-1s",
            "+1s",
            "1.5h",
            "1 h",
            "1H",
            "1w",
            "٣s",
            "99999999999999999999s",
            "999999999999999d",
        ] {
            check(
                text,
                Err(&format!(
                    "{text:?} is not a time: write it like 90s, 30m, 2h or 1d"
                )),
            );
        }
    }

    #[test]
    fn sizes() {
        let check = |text: &str, expected: Result<usize, &str>| {
            assert_eq!(
                size(text, 1024..=64 << 20),
                expected.map_err(str::to_owned),
                "{text}"
            );
        };
        check("1024", Ok(1024));
        check("16KiB", Ok(16 << 10));
        check("4MiB", Ok(4 << 20));
        check("64MiB", Ok(64 << 20));
        check("1023", Err("1023 is not between 1KiB and 64MiB"));
        check("1GiB", Err("1GiB is not between 1KiB and 64MiB"));
        for text in ["", "MiB", "4MB", "4 MiB", "-4", "4.5MiB", "99999999999GiB"] {
            check(
                text,
                Err(&format!(
                    "{text:?} is not a size: write it like 1000, 16KiB or 4MiB"
                )),
            );
        }
    }

    #[test]
    fn counts() {
        let check = |text: &str, expected: Result<usize, &str>| {
            assert_eq!(
                count(text, 0..=100),
                expected.map_err(str::to_owned),
                "{text}"
            );
        };
        check("0", Ok(0));
        check("100", Ok(100));
        check("101", Err("101 is not between 0 and 100"));
        for text in ["", "+1", "-1", "1e2", "1.0", "ten"] {
            check(text, Err(&format!("{text:?} is not a whole number")));
        }
    }
}
