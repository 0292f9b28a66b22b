//! Ledger lines: what has been posted (contract 3.9, 4, 5).

use std::sync::{Arc, LazyLock};

use arrow::datatypes::{DataType, Field, Schema, SchemaRef};

use crate::journal::timestamp;
use crate::period::{EpochSeconds, Period, rfc3339};
use crate::quantity::{AMOUNT_SCALE, QUANTITY_SCALE, amount_text, decimal_text, minor_digits};

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
    /// Not computed yet: blank until lines carry their Merkle root.
    pub evidence_root: String,
    /// How many lines the key had before this one.
    pub lines_before: u64,
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
            amount_text(self.amount, minor_digits(&self.currency).unwrap_or(AMOUNT_SCALE)),
            self.currency.clone(),
            self.price_plan.clone(),
            self.verified_share.map(quantity).unwrap_or_default(),
            self.evidence_root.clone(),
        ]
    }
}

/// Partition column of the table: a posted line, or the close of a period.
///
/// Both live in one table because two Delta tables cannot be committed together: a close and a
/// posting that race are decided by the one log.
pub const PARTITION_COLUMN: &str = "record";
pub const RECORD_LINE: &str = "line";
pub const RECORD_CLOSE: &str = "close";

/// The columns of the ledger, as stored: those of the statement, and `record`,
/// `lines_before` (of the same key), `posted_at`, `journal_version` and `book_version` (the versions
/// that the run pinned), and `manifest` (JSON, on a close).
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
    ]))
});
