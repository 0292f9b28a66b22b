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
use schemas::ledger::{Line, VerifiedShare};
use schemas::quantity::{QUANTITY_SCALE, decimal_text};

/// Puts a file in its place, whole or not at all. What is no file (a pipe, `/dev/stdout`) is written to and stays what
/// it is; so does a link, which then leads to the new file.
pub fn put(out: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let write = || {
        let out = out.canonicalize().unwrap_or_else(|_| out.to_owned());
        if out.metadata().is_ok_and(|there| !there.is_file()) {
            return std::fs::write(&out, bytes);
        }
        let temporary = out.with_extension(format!("{}.tmp", std::process::id()));
        let put =
            std::fs::write(&temporary, bytes).and_then(|()| std::fs::rename(&temporary, &out));
        if put.is_err() {
            let _ = std::fs::remove_file(&temporary);
        }
        put
    };
    write().with_context(|| {
        let folder = out.parent().filter(|folder| !folder.as_os_str().is_empty());
        match folder.filter(|folder| !folder.exists()) {
            Some(folder) => {
                format!(
                    "cannot write {}: make the folder {} first",
                    out.display(),
                    folder.display()
                )
            }
            None => format!("cannot write {}", out.display()),
        }
    })
}

/// What a customer's lines come to in one currency.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Total {
    pub lines: usize,
    pub amount: i128,
    verified: VerifiedShare,
}

impl Total {
    fn add(&mut self, line: &Line) {
        self.lines += 1;
        self.amount += line.amount;
        self.verified.add(line);
    }

    /// The part of what usage was charged that verified reports back; blank where nothing was.
    #[must_use]
    pub fn verified_share(&self) -> String {
        self.verified.text().unwrap_or_default()
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

/// The name within an entitlement tag: what a person calls it.
#[must_use]
pub fn tag_name(tag: &str) -> &str {
    let name = tag.split_once(".com.cisco.").map_or(tag, |(_, rest)| rest);
    if name == tag { tag } else { name.split(',').next().unwrap_or(tag) }
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
