//! Statements as files: Parquet, XLSX, FOCUS and PDF.

pub mod focus;
pub mod parquet;
#[cfg(feature = "pdf")]
pub mod pdf;
pub mod xlsx;

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::Context as _;
use rust_decimal::Decimal;
use schemas::ledger::{Charge, Line};
use schemas::quantity::{
    AMOUNT_SCALE, QUANTITY_SCALE, amount_text, decimal_text, divide_half_even, minor_digits,
};

/// Puts a file in its place, whole or not at all.
pub fn put(out: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let temporary = out.with_extension(format!("{}.tmp", std::process::id()));
        std::fs::write(&temporary, bytes)?;
        std::fs::rename(&temporary, out)
    };
    write().with_context(|| format!("cannot write {}", out.display()))
}

/// What a customer's lines come to in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub lines: usize,
    pub amount: i128,
    /// Sums of |amount| · share, and of |amount|, over lines of usage.
    verified: i128,
    of: i128,
}

impl Total {
    fn add(&mut self, line: &Line) {
        self.lines += 1;
        self.amount += line.amount;
        if line.key.charge == Charge::Usage {
            self.verified += line.amount.abs().saturating_mul(line.verified_share.unwrap_or(0));
            self.of += line.amount.abs();
        }
    }

    /// The part of what usage was charged that verified reports back; blank where nothing was.
    #[must_use]
    pub fn verified_share(&self) -> String {
        divide_half_even(self.verified, self.of)
            .map(|share| decimal_text(share, QUANTITY_SCALE))
            .unwrap_or_default()
    }
}

/// By customer and currency.
#[must_use]
pub fn totals(lines: &[Line]) -> BTreeMap<(String, String), Total> {
    let mut totals: BTreeMap<(String, String), Total> = BTreeMap::new();
    for line in lines {
        totals.entry((line.customer.clone(), line.currency.clone())).or_default().add(line);
    }
    totals
}

#[must_use]
pub fn customers(lines: &[Line]) -> BTreeSet<&str> {
    lines.iter().map(|line| line.customer.as_str()).collect()
}

#[must_use]
pub fn money(amount: i128, currency: &str) -> String {
    amount_text(amount, minor_digits(currency).unwrap_or(AMOUNT_SCALE))
}

/// A quantity without the zeros at its end.
#[must_use]
pub fn short(quantity: i128) -> String {
    let text = decimal_text(quantity, QUANTITY_SCALE);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// What a quantity is counted in.
#[must_use]
pub fn unit(line: &Line) -> &'static str {
    use schemas::ledger::Measure;
    match line.measure {
        Measure::Peak | Measure::Average => "License-Months",
        Measure::LicenseDays => "License-Days",
        Measure::LicenseHours => "License-Hours",
    }
}

/// A number of a spreadsheet, which holds 15 digits; a longer one is to be shown as text.
#[must_use]
pub fn spreadsheet_number(text: &str) -> Option<Decimal> {
    const DIGITS_MAX: usize = 15;
    let number: Decimal = text.parse().ok()?;
    let digits = text.trim_end_matches('0').chars().filter(char::is_ascii_digit).count();
    (digits <= DIGITS_MAX).then_some(number)
}
