//! A measure of a quantity that changes over time (contract 3.7), exact until it is rounded once.

use schemas::book::Span;
use schemas::ledger::Measure;
use schemas::period::EpochSeconds;
use schemas::quantity::divide_half_even;

use super::reference::Month;

/// A stretch of a month during which consumed and purchased stay as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub start: EpochSeconds,
    pub end: EpochSeconds,
    /// Q: licences consumed.
    pub consumed: i128,
    /// The part of Q whose reports were verified.
    pub verified: i128,
    /// P: licences purchased or committed.
    pub purchased: i128,
}

impl Piece {
    /// D = max(0, Q − P).
    #[must_use]
    pub fn delta(&self) -> i128 {
        (self.consumed - self.purchased).max(0)
    }

    fn seconds(&self) -> i128 {
        i128::from(self.end - self.start)
    }
}

/// The pieces of a segment, those at its ends cut to it.
#[must_use]
pub fn clip(pieces: &[Piece], segment: Span) -> Vec<Piece> {
    let first = pieces.partition_point(|p| p.end <= segment.start);
    pieces[first..]
        .iter()
        .take_while(|p| p.start < segment.end)
        .map(|p| Piece { start: p.start.max(segment.start), end: p.end.min(segment.end), ..*p })
        .collect()
}

/// ∫ value dt, in licence-seconds.
#[must_use]
pub fn integral(pieces: &[Piece], value: impl Fn(&Piece) -> i128) -> i128 {
    pieces.iter().map(|p| value(p) * p.seconds()).sum()
}

/// The measure of a value over a segment, in millionths, rounded half to even.
#[must_use]
pub fn measure(
    measure: Measure,
    pieces: &[Piece],
    segment: Span,
    month: &Month,
    value: impl Fn(&Piece) -> i128,
) -> i128 {
    let month_seconds = i128::from(month.span.end - month.span.start);
    let (numerator, denominator) = match measure {
        Measure::Peak => {
            let peak = pieces.iter().map(&value).max().unwrap_or(0);
            (peak * i128::from(segment.end - segment.start), month_seconds)
        }
        Measure::Average => (integral(pieces, value), month_seconds),
        Measure::LicenseDays => (daily_peaks(pieces, &month.day_starts, value), 1),
        Measure::LicenseHours => (integral(pieces, value), 3600),
    };
    divide_half_even(numerator * 1_000_000, denominator)
        .unwrap_or_else(|| unreachable!("a month has seconds"))
}

/// The greatest value of each local day, summed over the days.
fn daily_peaks(
    pieces: &[Piece],
    day_starts: &[EpochSeconds],
    value: impl Fn(&Piece) -> i128,
) -> i128 {
    let mut sum = 0;
    let mut first = 0;
    // A day that the zone leaves out has no length, and no peak.
    for day in day_starts.windows(2).filter(|day| day[0] < day[1]) {
        first += pieces[first..].partition_point(|p| p.end <= day[0]);
        let in_day = pieces[first..].iter().take_while(|p| p.start < day[1]);
        sum += in_day.map(&value).max().unwrap_or(0);
    }
    sum
}
