//! Days, by which the user says how long a key counts: whole days of UTC, written `2027-01-31`.

use std::fmt;
use std::str::FromStr;

use time::{Date, Month, OffsetDateTime};

/// Seconds of a day; UTC as computers count it has no leap seconds.
const DAY_SECS: u64 = 86_400;

/// A day of UTC.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Day(Date);

/// A text that is no day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a day is written as year, month and day: `2027-01-31`")]
pub struct DayError;

impl Day {
    /// The first second after the day, since 1970. A day before 1970 has passed whenever it is asked.
    pub fn end_unix_secs(self) -> u64 {
        let begin = self.0.midnight().assume_utc().unix_timestamp();
        u64::try_from(begin).map_or(0, |begin| begin + DAY_SECS)
    }

    /// The last day that is whole before a second since 1970; `None` beyond the calendar.
    pub fn before(unix_secs: u64) -> Option<Self> {
        let last = i64::try_from(unix_secs.saturating_sub(1)).ok()?;
        let date = OffsetDateTime::from_unix_timestamp(last).ok()?.date();
        Some(Self(date))
    }
}

impl FromStr for Day {
    type Err = DayError;

    fn from_str(text: &str) -> Result<Self, DayError> {
        let digits = |part: Option<&str>, count: usize| {
            part.filter(|p| p.len() == count && p.bytes().all(|b| b.is_ascii_digit()))
                .and_then(|p| p.parse::<u16>().ok())
                .ok_or(DayError)
        };
        let mut parts = text.split('-');
        let year = digits(parts.next(), 4)?;
        let month = u8::try_from(digits(parts.next(), 2)?).map_err(|_| DayError)?;
        let day = u8::try_from(digits(parts.next(), 2)?).map_err(|_| DayError)?;
        if parts.next().is_some() {
            return Err(DayError);
        }
        let month = Month::try_from(month).map_err(|_| DayError)?;
        Date::from_calendar_date(i32::from(year), month, day)
            .map(Self)
            .map_err(|_| DayError)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (year, month, day) = self.0.to_calendar_date();
        write!(f, "{year:04}-{:02}-{day:02}", u8::from(month))
    }
}

impl fmt::Debug for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Day({self})")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_day_ends_where_the_next_begins() {
        let day: Day = "1970-01-01".parse().unwrap();
        assert_eq!(day.end_unix_secs(), 86_400);
        assert_eq!(Day::before(86_400), Some(day));
        assert_eq!(Day::before(86_401).unwrap().to_string(), "1970-01-02");
        assert_eq!("1969-12-31".parse::<Day>().unwrap().end_unix_secs(), 0);
    }

    #[test]
    fn days_that_do_not_exist_are_refused() {
        for text in [
            "",
            "2027",
            "2027-1-1",
            "2027-02-29",
            "2027-13-01",
            "2027-01-01-",
            "+027-01-01",
            "2027-01-0x",
        ] {
            assert_eq!(text.parse::<Day>(), Err(DayError), "{text:?}");
        }
        assert!("2028-02-29".parse::<Day>().is_ok());
    }

    proptest! {
        #[test]
        fn what_is_printed_is_read_back(secs in 1u64..200_000_000_000) {
            let day = Day::before(secs).unwrap();
            prop_assert_eq!(day.to_string().parse(), Ok(day));
            prop_assert_eq!(Day::before(day.end_unix_secs()), Some(day));
        }
    }
}
