//! When an image was made: as its maker says, never what the clock says, for the same input must give the same image.

use anyhow::{Result, anyhow};

/// Set by who wants a date in the image. Source: reproducible-builds.org, "SOURCE_DATE_EPOCH".
pub(crate) const VARIABLE: &str = "SOURCE_DATE_EPOCH";

/// The last second that RFC 3339 can write: 9999-12-31T23:59:59Z.
const LAST: u64 = 253_402_300_799;

/// Seconds since 1970, UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Timestamp(u64);

impl Timestamp {
    /// Reads the variable's value.
    ///
    /// # Errors
    /// It is no number of seconds, or behind the year 9999.
    pub(crate) fn parse(value: &str) -> Result<Self> {
        let seconds = value.parse().ok().filter(|seconds| *seconds <= LAST);
        seconds.map(Self).ok_or_else(|| {
            anyhow!(
                "{VARIABLE}={value:?} is not a number of seconds since 1970, such as `git log -1 --pretty=%ct` prints"
            )
        })
    }

    /// The variable's value; `None` where it isn't set.
    ///
    /// # Errors
    /// As [`Self::parse`].
    pub(crate) fn from_environment() -> Result<Option<Self>> {
        match std::env::var_os(VARIABLE) {
            None => Ok(None),
            Some(value) => Self::parse(&value.to_string_lossy()).map(Some),
        }
    }

    /// Seconds since 1970.
    pub(crate) fn seconds(self) -> u64 {
        self.0
    }

    /// Such as `1970-01-01T00:00:00Z`.
    pub(crate) fn rfc3339(self) -> String {
        let (days, second) = (self.0 / 86_400, self.0 % 86_400);
        let (year, month, day) = civil(days);
        format!("{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z", second / 3600, second / 60 % 60, second % 60)
    }
}

/// Year, month and day of a number of days since 1970. Years begin in March here, so that the leap day is the last.
/// Source: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: u64) -> (u64, u64, u64) {
    const DAYS_IN_400_YEARS: u64 = 146_097;
    // From 1970-01-01 back to 0000-03-01.
    let days = days + 719_468;
    let (era, day_of_era) = (days / DAYS_IN_400_YEARS, days % DAYS_IN_400_YEARS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn writes_dates() {
        let table = [
            ("0", "1970-01-01T00:00:00Z"),
            ("951782399", "2000-02-28T23:59:59Z"),
            ("951782400", "2000-02-29T00:00:00Z"),
            ("951868800", "2000-03-01T00:00:00Z"),
            ("1700000000", "2023-11-14T22:13:20Z"),
            ("4107542400", "2100-03-01T00:00:00Z"),
            ("253402300799", "9999-12-31T23:59:59Z"),
        ];
        for (seconds, expected) in table {
            assert_eq!(Timestamp::parse(seconds).unwrap().rfc3339(), expected);
        }
    }

    #[test]
    fn refuses_what_is_no_date() {
        for value in ["", "yesterday", "-1", "1.5", "253402300800", "99999999999999999999"] {
            assert!(Timestamp::parse(value).unwrap_err().to_string().contains("SOURCE_DATE_EPOCH"), "{value}");
        }
    }
}
