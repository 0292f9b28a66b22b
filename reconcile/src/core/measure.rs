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

/// One of the parts that a measure is the sum of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MeasurePart {
    pub start: EpochSeconds,
    pub end: EpochSeconds,
    pub value: i128,
    /// What the value is multiplied by.
    pub weight: i128,
}

/// The parts of a measure, and what their sum is divided by before the one rounding: of the peak, the
/// first stretch that has it; of an average and of hours, each stretch by its seconds; of days, the first
/// stretch of each day that has its peak.
#[must_use]
pub fn measure_parts(
    measure: Measure,
    pieces: &[Piece],
    segment: Span,
    month: &Month,
    value: impl Fn(&Piece) -> i128,
) -> (Vec<MeasurePart>, i128) {
    let month_seconds = i128::from(month.span.end - month.span.start);
    let part = |piece: &Piece, weight| MeasurePart {
        start: piece.start,
        end: piece.end,
        value: value(piece),
        weight,
    };
    let greatest = |pieces: &[Piece]| -> Option<Piece> {
        pieces.iter().rev().max_by_key(|p| value(p)).copied().filter(|p| value(p) > 0)
    };
    let of_seconds = || {
        let used = pieces.iter().filter(|p| value(p) > 0);
        used.map(|p| part(p, p.seconds())).collect::<Vec<_>>()
    };
    match measure {
        Measure::Peak => {
            let weight = i128::from(segment.end - segment.start);
            (greatest(pieces).iter().map(|p| part(p, weight)).collect(), month_seconds)
        }
        Measure::Average => (of_seconds(), month_seconds),
        Measure::LicenseHours => (of_seconds(), 3600),
        Measure::LicenseDays => {
            let days = month.day_starts.windows(2).filter(|day| day[0] < day[1]);
            let peaks = days.filter_map(|day| {
                let within = clip(pieces, Span { start: day[0], end: day[1] });
                greatest(&within).map(|p| part(&p, 1))
            });
            (peaks.collect(), 1)
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// What is shown of a quantity comes to the quantity.
        #[test]
        fn the_parts_of_a_measure_come_to_it(
            lengths in prop::collection::vec((1i64..200_000, 0i128..9, 0i128..5), 1..12),
            cut in 0i64..100_000,
        ) {
            const DAY: i64 = 86_400;
            let month = Month {
                span: Span { start: 0, end: 30 * DAY },
                day_starts: (0..=30).map(|day| day * DAY).collect(),
            };
            let mut at = cut;
            let mut pieces = Vec::new();
            for (length, consumed, purchased) in lengths {
                let end = (at + length).min(month.span.end);
                if at < end {
                    pieces.push(Piece { start: at, end, consumed, verified: 0, purchased });
                }
                at = end;
            }
            let segment = Span { start: cut, end: month.span.end };
            for word in Measure::WORDS {
                let of = Measure::parse(word).ok_or_else(|| TestCaseError::fail("a measure"))?;
                let (parts, divisor) = measure_parts(of, &pieces, segment, &month, Piece::delta);
                let sum: i128 = parts.iter().map(|p| p.value * p.weight).sum();
                let quantity = measure(of, &pieces, segment, &month, Piece::delta);
                prop_assert_eq!(divide_half_even(sum * 1_000_000, divisor), Some(quantity));
            }
        }
    }
}
