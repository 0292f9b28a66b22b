//! Ledger lines: what has been posted (contract 3.9, 4, 5).

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef, i256};

use crate::journal::timestamp;
use crate::merkle::{self, Hash};
use crate::period::{EpochSeconds, Period, rfc3339};
use crate::quantity::{QUANTITY_SCALE, decimal_text, money_text};

/// Name of the Delta table.
pub const TABLE: &str = "ledger";

/// Which pool of licences a charge is for (contract 3.4).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pool {
    Postpaid,
    Prepaid,
}

/// What is charged: usage beyond what was purchased, or a commitment (contract 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Charge {
    Usage,
    Commit,
}

/// A first posting in its own period, or a later change of it (contract 3.9).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    Charge,
    Adjustment,
}

/// How a quantity is measured over a segment (contract 3.7).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Measure {
    Peak,
    Average,
    LicenseDays,
    LicenseHours,
}

/// How an amount follows from a quantity (contract 3.8).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TierMode {
    Flat,
    Graduated,
    Volume,
    Package,
}

/// Gives an enum its words in the book, the ledger and the statement.
macro_rules! words {
    ($type:ident { $($variant:ident = $text:literal),* }) => {
        impl $type {
            pub const WORDS: &'static [&'static str] = &[$($text),*];

            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $($type::$variant => $text),* }
            }

            #[must_use]
            pub fn parse(word: &str) -> Option<Self> {
                match word { $($text => Some($type::$variant),)* _ => None }
            }
        }
    };
}
pub(crate) use words;

words!(Pool { Postpaid = "postpaid", Prepaid = "prepaid" });
words!(Charge { Usage = "usage", Commit = "commit" });
words!(Kind { Charge = "charge", Adjustment = "adjustment" });
words!(Measure { Peak = "peak", Average = "average", LicenseDays = "license-days", LicenseHours = "license-hours" });
words!(TierMode { Flat = "flat", Graduated = "graduated", Volume = "volume", Package = "package" });

/// What a charge is for. Two lines with the same key speak of the same thing (contract 3.9).
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChargeKey {
    pub smart_account: String,
    pub virtual_account: String,
    pub pool: Pool,
    /// Blank for prepaid usage.
    pub subscription_id: String,
    /// The equivalence group, or the tag.
    pub item: String,
    pub charge: Charge,
    pub segment_start: EpochSeconds,
}

/// One posted line. Quantities are millionths, amounts ten-thousandths of the currency's unit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    pub line_id: String,
    pub posted_period: Period,
    pub service_period: Period,
    pub key: ChargeKey,
    pub customer: String,
    pub kind: Kind,
    pub measure: Measure,
    pub consumed: i128,
    pub purchased: i128,
    pub quantity: i128,
    pub amount: i128,
    pub currency: String,
    pub price_plan: String,
    /// Millionths; `None` where nothing was consumed.
    pub verified_share: Option<i128>,
    /// Merkle root over what the line stands on.
    pub evidence_root: String,
    /// Where the segment ends; it starts with the key's `segment_start`.
    pub segment_end: EpochSeconds,
    /// How many lines the key had before this one.
    pub lines_before: u64,
    /// What the lines before it come to: this line brings them to its target.
    pub quantity_before: i128,
    pub amount_before: i128,
    /// What changed since the line before; of an adjustment.
    pub cause: String,
    /// The parts of `evidence_root`: the root of the reports, and the leaves of the terms and of what
    /// was purchased.
    pub usage_root: String,
    pub terms_leaf: String,
    pub purchased_leaf: String,
    /// `None` until it is posted.
    pub posting: Option<Posting>,
}

/// What posting adds to a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Posting {
    /// Place among the lines of its posted period, from 0.
    pub sequence: u64,
    pub posted_at: EpochSeconds,
    /// The versions of its inputs that the run pinned.
    pub journal_version: Option<u64>,
    pub book_version: Option<u64>,
    /// The version of the ledger that the run made: lines of one run have the same.
    pub ledger_version: u64,
    /// The account that the run was for, or blank for all.
    pub scope: String,
    /// Link of the period's chain: [`merkle::link`] of the line before and of this one.
    pub chain: String,
}

/// Columns of a line's record beside those of a statement.
pub const RECORD_COLUMNS: [&str; 14] = [
    "segment_end",
    "lines_before",
    "quantity_before",
    "amount_before",
    "cause",
    "usage_root",
    "terms_leaf",
    "purchased_leaf",
    "sequence",
    "posted_at",
    "journal_version",
    "book_version",
    "ledger_version",
    "scope",
];

/// How much of what usage was charged verified reports back, over lines: amounts taken without their signs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VerifiedShare {
    /// Sum of |amount| · share, which amounts of 34 digits carry beyond 128 bits.
    verified: i256,
    /// Sum of |amount|.
    of: i256,
}

impl VerifiedShare {
    /// Takes in a line; commitments are not of usage, and what is taken back since nothing was consumed stands on no
    /// report.
    pub fn add(&mut self, line: &Line) {
        if let (Charge::Usage, Some(share)) = (line.key.charge, line.verified_share) {
            self.take(line.amount, share);
        }
    }

    fn take(&mut self, amount: i128, share: i128) {
        let amount = i256::from_i128(amount).wrapping_abs();
        self.verified += amount * i256::from_i128(share);
        self.of += amount;
    }

    /// 6 places, half to even; `None` where nothing was charged.
    #[must_use]
    pub fn text(self) -> Option<String> {
        let (whole, rest) =
            (self.verified.checked_div(self.of)?, self.verified.checked_rem(self.of)?);
        let whole = whole.to_i128()?;
        let up = match (rest + rest).cmp(&self.of) {
            Ordering::Less => 0,
            Ordering::Equal => whole & 1,
            Ordering::Greater => 1,
        };
        let share = whole + up;
        Some(decimal_text(share, QUANTITY_SCALE))
    }
}

/// The columns of a statement, in the order of contract 4.
pub const STATEMENT_COLUMNS: [&str; 21] = [
    "line_id",
    "posted_period",
    "service_period",
    "segment_start",
    "smart_account",
    "virtual_account",
    "customer",
    "pool",
    "subscription_id",
    "entitlement",
    "charge",
    "kind",
    "measure",
    "consumed",
    "purchased",
    "quantity",
    "amount",
    "currency",
    "price_plan",
    "verified_share",
    "evidence_root",
];

impl Line {
    /// The line as the text of [`STATEMENT_COLUMNS`].
    #[must_use]
    pub fn cells(&self) -> [String; 21] {
        let quantity = |q| decimal_text(q, QUANTITY_SCALE);
        [
            self.line_id.clone(),
            self.posted_period.to_string(),
            self.service_period.to_string(),
            rfc3339(self.key.segment_start),
            self.key.smart_account.clone(),
            self.key.virtual_account.clone(),
            self.customer.clone(),
            self.key.pool.as_str().to_owned(),
            self.key.subscription_id.clone(),
            self.key.item.clone(),
            self.key.charge.as_str().to_owned(),
            self.kind.as_str().to_owned(),
            self.measure.as_str().to_owned(),
            quantity(self.consumed),
            quantity(self.purchased),
            quantity(self.quantity),
            money_text(self.amount, &self.currency),
            self.currency.clone(),
            self.price_plan.clone(),
            self.verified_share.map(quantity).unwrap_or_default(),
            self.evidence_root.clone(),
        ]
    }

    /// Everything that the line says, as it is hashed: a JSON object of texts, its keys in order, without
    /// spaces. Only of a posted line.
    #[must_use]
    pub fn record(&self) -> Option<BTreeMap<&'static str, String>> {
        let posting = self.posting.as_ref()?;
        let version = |v: Option<u64>| v.map(|v| v.to_string()).unwrap_or_default();
        let more = [
            rfc3339(self.segment_end),
            self.lines_before.to_string(),
            decimal_text(self.quantity_before, QUANTITY_SCALE),
            money_text(self.amount_before, &self.currency),
            self.cause.clone(),
            self.usage_root.clone(),
            self.terms_leaf.clone(),
            self.purchased_leaf.clone(),
            posting.sequence.to_string(),
            rfc3339(posting.posted_at),
            version(posting.journal_version),
            version(posting.book_version),
            posting.ledger_version.to_string(),
            posting.scope.clone(),
        ];
        let columns = STATEMENT_COLUMNS.into_iter().zip(self.cells());
        Some(columns.chain(RECORD_COLUMNS.into_iter().zip(more)).collect())
    }

    /// The version of the ledger that its run made; 0 of a line that is not posted.
    #[must_use]
    pub fn ledger_version(&self) -> u64 {
        self.posting.as_ref().map_or(0, |posting| posting.ledger_version)
    }

    /// The hash of the record's leaf.
    #[must_use]
    pub fn leaf(&self) -> Option<Hash> {
        Some(merkle::leaf(canonical_json(&self.record()?).as_bytes()))
    }
}

/// An object of texts as JSON, its keys in order, without spaces.
#[must_use]
pub fn canonical_json(record: &BTreeMap<&'static str, String>) -> String {
    serde_json::to_string(record).unwrap_or_else(|_| unreachable!("texts are JSON"))
}

/// Partition column of the table: a posted line, or the close of a period.
///
/// Both live in one table because two Delta tables cannot be committed together: a close and a
/// posting that race are decided by the one log.
pub const PARTITION_COLUMN: &str = "record";
pub const RECORD_LINE: &str = "line";
pub const RECORD_CLOSE: &str = "close";

/// The columns of the ledger, as stored: those of the statement, and `record`,
/// the rest of a line's record ([`RECORD_COLUMNS`]), `chain`, and `manifest` (JSON, on a close).
pub static SCHEMA: LazyLock<SchemaRef> = LazyLock::new(|| {
    let text = |name| Field::new(name, DataType::Utf8, true);
    let quantity = |name| Field::new(name, DataType::Decimal128(38, 6), true);
    Arc::new(Schema::new(vec![
        Field::new("record", DataType::Utf8, false),
        text("line_id"),
        text("posted_period"),
        text("service_period"),
        Field::new("segment_start", timestamp(), true),
        text("smart_account"),
        text("virtual_account"),
        text("customer"),
        text("pool"),
        text("subscription_id"),
        text("entitlement"),
        text("charge"),
        text("kind"),
        text("measure"),
        quantity("consumed"),
        quantity("purchased"),
        quantity("quantity"),
        Field::new("amount", DataType::Decimal128(38, 4), true),
        text("currency"),
        text("price_plan"),
        quantity("verified_share"),
        text("evidence_root"),
        Field::new("lines_before", DataType::Int64, true),
        Field::new("posted_at", timestamp(), false),
        Field::new("journal_version", DataType::Int64, true),
        Field::new("book_version", DataType::Int64, true),
        text("manifest"),
        Field::new("segment_end", timestamp(), true),
        quantity("quantity_before"),
        Field::new("amount_before", DataType::Decimal128(38, 4), true),
        text("cause"),
        text("usage_root"),
        text("terms_leaf"),
        text("purchased_leaf"),
        Field::new("sequence", DataType::Int64, true),
        Field::new("ledger_version", DataType::Int64, true),
        text("scope"),
        text("chain"),
    ]))
});

#[cfg(test)]
mod tests {
    use super::*;

    type Lines<'a> = &'a [(i128, i128)];

    /// Worked out by hand: Σ |amount| · share ÷ Σ |amount|.
    #[test]
    fn shares_are_weighed_by_what_was_charged() {
        let large = 10i128.pow(37);
        let table: [(Lines<'_>, Option<&str>); 7] = [
            (&[], None),
            (&[(0, 1_000_000)], None),
            (&[(3, 1_000_000), (-1, 0)], Some("0.750000")),
            (&[(2, 1), (2, 0)], Some("0.000000")),
            (&[(2, 3), (2, 0)], Some("0.000002")),
            (&[(large, 500_000), (-large, 1_000_000)], Some("0.750000")),
            (&[(i128::MAX, 1_000_000), (i128::MIN, 1_000_000)], Some("1.000000")),
        ];
        for (lines, expected) in table {
            let mut share = VerifiedShare::default();
            for (amount, of_line) in lines {
                share.take(*amount, *of_line);
            }
            assert_eq!(share.text().as_deref(), expected, "{lines:?}");
        }
    }
}
