//! `match`: a vendor's invoice or usage export beside our lines.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context as _, anyhow, bail};
use reconcile::core::tieout::{Grain, Sums, Tie, TieKey, ours, tie_out};
use reconcile::shell::run;
use schemas::book::Lines;
use schemas::period::Period;
use schemas::quantity::{AMOUNT_SCALE, QUANTITY_SCALE, decimal_text};
use serde::Deserialize;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

/// A larger file is no invoice.
const FILE_BYTES_MAX: u64 = 256 << 20;

/// Which columns of the vendor's file are which, and its names for our items.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Mapping {
    columns: Columns,
    /// The vendor's name of an item to ours: an entitlement tag, or an equivalence group.
    #[serde(default)]
    items: HashMap<String, String>,
    /// One character; a comma where nothing is said.
    delimiter: Option<char>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Columns {
    smart_account: String,
    virtual_account: Option<String>,
    subscription_id: Option<String>,
    entitlement: String,
    quantity: String,
    amount: String,
    currency: Option<String>,
}

const COLUMNS: [&str; 12] = [
    "result",
    "smart_account",
    "virtual_account",
    "subscription_id",
    "entitlement",
    "currency",
    "our_quantity",
    "their_quantity",
    "our_amount",
    "their_amount",
    "quantity_difference",
    "amount_difference",
];

pub fn run(
    period: Period,
    vendor: &Path,
    mapping: &Path,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let text = std::fs::read_to_string(mapping)
        .with_context(|| format!("cannot read the mapping {}", mapping.display()))?;
    let mapping: Mapping = toml::from_str(&text)
        .with_context(|| format!("the mapping {} is wrong", mapping.display()))
        .map_err(Failure::Usage)?;
    let grain = Grain {
        virtual_account: mapping.columns.virtual_account.is_some(),
        subscription: mapping.columns.subscription_id.is_some(),
        currency: mapping.columns.currency.is_some(),
    };
    let theirs = read(vendor, &mapping)?;
    let lake = super::existing_lake(config, runtime)?;
    let lines =
        runtime.block_on(run::statement(&lake, period)).context("cannot read the ledger")?;
    let ours = ours(&lines, grain);
    let tied = tie_out(&ours, &theirs);
    let quantity = |sums: Option<Sums>| sums.map(|s| decimal_text(s.quantity, QUANTITY_SCALE));
    let amount = |sums: Option<Sums>| sums.map(|s| decimal_text(s.amount, AMOUNT_SCALE));
    let mut rows: Vec<Vec<String>> = Vec::new();
    for row in &tied {
        let (a, b) = (row.ours.unwrap_or_default(), row.theirs.unwrap_or_default());
        rows.push(vec![
            row.tie.as_str().to_owned(),
            row.key.smart_account.clone(),
            row.key.virtual_account.clone(),
            row.key.subscription_id.clone(),
            row.key.item.clone(),
            row.key.currency.clone(),
            quantity(row.ours).unwrap_or_default(),
            quantity(row.theirs).unwrap_or_default(),
            amount(row.ours).unwrap_or_default(),
            amount(row.theirs).unwrap_or_default(),
            decimal_text(a.quantity - b.quantity, QUANTITY_SCALE),
            decimal_text(a.amount - b.amount, AMOUNT_SCALE),
        ]);
    }
    rows.extend(totals(&ours, &theirs));
    output::rows(
        config.format,
        &Rows { columns: &COLUMNS, rows, decimals: &COLUMNS[6..], ..Rows::default() },
    )?;
    let equal = tied.iter().filter(|row| row.tie == Tie::Equal).count();
    output::note(config.quiet, &format!("{equal} of {} are equal", tied.len()));
    Ok(if equal == tied.len() { Outcome::Done } else { Outcome::Found })
}

/// Both totals of each currency, as `total` rows.
fn totals(ours: &BTreeMap<TieKey, Sums>, theirs: &BTreeMap<TieKey, Sums>) -> Vec<Vec<String>> {
    let mut totals: BTreeMap<&str, [i128; 2]> = BTreeMap::new();
    for (side, sums) in [ours, theirs].into_iter().enumerate() {
        for (key, sum) in sums {
            totals.entry(&key.currency).or_default()[side] += sum.amount;
        }
    }
    let amount = |value| decimal_text(value, AMOUNT_SCALE);
    let blank = String::new;
    totals
        .into_iter()
        .map(|(currency, [a, b])| {
            vec![
                "total".to_owned(),
                blank(),
                blank(),
                blank(),
                blank(),
                currency.to_owned(),
                blank(),
                blank(),
                amount(a),
                amount(b),
                blank(),
                amount(a - b),
            ]
        })
        .collect()
}

fn read(path: &Path, mapping: &Mapping) -> anyhow::Result<BTreeMap<TieKey, Sums>> {
    let name = path.display();
    let size = std::fs::metadata(path).with_context(|| format!("cannot read {name}"))?.len();
    if size > FILE_BYTES_MAX {
        bail!("{name} has {size} bytes, more than {FILE_BYTES_MAX}: it is no invoice");
    }
    let delimiter = mapping.delimiter.unwrap_or(',');
    let delimiter = u8::try_from(delimiter)
        .ok()
        .filter(u8::is_ascii)
        .ok_or_else(|| anyhow!("the mapping's delimiter is no ASCII character"))?;
    let bytes = std::fs::read(path).with_context(|| format!("cannot read {name}"))?;
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let mut csv = csv::ReaderBuilder::new().delimiter(delimiter).from_reader(bytes);
    let mut lines = Lines::new(bytes);
    let head = csv.headers().with_context(|| format!("{name}, line 1"))?.clone();
    let place = |column: &str| {
        head.iter().position(|h| h == column).ok_or_else(|| {
            let all: Vec<&str> = head.iter().collect();
            anyhow!(
                "{name} has no column '{column}', which the mapping names; it has {}",
                all.join(", ")
            )
        })
    };
    let optional = |column: &Option<String>| column.as_deref().map(place).transpose();
    let columns = &mapping.columns;
    let (smart, virtual_) = (place(&columns.smart_account)?, optional(&columns.virtual_account)?);
    let (subscription, item) = (optional(&columns.subscription_id)?, place(&columns.entitlement)?);
    let (quantity, amount) = (place(&columns.quantity)?, place(&columns.amount)?);
    let currency = optional(&columns.currency)?;
    let mut sums: BTreeMap<TieKey, Sums> = BTreeMap::new();
    for record in csv.records() {
        let record = record.with_context(|| format!("{name} is no CSV"))?;
        let line = lines.of(record.position().map_or(0, csv::Position::byte));
        let cell = |at: usize| record.get(at).unwrap_or_default().trim();
        let maybe = |at: Option<usize>| at.map(cell).unwrap_or_default().to_owned();
        let number = |at: usize, scale: u8| {
            fixed(cell(at), scale).ok_or_else(|| {
                anyhow!(
                    "{name}, line {line}, column {}: '{}' is no number with at most {scale} decimal places",
                    head.get(at).unwrap_or_default(),
                    cell(at).escape_debug()
                )
            })
        };
        let theirs = cell(item);
        let key = TieKey {
            smart_account: cell(smart).to_owned(),
            virtual_account: maybe(virtual_),
            subscription_id: maybe(subscription),
            item: mapping.items.get(theirs).map_or(theirs, String::as_str).to_owned(),
            currency: maybe(currency),
        };
        let sum = sums.entry(key).or_default();
        sum.quantity += number(quantity, QUANTITY_SCALE)?;
        sum.amount += number(amount, AMOUNT_SCALE)?;
    }
    Ok(sums)
}

/// A decimal as an integer of a scale; at most 18 digits before the point.
fn fixed(text: &str, scale: u8) -> Option<i128> {
    let (sign, digits) = match text.strip_prefix('-') {
        Some(rest) => (-1, rest),
        None => (1, text),
    };
    let (whole, places) = digits.split_once('.').unwrap_or((digits, ""));
    let all_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
    let places = places.trim_end_matches('0');
    if whole.is_empty() || whole.len() > 18 || !all_digits(whole) || !all_digits(places) {
        return None;
    }
    let missing = usize::from(scale).checked_sub(places.len())?;
    let text = format!("{whole}{places}{}", "0".repeat(missing));
    Some(sign * text.parse::<i128>().ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_counted_as_an_editor_does() {
        for text in ["a,b\n1,2\n3,4\n", "a,b\r\n1,2\r\n3,4\r\n"] {
            assert_eq!(lines(text), [2, 3], "{text:?}");
        }
        assert_eq!(lines("a,b\r\n\r\n1,2\r\n\n\n3,4"), [3, 6]);
        assert_eq!(lines("a,b\r\n1,\"x\r\ny\"\r\n3,4"), [2, 4]);
    }

    fn lines(text: &str) -> Vec<u64> {
        let mut csv = csv::Reader::from_reader(text.as_bytes());
        csv.headers().unwrap();
        let mut lines = Lines::new(text.as_bytes());
        csv.records().map(|record| lines.of(record.unwrap().position().unwrap().byte())).collect()
    }
}
