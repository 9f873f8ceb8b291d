//! Times in flags. Pure.

use std::time::Duration;

/// A time such as `10m`, for a flag.
pub(super) fn time(text: &str) -> Result<Duration, String> {
    let parsed: kube::core::Duration = text
        .parse()
        .map_err(|_| "not a time such as 90s, 10m or 1h30m".to_owned())?;
    if parsed.is_negative() {
        return Err("it must not be negative".to_owned());
    }
    Ok(parsed.into())
}

/// A time such as `3d`, `12h` or `90m`, for a flag.
pub(super) fn days(text: &str) -> Result<Duration, String> {
    if text.is_empty() {
        return Err("not a time such as 3d, 12h or 90m".to_owned());
    }
    let Some(number) = text.strip_suffix('d') else {
        return time(text).map_err(|_| "not a time such as 3d, 12h or 90m".to_owned());
    };
    let number: u32 = number
        .parse()
        .map_err(|_| "not a number of days such as 3d".to_owned())?;
    Ok(Duration::from_hours(24) * number)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_can_be_days() {
        assert_eq!(days("3d"), Ok(Duration::from_hours(72)));
        assert_eq!(days("12h"), Ok(Duration::from_hours(12)));
        for bad in ["", "d", "-1d", "1.5d", "soon"] {
            assert!(days(bad).is_err(), "{bad}");
        }
    }
}
