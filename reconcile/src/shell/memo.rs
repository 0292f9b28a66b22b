//! What a run found, kept beside the lake, so that the next one with nothing new reads the logs only.
//!
//! A cache like the index: the tables are the truth. It names all that a run stands on (tables, their
//! versions, the time zones as this machine knows them, this version of rumledger); where any of it
//! differs, or the file is not what it should be, the run is made in full.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use jiff::Timestamp;
use jiff::tz::TimeZone;
use lake::Lake;
use schemas::book::{AccountId, Book};
use schemas::period::{EpochSeconds, Period};
use schemas::udi::Udi;
use schemas::{journal, ledger as ledger_table, merkle};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::run::ExceptionRow;
use crate::ReconcileError;
use crate::core::attribute::ExceptionReason;
use crate::core::changed::Bearing;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// What keeps and believes what is kept: what others found is found anew. The number behind the version rises with every
/// change of what a run finds, or of when it may be kept.
pub(super) const KEPT_BY: &str = concat!(env!("CARGO_PKG_VERSION"), " 2");

/// Where the tables stand that a run reads.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Standing {
    pub journal: String,
    pub book: String,
    pub ledger: String,
}

impl Standing {
    /// True if nothing came since.
    async fn is_now(&self, lake: &Lake) -> Result<bool> {
        // In the order of a run's snapshot: the ledger first.
        Ok(lake.stands_still(ledger_table::TABLE, &self.ledger).await?
            && lake.stands_still(lake::BOOK, &self.book).await?
            && lake.stands_still(journal::TABLE, &self.journal).await?)
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

/// [`Bearing`], with PID and serial of each PI.
#[derive(Serialize, Deserialize)]
struct StoredBearing {
    /// That of the memo that it belongs to.
    standing: Standing,
    groups: Vec<Vec<StoredUdi>>,
    /// Smart Account, Virtual Account, and the PIs whose headers name them.
    named: Vec<(String, String, Vec<StoredUdi>)>,
    unattributed: Vec<StoredUdi>,
}

type StoredUdi = (String, String);

fn stored(udis: impl IntoIterator<Item = Udi>) -> Vec<StoredUdi> {
    let mut all: Vec<StoredUdi> = udis.into_iter().map(|udi| (udi.pid, udi.serial)).collect();
    all.sort_unstable();
    all
}

fn udis<C: FromIterator<Udi>>(stored: Vec<StoredUdi>) -> C {
    stored.into_iter().map(|(pid, serial)| Udi { pid, serial }).collect()
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

fn bearing_path(cache_dir: &Path, period: Period) -> PathBuf {
    cache_dir.join("reconcile").join(format!("{period}.bearing.json"))
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
    let Some((then, exceptions)) = load(cache_dir, period) else { return Ok(None) };
    Ok(then.is_now(lake).await?.then_some(exceptions))
}

/// Where the tables stood when a period's ledger was as its usage had it, and the exceptions then; `None`
/// where that is not remembered, or was found in another way than this program would on this machine.
#[must_use]
pub fn load(cache_dir: &Path, period: Period) -> Option<(Standing, Vec<ExceptionRow>)> {
    let memo: Memo = read(&path(cache_dir, period))?;
    let holds = memo.rumledger == KEPT_BY
        && memo.zones.iter().all(|(name, known)| {
            TimeZone::get(name).is_ok_and(|zone| transitions(&zone, period) == *known)
        });
    let rows: Option<Vec<_>> = memo.exceptions.into_iter().map(|row| row.row(period)).collect();
    rows.filter(|_| holds).map(|rows| (memo.standing, rows))
}

/// What the run stood on that left the memo.
#[must_use]
pub fn load_bearing(cache_dir: &Path, period: Period, of: &Standing) -> Option<Bearing> {
    let kept: StoredBearing = read(&bearing_path(cache_dir, period))?;
    if kept.standing != *of {
        return None;
    }
    let named = kept.named.into_iter();
    let named = named.map(|(smart, virtual_, of)| (AccountId { smart, virtual_ }, udis(of)));
    Some(Bearing {
        groups: kept.groups.into_iter().map(udis).collect(),
        named: named.collect(),
        unattributed: udis(kept.unattributed),
    })
}

/// What [`put`] put there, if every bit of it is as it was: what is read here decides what is posted.
pub(super) fn read<T: DeserializeOwned>(path: &Path) -> Option<T> {
    let kept = std::fs::read_to_string(path).ok()?;
    let (digest, json) = kept.split_once('\n')?;
    (merkle::digest(json.as_bytes()).to_string() == digest)
        .then(|| serde_json::from_str(json).ok())
        .flatten()
}

/// Keeps what a run found. That it cannot be kept costs the next run its time, and nothing else.
pub fn keep(
    cache_dir: &Path,
    period: Period,
    standing: Standing,
    book: &Book,
    exceptions: &[ExceptionRow],
    bearing: Bearing,
) {
    let zones = book
        .accounts
        .iter()
        .map(|account| (account.zone_name.clone(), transitions(&account.zone, period)))
        .collect();
    let named = bearing.named.into_iter();
    let kept = StoredBearing {
        standing: standing.clone(),
        groups: bearing.groups.into_iter().map(stored).collect(),
        named: named.map(|(id, udis)| (id.smart, id.virtual_, stored(udis))).collect(),
        unattributed: stored(bearing.unattributed),
    };
    let memo = Memo {
        rumledger: KEPT_BY.to_owned(),
        standing,
        zones,
        exceptions: exceptions.iter().map(StoredException::of).collect(),
    };
    let path = path(cache_dir, period);
    let put_both = put(&bearing_path(cache_dir, period), &kept).and_then(|()| put(&path, &memo));
    if let Err(error) = put_both {
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

/// Puts a cache in its place: a line with the digest of what follows it, as JSON.
pub(super) fn put(path: &Path, kept: &impl Serialize) -> std::io::Result<()> {
    let json = serde_json::to_string(kept).map_err(std::io::Error::other)?;
    let digest = merkle::digest(json.as_bytes());
    lake::cache::put(path, format!("{digest}\n{json}").as_bytes())
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
