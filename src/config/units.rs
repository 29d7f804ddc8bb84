//! Durations with units.

use std::time::Duration;

use super::error::ConfigError;

/// Units, longest name first where one ends like another.
const UNITS: [(&str, u64); 6] = [
    ("us", 1),
    ("ms", 1_000),
    ("min", 60_000_000),
    ("s", 1_000_000),
    ("h", 3_600_000_000),
    ("d", 86_400_000_000),
];

/// The longest duration that is taken.
const MAX: Duration = Duration::from_secs(366 * 86_400);

/// Reads a duration such as `10ms`, `2s`, `5min`, `1h`; `0` needs no unit.
///
/// # Errors
/// It has no unit, or is none.
pub fn duration(key: &str, text: &str) -> Result<Duration, ConfigError> {
    let text = text.trim();
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let remedy = if number.is_empty() {
        r#"write a whole number with a unit, such as "10ms", "2s", "5min" or "1h""#.to_owned()
    } else {
        format!(r#"a duration needs a unit (us, ms, s, min, h, d); write "{number}ms" or "{number}s""#)
    };
    let bad = || ConfigError::value(key, text, remedy.clone());
    let number: u64 = number.parse().map_err(|_| bad())?;
    let (_, micros) = UNITS.iter().find(|(name, _)| *name == unit.trim()).ok_or_else(bad)?;
    let duration = number.checked_mul(*micros).map(Duration::from_micros).filter(|d| *d <= MAX);
    duration.ok_or_else(|| ConfigError::value(key, text, "that is longer than a year"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_none_is_guessed() {
        let read = |text| duration("k", text).ok().map(|d| d.as_micros());
        assert_eq!(read("10ms"), Some(10_000));
        assert_eq!(read("5us"), Some(5));
        assert_eq!(read("2 s"), Some(2_000_000));
        assert_eq!(read("5min"), Some(300_000_000));
        assert_eq!(read("1h"), Some(3_600_000_000));
        assert_eq!(read("0"), Some(0));
        for bad in ["10", "ms", "", "1.5s", "-1s", "10 parsecs", "999999999999d", "99999999999999999999s"] {
            assert_eq!(read(bad), None, "{bad}");
        }
        let error = duration("freshness.replica_wait", "10").unwrap_err().to_string();
        assert_eq!(
            error,
            r#"freshness.replica_wait = "10": a duration needs a unit (us, ms, s, min, h, d); write "10ms" or "10s""#
        );
    }
}
