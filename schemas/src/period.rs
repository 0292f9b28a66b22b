//! Months and days in an account's own zone (contract 3.6, 3.7).

use std::fmt;
use std::str::FromStr;

use jiff::ToSpan as _;
use jiff::civil::{Date, date};
use jiff::tz::{AmbiguousOffset, TimeZone};

/// Seconds since 1970-01-01T00:00:00Z.
pub type EpochSeconds = i64;

/// A calendar month, `YYYY-MM`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Period {
    year: i16,
    month: i8,
}

impl Period {
    /// The month in which an instant lies, in the given zone.
    #[must_use]
    pub fn containing(instant: EpochSeconds, zone: &TimeZone) -> Option<Period> {
        let timestamp = jiff::Timestamp::from_second(instant).ok()?;
        let zoned = timestamp.to_zoned_datetime(zone.clone());
        let period = Period { year: zoned.year(), month: zoned.month() };
        (1970..=9998).contains(&period.year).then_some(period)
    }

    #[must_use]
    pub fn previous(self) -> Period {
        if self.month == 1 {
            Period { year: self.year - 1, month: 12 }
        } else {
            Period { year: self.year, month: self.month - 1 }
        }
    }

    #[must_use]
    pub fn next(self) -> Period {
        if self.month == 12 {
            Period { year: self.year + 1, month: 1 }
        } else {
            Period { year: self.year, month: self.month + 1 }
        }
    }

    #[must_use]
    pub fn first_day(self) -> Date {
        date(self.year, self.month, 1)
    }

    /// The half-open interval `[A, B)` of this month in a zone.
    #[must_use]
    pub fn bounds(self, zone: &TimeZone) -> (EpochSeconds, EpochSeconds) {
        (first_instant(self.first_day(), zone), first_instant(self.next().first_day(), zone))
    }

    /// The first instants of all days of the month, and of the next month: n + 1 instants for n
    /// days. A day that the zone leaves out has the same instant as the day after it.
    #[must_use]
    pub fn day_starts(self, zone: &TimeZone) -> Vec<EpochSeconds> {
        let days = self.first_day().days_in_month();
        (1..=days)
            .map(|day| first_instant(date(self.year, self.month, day), zone))
            .chain(std::iter::once(first_instant(self.next().first_day(), zone)))
            .collect()
    }
}

/// The first instant of a local day: where midnight is missing, the first instant after the gap;
/// where it comes twice, the earlier one.
#[must_use]
pub fn first_instant(day: Date, zone: &TimeZone) -> EpochSeconds {
    let midnight = zone.to_ambiguous_timestamp(day.at(0, 0, 0, 0));
    let offset = midnight.offset();
    let start = match offset {
        // The gap began before or at midnight; the day's first instant is the one after it.
        AmbiguousOffset::Gap { .. } => midnight
            .compatible()
            .and_then(|shifted| shifted.checked_add(1.second()))
            .ok()
            .and_then(|after| zone.preceding(after).next())
            .map(|transition| transition.timestamp()),
        AmbiguousOffset::Unambiguous { .. } | AmbiguousOffset::Fold { .. } => {
            midnight.earlier().ok()
        }
    };
    // Only dates at the very ends of jiff's range (year ±9999) have no instant in it: 9999-12-31, which many write for no
    // end, is taken at midnight UTC.
    start.map_or_else(|| day_number(day) * DAY_SECONDS, |t| t.as_second())
}

const DAY_SECONDS: i64 = 86_400;
const EPOCH: Date = date(1970, 1, 1);

/// Days from 1970-01-01.
fn day_number(day: Date) -> i64 {
    EPOCH.until(day).map_or(0, |span| i64::from(span.get_days()))
}

impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04}-{:02}", self.year, self.month)
    }
}

impl FromStr for Period {
    type Err = String;

    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || format!("'{s}' is no period; write a month as YYYY-MM, for example 2026-10");
        let (year, month) = s.split_once('-').ok_or_else(wrong)?;
        let digits = |t: &str, n| t.len() == n && t.bytes().all(|b| b.is_ascii_digit());
        if !digits(year, 4) || !digits(month, 2) {
            return Err(wrong());
        }
        let (year, month) =
            (year.parse().map_err(|_| wrong())?, month.parse().map_err(|_| wrong())?);
        if !(1970..=9998).contains(&year) || !(1..=12).contains(&month) {
            return Err(wrong());
        }
        Ok(Period { year, month })
    }
}

/// A point in time as the book writes it: an instant, or a bare date whose zone depends on whom it
/// is applied to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Moment {
    At(EpochSeconds),
    Date(Date),
}

impl Moment {
    #[must_use]
    pub fn resolve(self, zone: &TimeZone) -> EpochSeconds {
        match self {
            Moment::At(instant) => instant,
            Moment::Date(day) => first_instant(day, zone),
        }
    }
}

/// 2000-01-01T00:00:00Z: what starts earlier is refused (contract 1.3).
pub const EARLIEST: EpochSeconds = 946_684_800;
/// 9999-12-31T23:59:59Z.
const LATEST: EpochSeconds = 253_402_300_799;

impl FromStr for Moment {
    type Err = String;

    /// Reads RFC 3339 with whole seconds, or a bare date `YYYY-MM-DD`.
    fn from_str(s: &str) -> Result<Self, String> {
        let wrong = || {
            format!(
                "'{s}' is no time; write RFC 3339 (2026-10-01T00:00:00Z) or a date (2026-10-01)"
            )
        };
        let shape = |pattern: &str| {
            s.len() >= pattern.len()
                && s.bytes().zip(pattern.bytes()).all(|(b, p)| match p {
                    b'0' => b.is_ascii_digit(),
                    b'T' => b.eq_ignore_ascii_case(&b'T'),
                    _ => b == p,
                })
        };
        if s.len() == 10 && shape("0000-00-00") {
            return s.parse().map(Moment::Date).map_err(|_| wrong());
        }
        if !shape("0000-00-00T00:00:00") {
            return Err(wrong());
        }
        // The strict form alone: an offset has hours and minutes, and a colon between them.
        let (local, rest) = s.split_at(19);
        let local: jiff::civil::DateTime = local.parse().map_err(|_| wrong())?;
        let (fraction, offset) = match rest.strip_prefix('.') {
            None => ("", rest),
            Some(rest) => {
                let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
                if digits == 0 {
                    return Err(wrong());
                }
                rest.split_at(digits)
            }
        };
        if fraction.bytes().any(|digit| digit != b'0') {
            return Err(format!(
                "'{s}' has a fraction of a second; the book counts in whole seconds"
            ));
        }
        let offset = offset_seconds(offset).ok_or_else(wrong)?;
        let (hour, minute, second) = (local.hour(), local.minute(), local.second());
        let of_day = (i64::from(hour) * 60 + i64::from(minute)) * 60 + i64::from(second);
        let instant = day_number(local.date()) * DAY_SECONDS + of_day - offset;
        if instant > LATEST {
            return Err(format!("'{s}' is after the year 9999 in UTC, which RFC 3339 cannot say"));
        }
        Ok(Moment::At(instant))
    }
}

/// `Z`, or hours and minutes ahead of UTC (RFC 3339, 5.6).
fn offset_seconds(text: &str) -> Option<i64> {
    if text.eq_ignore_ascii_case("z") {
        return Some(0);
    }
    let (sign, rest) = match text.split_at_checked(1)? {
        ("+", rest) => (1, rest),
        ("-", rest) => (-1, rest),
        _ => return None,
    };
    let (hours, minutes) = rest.split_once(':')?;
    let number = |digits: &str, max: i64| {
        let is_number = digits.len() == 2 && digits.bytes().all(|byte| byte.is_ascii_digit());
        let number = if is_number { digits.parse::<i64>().ok() } else { None };
        number.filter(|number| *number <= max)
    };
    Some(sign * (number(hours, 23)? * 60 + number(minutes, 59)?) * 60)
}

/// An instant as RFC 3339 in UTC.
#[must_use]
pub fn rfc3339(instant: EpochSeconds) -> String {
    if let Ok(timestamp) = jiff::Timestamp::from_second(instant) {
        return timestamp.to_string();
    }
    // The last hours of the year 9999 are beyond jiff's instants.
    let (days, seconds) = (instant.div_euclid(DAY_SECONDS), instant.rem_euclid(DAY_SECONDS));
    let day = i32::try_from(days).ok().and_then(|days| EPOCH.checked_add(days.days()).ok());
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    day.map_or_else(
        || instant.to_string(),
        |day| format!("{day}T{hour:02}:{minute:02}:{second:02}Z"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn zone(name: &str) -> TimeZone {
        TimeZone::get(name).unwrap()
    }

    #[test]
    fn months_have_their_true_length() {
        // 30 and 31 days, one hour less or more where the clocks change.
        for (name, period, hours) in [
            ("America/New_York", "2026-03", 31 * 24 - 1),
            ("America/New_York", "2026-11", 30 * 24 + 1),
            ("Europe/Berlin", "2026-03", 31 * 24 - 1),
            ("Europe/Berlin", "2026-10", 31 * 24 + 1),
            ("Asia/Kolkata", "2026-10", 31 * 24),
            ("UTC", "2028-02", 29 * 24),
        ] {
            let (a, b) = period.parse::<Period>().unwrap().bounds(&zone(name));
            assert_eq!(b - a, hours * 3600, "{name} {period}");
        }
    }

    #[test]
    fn a_day_starts_at_its_first_instant() {
        for (name, day, expected) in [
            // Midnight is missing: 00:00 becomes 01:00.
            ("America/Sao_Paulo", date(2018, 11, 4), "2018-11-04T03:00:00Z"),
            ("Africa/Cairo", date(2026, 4, 24), "2026-04-23T22:00:00Z"),
            // Midnight comes twice: at 01:00 the clock goes back to 00:00.
            ("America/Havana", date(2024, 11, 3), "2024-11-03T04:00:00Z"),
            // The whole day is missing: it starts, and ends, where the next one starts.
            ("Pacific/Apia", date(2011, 12, 30), "2011-12-30T10:00:00Z"),
            ("Pacific/Apia", date(2011, 12, 31), "2011-12-30T10:00:00Z"),
            // The gap swallows midnight from half an hour before it (23:30 becomes 00:30).
            ("America/Toronto", date(1919, 3, 31), "1919-03-31T04:30:00Z"),
        ] {
            assert_eq!(rfc3339(first_instant(day, &zone(name))), expected, "{name} {day}");
        }
    }

    #[test]
    fn times_are_rfc_3339_to_the_letter() {
        for (text, expected) in [
            ("2026-10-01T00:00:00Z", "2026-10-01T00:00:00Z"),
            ("2026-10-01t02:00:00.000+02:00", "2026-10-01T00:00:00Z"),
            ("2026-09-30T14:29:59-09:30", "2026-09-30T23:59:59Z"),
            ("1969-12-31T23:59:59z", "1969-12-31T23:59:59Z"),
            // Beyond the library's last instant.
            ("9999-12-31T23:59:59Z", "9999-12-31T23:59:59Z"),
            ("9999-12-31", "9999-12-31T00:00:00Z"),
            ("2026-10-01T00:00:00+0100", "wrong"),
            ("2026-10-01T00:00:00+01", "wrong"),
            ("2026-10-01T00:00:00+24:00", "wrong"),
            ("2026-10-01T00:00:00+01:60", "wrong"),
            ("2026-10-01T00:00:00+01:00:30", "wrong"),
            ("2026-10-01T00:00:00+01:00[Europe/Berlin]", "wrong"),
            ("2026-10-01T00:00:00,0Z", "wrong"),
            ("2026-10-01T00:00:00.Z", "wrong"),
            ("2026-10-01T00:00:00.5Z", "wrong"),
            ("2026-10-01T00:00:00", "wrong"),
            ("2026-10-01T24:00:00Z", "wrong"),
            ("2026-02-29T00:00:00Z", "wrong"),
        ] {
            let read = text.parse::<Moment>().map(|moment| rfc3339(moment.resolve(&TimeZone::UTC)));
            assert_eq!(read.unwrap_or_else(|_| "wrong".to_owned()), expected, "{text}");
        }
        let last = "9999-12-31".parse::<Moment>().unwrap();
        assert!(
            last.resolve(&zone("America/New_York"))
                > "9999-12-30".parse::<Moment>().unwrap().resolve(&zone("UTC"))
        );
    }

    #[test]
    fn days_tile_the_month() {
        for name in ["America/New_York", "Europe/Berlin", "Pacific/Apia", "Africa/Cairo"] {
            let zone = zone(name);
            let mut period: Period = "2011-11".parse().unwrap();
            for _ in 0..24 {
                let (a, b) = period.bounds(&zone);
                let days = period.day_starts(&zone);
                assert_eq!((days[0], days[days.len() - 1]), (a, b));
                assert!(days.is_sorted(), "{name} {period}");
                assert_eq!(b, period.next().bounds(&zone).0);
                period = period.next();
            }
        }
    }

    #[test]
    fn periods_and_moments_are_read_strictly() {
        for bad in ["2026-13", "2026-00", "2026-1", "26-10", "2026-10-01", "", "2026/10", "9999-01"]
        {
            assert!(bad.parse::<Period>().is_err(), "{bad}");
        }
        for bad in [
            "2026-02-30",
            "2026-10-01 00:00",
            "2026-10-01T00:00:00",
            "yesterday",
            "",
            "2026-10-01T00:00:00.5Z",
        ] {
            assert!(bad.parse::<Moment>().is_err(), "{bad}");
        }
        assert_eq!("2026-10-01T02:00:00+02:00".parse(), Ok(Moment::At(1_790_812_800)));
        assert_eq!("2026-10-01".parse(), Ok(Moment::Date(date(2026, 10, 1))));
    }
}
