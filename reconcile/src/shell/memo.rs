//! What a run found, kept beside the lake, so that the next one with nothing new reads the logs only.
//!
//! A cache like the index: the tables are the truth. It names all that a run stands on (tables, their
//! versions, the time zones as this machine knows them, this version of rumledger); where any of it
//! differs, or the file is not what it should be, the run is made in full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lake::{Lake, book_stands_at};
use schemas::book::Book;
use schemas::period::{EpochSeconds, Period};
use schemas::{journal, ledger as ledger_table};
use serde::{Deserialize, Serialize};

use super::run::ExceptionRow;
use crate::ReconcileError;
use crate::core::attribute::ExceptionReason;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// Where the tables stand that a run reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub journal: String,
    pub book: String,
    pub ledger: String,
}

impl Standing {
    /// Where they stand now.
    async fn now(lake: &Lake) -> Result<Standing> {
        let at = async |name| -> Result<String> {
            Ok(lake.table(name).await?.map_or(Ok(String::new()), |table| table.stands_at())?)
        };
        Ok(Standing {
            // In the order of a run's snapshot: the ledger first.
            ledger: at(ledger_table::TABLE).await?,
            book: book_stands_at(lake).await?,
            journal: at(journal::TABLE).await?,
        })
    }
}

/// A period whose ledger is as its usage has it.
#[derive(Serialize, Deserialize)]
struct Memo {
    rumledger: String,
    standing: Standing,
    /// Zones of the book, with what this machine knew of them.
    zones: BTreeMap<String, String>,
    exceptions: Vec<StoredException>,
}

#[derive(Serialize, Deserialize)]
struct StoredException {
    smart_account: String,
    virtual_account: String,
    subscription_id: String,
    entitlement: String,
    reason: String,
    license_seconds: String,
}

fn path(cache_dir: &Path, period: Period) -> PathBuf {
    cache_dir.join("reconcile").join(format!("{period}.json"))
}

/// The exceptions of a period, if a run has found that nothing is to be posted and nothing it stood
/// on has changed since. The lake is asked only where something is remembered.
///
/// # Errors
/// If the lake cannot be read.
pub async fn recall(
    lake: &Lake,
    cache_dir: &Path,
    period: Period,
) -> Result<Option<Vec<ExceptionRow>>> {
    let memo = std::fs::read(path(cache_dir, period)).ok();
    let Some(memo) = memo.and_then(|bytes| serde_json::from_slice::<Memo>(&bytes).ok()) else {
        return Ok(None);
    };
    let same = memo.rumledger == env!("CARGO_PKG_VERSION")
        && memo.standing == Standing::now(lake).await?
        && memo.zones.iter().all(|(name, known)| {
            TimeZone::get(name).is_ok_and(|zone| transitions(&zone, period) == *known)
        });
    if !same {
        return Ok(None);
    }
    Ok(memo.exceptions.into_iter().map(|stored| stored.row(period)).collect())
}

/// Keeps what a run found. That it cannot be kept costs the next run its time, and nothing else.
pub fn keep(
    cache_dir: &Path,
    period: Period,
    standing: Standing,
    book: &Book,
    exceptions: &[ExceptionRow],
) {
    let zones = book
        .accounts
        .iter()
        .map(|account| (account.zone_name.clone(), transitions(&account.zone, period)))
        .collect();
    let memo = Memo {
        rumledger: env!("CARGO_PKG_VERSION").to_owned(),
        standing,
        zones,
        exceptions: exceptions.iter().map(StoredException::of).collect(),
    };
    let path = path(cache_dir, period);
    if let Err(error) = put(&path, &memo) {
        tracing::debug!(%error, path = %path.display(), "what the run found is not kept");
    }
}

impl StoredException {
    fn of(row: &ExceptionRow) -> StoredException {
        StoredException {
            smart_account: row.smart_account.clone(),
            virtual_account: row.virtual_account.clone(),
            subscription_id: row.subscription_id.clone(),
            entitlement: row.entitlement.clone(),
            reason: row.reason.to_owned(),
            license_seconds: row.license_seconds.to_string(),
        }
    }

    fn row(self, period: Period) -> Option<ExceptionRow> {
        Some(ExceptionRow {
            period,
            reason: ExceptionReason::parse(&self.reason)?.as_str(),
            license_seconds: self.license_seconds.parse().ok()?,
            smart_account: self.smart_account,
            virtual_account: self.virtual_account,
            subscription_id: self.subscription_id,
            entitlement: self.entitlement,
        })
    }
}

/// Puts a cache in its place, as JSON.
pub(super) fn put(path: &Path, kept: &impl Serialize) -> std::io::Result<()> {
    let bytes = serde_json::to_vec(kept).map_err(std::io::Error::other)?;
    lake::cache::put(path, &bytes)
}

/// Every change of a zone's offset that can bear on a period: bare dates of the book may lie long
/// before it.
fn transitions(zone: &TimeZone, period: Period) -> String {
    const EARLIEST: EpochSeconds = 0;
    const AFTER: EpochSeconds = 62 * 86_400;
    let (_, end) = period.bounds(&TimeZone::UTC);
    let Ok(from) = Timestamp::from_second(EARLIEST) else { return String::new() };
    let mut text = format!("{}", zone.to_offset(from).seconds());
    for transition in zone.following(from) {
        if transition.timestamp().as_second() > end + AFTER {
            break;
        }
        let (at, offset) = (transition.timestamp().as_second(), transition.offset().seconds());
        text.push_str(&format!(" {at}:{offset}"));
    }
    text
}
