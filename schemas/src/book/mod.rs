//! The book: reference data of accounts, devices, licences, prices and keys (contract 2).
//!
//! [`Book::read`] takes the tables as cells, and gives either a book in which every reference
//! holds, or every error with its file, line and column. Cells are what the lake keeps of a book,
//! so a book read from the lake goes through the same checks as one that is imported.

mod cells;
mod checks;
mod columns;
mod row;
mod rows;
mod tables;

use std::collections::{BTreeMap, HashMap};
use std::fmt;

use jiff::tz::TimeZone;
use rust_decimal::Decimal;

pub use cells::{Cells, Lines, RowCells, parse_csv};
pub use columns::{TABLES, TableSpec};
pub use tables::{NamedTable, as_tables, prices_as_written};

use crate::key::Algorithm;
use crate::ledger::{Charge, Measure, Pool, TierMode, words};
use crate::period::{EpochSeconds, Moment};
use crate::udi::Udi;

/// One error of a book, where a person can find it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BookError {
    pub file: String,
    /// 1-based; 0 where the error is about the file as a whole.
    pub line: u64,
    /// The column's name, or blank.
    pub column: String,
    pub message: String,
}

impl fmt::Display for BookError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file)?;
        if self.line > 0 {
            write!(f, ", line {}", self.line)?;
        }
        if !self.column.is_empty() {
            write!(f, ", column {}", self.column)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// Smart Account and Virtual Account: one tenant.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AccountId {
    pub smart: String,
    pub virtual_: String,
}

impl fmt::Display for AccountId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.smart, self.virtual_)
    }
}

impl std::str::FromStr for AccountId {
    type Err = String;

    /// `SA/VA`, split at the first `/`.
    fn from_str(s: &str) -> Result<Self, String> {
        match s.split_once('/') {
            Some((smart, virtual_)) if !smart.is_empty() && !virtual_.is_empty() => {
                Ok(AccountId { smart: smart.to_owned(), virtual_: virtual_.to_owned() })
            }
            _ => Err(format!("'{s}' is no account; write SMART-ACCOUNT/VIRTUAL-ACCOUNT")),
        }
    }
}

#[derive(Clone, Debug)]
pub struct Account {
    pub id: AccountId,
    pub customer: String,
    pub currency: String,
    pub zone_name: String,
    pub zone: TimeZone,
}

/// A half-open interval of time; an open end is `i64::MAX`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub start: EpochSeconds,
    pub end: EpochSeconds,
}

impl Span {
    #[must_use]
    pub fn contains(self, t: EpochSeconds) -> bool {
        self.start <= t && t < self.end
    }

    #[must_use]
    pub fn overlaps(self, other: Span) -> bool {
        self.start < other.end && other.start < self.end
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ManagedBy {
    Cslu,
    SsmOnPrem,
    DnaCenter,
    Vmanage,
    None,
}
words!(ManagedBy { Cslu = "cslu", SsmOnPrem = "ssm-on-prem", DnaCenter = "dna-center", Vmanage = "vmanage", None = "none" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LicenseModel {
    Slp,
    Sl,
    Slr,
    Plr,
    Pak,
    Csl,
    Rtu,
    Eval,
}
words!(LicenseModel { Slp = "slp", Sl = "sl", Slr = "slr", Plr = "plr", Pak = "pak", Csl = "csl", Rtu = "rtu", Eval = "eval" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Enforcement {
    Unenforced,
    Enforced,
    ExportControlled,
}
words!(Enforcement { Unenforced = "unenforced", Enforced = "enforced", ExportControlled = "export-controlled" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Duration {
    Perpetual,
    Subscription,
}
words!(Duration { Perpetual = "perpetual", Subscription = "subscription" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BillingModel {
    Uncommitted,
    Committed,
}
words!(BillingModel { Uncommitted = "UNCOMMITTED", Committed = "COMMITTED" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TrustOrigin {
    Factory,
    CssmToken,
    Ack,
}
words!(TrustOrigin { Factory = "factory", CssmToken = "cssm-token", Ack = "ack" });

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicyScope {
    SmartAccount,
    VirtualAccount,
    ProductInstance,
}
words!(PolicyScope { SmartAccount = "smart-account", VirtualAccount = "virtual-account", ProductInstance = "product-instance" });

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthorizationKind {
    Slac,
    Slr,
    Plr,
    Pak,
}
words!(AuthorizationKind { Slac = "SLAC", Slr = "SLR", Plr = "PLR", Pak = "PAK" });

/// Who holds a product instance, and when.
#[derive(Clone, Debug)]
pub struct Device {
    pub udi: Udi,
    /// Index into [`Book::accounts`].
    pub account: usize,
    pub valid: Span,
    pub managed_by: ManagedBy,
    pub license_model: LicenseModel,
    pub transport: String,
    pub channel: String,
}

#[derive(Clone, Debug)]
pub struct CatalogEntry {
    pub tag: String,
    pub name: String,
    pub enforcement: Enforcement,
    pub duration: Duration,
    pub postpaid_allowed: bool,
    /// Blank, or the group whose tags stand for each other.
    pub equivalence: String,
}

#[derive(Clone, Debug)]
pub struct Subscription {
    pub id: String,
    pub account: usize,
    pub tag: String,
    pub billing_model: BillingModel,
    /// 0 unless committed.
    pub committed_quantity: u64,
    pub price_plan: String,
    pub valid: Span,
}

#[derive(Clone, Debug)]
pub struct Purchase {
    pub id: String,
    pub account: usize,
    pub tag: String,
    pub quantity: u64,
    pub valid: Span,
    /// Blank: a shortage is reported, not charged.
    pub price_plan: String,
}

/// One price: its tiers in ascending order, the last one open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Price {
    pub plan: String,
    pub item: String,
    pub charge: Charge,
    pub valid_from: Moment,
    pub measure: Measure,
    pub tier_mode: TierMode,
    pub package_size: Option<Decimal>,
    pub currency: String,
    pub tiers: Vec<Tier>,
}

/// A tier holds quantities up to and including `up_to`; the last has no bound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tier {
    pub up_to: Option<Decimal>,
    pub unit_price: Decimal,
}

#[derive(Clone, Debug)]
pub struct TrustCode {
    pub udi: Udi,
    pub origin: TrustOrigin,
    pub algorithm: Algorithm,
    /// SPKI DER in base64, checked to parse.
    pub public_key: String,
    pub valid_from: EpochSeconds,
    pub valid_to: Option<EpochSeconds>,
}

#[derive(Clone, Debug)]
pub struct Policy {
    pub scope: PolicyScope,
    pub scope_id: String,
    pub enforcement: Option<Enforcement>,
    pub duration: Option<Duration>,
    pub ack_required: bool,
    pub first_report_days: u32,
    pub reporting_frequency_days: u32,
    pub report_on_change_days: u32,
}

#[derive(Clone, Debug)]
pub struct Authorization {
    pub udi: Udi,
    pub kind: AuthorizationKind,
    pub tag: String,
    pub code_version: Option<u32>,
    pub installed_at: EpochSeconds,
    pub returned_at: Option<EpochSeconds>,
}

#[derive(Clone, Debug)]
pub struct Ack {
    pub udi: Udi,
    pub report_id: u64,
    pub acked_at: EpochSeconds,
    pub installed_at: Option<EpochSeconds>,
}

/// Where lines are booked in the operator's general ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GlAccount {
    /// `None` for any.
    pub pool: Option<Pool>,
    pub charge: Option<Charge>,
    pub debit_account: String,
    pub credit_account: String,
}

/// A whole book in which every reference holds.
#[derive(Clone, Debug, Default)]
pub struct Book {
    pub accounts: Vec<Account>,
    pub devices: Vec<Device>,
    pub catalog: Vec<CatalogEntry>,
    pub subscriptions: Vec<Subscription>,
    pub purchases: Vec<Purchase>,
    pub prices: Vec<Price>,
    pub trust_codes: Vec<TrustCode>,
    pub policies: Vec<Policy>,
    pub authorizations: Vec<Authorization>,
    pub acks: Vec<Ack>,
    pub gl_accounts: Vec<GlAccount>,
}

impl Book {
    /// Reads a book from the cells of its files, by table name; a table that is not there is empty.
    ///
    /// # Errors
    /// All errors of all files, ordered by file and line.
    pub fn read(cells: &BTreeMap<String, Cells>) -> Result<Book, Vec<BookError>> {
        Book::checked(cells, false)
    }

    /// The same of a book that is imported, of which more is asked than of one that the lake holds already: what was
    /// taken once stays readable.
    ///
    /// # Errors
    /// As [`Book::read`].
    pub fn read_new(cells: &BTreeMap<String, Cells>) -> Result<Book, Vec<BookError>> {
        Book::checked(cells, true)
    }

    fn checked(cells: &BTreeMap<String, Cells>, is_new: bool) -> Result<Book, Vec<BookError>> {
        let mut errors = Vec::new();
        let (mut book, places) = rows::read(cells, is_new, &mut errors);
        checks::check(&mut book, &places, is_new, &mut errors);
        if errors.is_empty() {
            Ok(book)
        } else {
            errors.sort();
            errors.dedup();
            Err(errors)
        }
    }

    /// The item of a tag: its equivalence group, or the tag itself (contract 3.2).
    #[must_use]
    pub fn items_by_tag(&self) -> HashMap<&str, &str> {
        self.catalog
            .iter()
            .map(|entry| {
                let item =
                    if entry.equivalence.is_empty() { &entry.tag } else { &entry.equivalence };
                (entry.tag.as_str(), item.as_str())
            })
            .collect()
    }
}
