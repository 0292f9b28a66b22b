//! A row of one file while it is read: fields by name, every error with its place.

use std::collections::{HashMap, HashSet};
use std::str::FromStr as _;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;

use super::*;
use crate::udi::IDENTIFIER_BYTES_MAX;

const QUANTITY_PLACES_MAX: u32 = 6;
/// Digits before the point of a price or quantity: with all its places it is an exact 128-bit number.
const WHOLE_DIGITS_MAX: usize = 26;

/// A row of one file while it is read: fields by name, errors with their place.
pub(super) struct Row<'a> {
    pub(super) spec: &'static TableSpec,
    pub(super) line: u64,
    pub(super) cells: RowCells<'a>,
    pub(super) errors: &'a mut Vec<BookError>,
    /// The book is imported, not read from the lake: what was taken before stays readable.
    pub(super) is_new: bool,
    pub(super) failed: bool,
}

impl<'a> Row<'a> {
    pub(super) fn fail(&mut self, column: &str, message: impl Into<String>) {
        self.failed = true;
        self.errors.push(BookError {
            file: format!("{}.csv", self.spec.name),
            line: self.line,
            column: column.to_owned(),
            message: message.into(),
        });
    }

    /// Fails a row that is imported; one that the lake holds already stays as it is.
    pub(super) fn fail_new(&mut self, column: &str, message: impl Into<String>) {
        if self.is_new {
            self.fail(column, message);
        }
    }

    /// The text of a column, which may be blank.
    pub(super) fn text(&self, column: &str) -> &'a str {
        let index = self.spec.columns.iter().position(|c| *c == column);
        index.and_then(|i| self.cells.get(i)).unwrap_or_default()
    }

    pub(super) fn required(&mut self, column: &str) -> String {
        let text = self.text(column);
        if text.is_empty() {
            self.fail(column, "must not be blank");
        }
        text.to_owned()
    }

    pub(super) fn identifier(&mut self, column: &str) -> String {
        let text = self.required(column);
        if text.len() > IDENTIFIER_BYTES_MAX {
            self.fail(column, format!("longer than {IDENTIFIER_BYTES_MAX} bytes"));
        }
        text
    }

    pub(super) fn udi(&mut self) -> Udi {
        Udi::new(self.identifier("udi_pid"), self.identifier("udi_serial"))
    }

    pub(super) fn word<T>(
        &mut self,
        column: &str,
        words: &[&str],
        parse: fn(&str) -> Option<T>,
    ) -> Option<T> {
        let word = parse(self.text(column));
        if word.is_none() {
            self.fail(column, format!("'{}' is none of {}", self.text(column), words.join(", ")));
        }
        word
    }

    /// A word, or blank for any.
    pub(super) fn word_or_any<T>(
        &mut self,
        column: &str,
        words: &[&str],
        parse: fn(&str) -> Option<T>,
    ) -> Option<T> {
        if self.text(column).is_empty() { None } else { self.word(column, words, parse) }
    }

    pub(super) fn boolean(&mut self, column: &str) -> bool {
        match self.text(column) {
            "true" => true,
            "false" => false,
            other => {
                self.fail(column, format!("'{other}' is neither true nor false"));
                false
            }
        }
    }

    pub(super) fn whole(&mut self, column: &str, max: u64) -> u64 {
        let text = self.text(column);
        let digits = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        match text.parse::<u64>() {
            Ok(n) if digits && n <= max => n,
            _ => {
                self.fail(column, format!("'{text}' is no whole number from 0 to {max}"));
                0
            }
        }
    }

    pub(super) fn days(&mut self, column: &str) -> u32 {
        u32::try_from(self.whole(column, 36_500)).unwrap_or(0)
    }

    /// A decimal that is not negative, in plain digits.
    pub(super) fn decimal(&mut self, column: &str, places_max: u32) -> Decimal {
        let text = self.text(column);
        let (whole, fraction) = text.split_once('.').unwrap_or((text, "0"));
        let digits = |t: &str| !t.is_empty() && t.bytes().all(|b| b.is_ascii_digit());
        let value =
            Decimal::from_str_exact(text).ok().filter(|_| digits(whole) && digits(fraction));
        match value {
            Some(_) if whole.trim_start_matches('0').len() > WHOLE_DIGITS_MAX => {
                self.fail(
                    column,
                    format!("'{text}' has more than {WHOLE_DIGITS_MAX} digits before the point"),
                );
                Decimal::ZERO
            }
            Some(value) if value.normalize().scale() <= places_max => value.normalize(),
            Some(_) => {
                self.fail(column, format!("'{text}' has more than {places_max} decimal places"));
                Decimal::ZERO
            }
            None => {
                self.fail(
                    column,
                    format!("'{text}' is no decimal number of up to 28 digits, such as 12.50"),
                );
                Decimal::ZERO
            }
        }
    }

    pub(super) fn positive_decimal(&mut self, column: &str) -> Option<Decimal> {
        if self.text(column).is_empty() {
            return None;
        }
        let value = self.decimal(column, QUANTITY_PLACES_MAX);
        if value.is_zero() && !self.failed {
            self.fail(column, "must be greater than 0");
        }
        Some(value)
    }

    pub(super) fn moment(&mut self, column: &str) -> Moment {
        match Moment::from_str(self.text(column)) {
            Ok(moment) => moment,
            Err(message) => {
                self.fail(column, message);
                Moment::At(0)
            }
        }
    }

    pub(super) fn moment_or_open(&mut self, column: &str) -> Option<Moment> {
        if self.text(column).is_empty() { None } else { Some(self.moment(column)) }
    }

    /// A half-open interval from two columns, bare dates in the given zone.
    pub(super) fn span(&mut self, zone: &TimeZone, start: &str, end: &str) -> Span {
        let from = self.moment(start).resolve(zone);
        let to = self.moment_or_open(end).map_or(i64::MAX, |m| m.resolve(zone));
        if to <= from && !self.failed {
            self.fail(end, format!("must be after {start}"));
        }
        Span { start: from, end: to }
    }

    /// The account that two columns name.
    pub(super) fn account(&mut self, accounts: &Accounts<'_>) -> usize {
        let id = AccountId {
            smart: self.required("smart_account"),
            virtual_: self.required("virtual_account"),
        };
        match accounts.by_id.get(&id) {
            Some(&index) => index,
            None => {
                // One whose own row is wrong is told there.
                let is_told = accounts.named.contains(&id);
                if !is_told && !id.smart.is_empty() && !id.virtual_.is_empty() {
                    self.fail("virtual_account", format!("accounts.csv has no account {id}"));
                }
                self.failed = true;
                usize::MAX
            }
        }
    }
}

pub(super) struct Accounts<'a> {
    pub(super) all: &'a [Account],
    pub(super) by_id: HashMap<AccountId, usize>,
    pub(super) named: &'a HashSet<AccountId>,
    pub(super) utc: TimeZone,
}

impl Accounts<'_> {
    pub(super) fn zone(&self, index: usize) -> &TimeZone {
        self.all.get(index).map_or(&self.utc, |a| &a.zone)
    }
}
