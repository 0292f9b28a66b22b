//! The ledger of a period, checked against everything it stands on.

use std::collections::BTreeSet;

use lake::{Lake, Table};
use schemas::ledger::Line;
use schemas::merkle::{self, Hash};
use schemas::period::Period;
use serde_json::{Map, Value};

use super::close::{Signed, manifest_of, open};
use super::ledger::{self, Run, Versions};
use super::run::{Reproduced, Snapshot, reproduce};
use crate::ReconcileError;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// What is not as it should be, for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Where: a line, a column, the manifest.
    pub place: String,
    pub expected: String,
    pub found: String,
}

/// What a check of a period came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PeriodVerified {
    pub lines: usize,
    /// Runs that were computed again.
    pub runs: usize,
    /// `None` while the period is open.
    pub signed: Option<Signed>,
    /// The first difference.
    pub difference: Option<Difference>,
}

fn difference(place: &str, expected: impl ToString, found: impl ToString) -> Option<Difference> {
    let (expected, found) = (expected.to_string(), found.to_string());
    (expected != found).then(|| Difference { place: place.to_owned(), expected, found })
}

/// The periods that have lines, or are closed.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn periods(table: &Table) -> Result<BTreeSet<Period>> {
    let mut periods: BTreeSet<Period> = ledger::closed(Some(table)).await?.into_keys().collect();
    periods.extend(ledger::posted_periods(table).await?);
    Ok(periods)
}

/// The versions of journal and book that posted lines stand on.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn pinned(lake: &Lake) -> Result<(BTreeSet<u64>, BTreeSet<u64>)> {
    let (mut journal, mut book) = (BTreeSet::new(), BTreeSet::new());
    if let Some(table) = lake.table(schemas::ledger::TABLE).await? {
        for line in ledger::all_lines(&table).await? {
            let versions = line.posting.as_ref().map(|posting| Run::of(posting).versions);
            journal.extend(versions.as_ref().and_then(|versions| versions.journal));
            book.extend(versions.as_ref().and_then(|versions| versions.book));
        }
    }
    Ok((journal, book))
}

/// Checks the chain of a period's lines, computes each of them again from what its run pinned, and
/// compares the manifest with what is there.
///
/// # Errors
/// If the lake cannot be read, or does not hold a pinned version any more.
pub async fn verify_period(lake: &Lake, table: &Table, period: Period) -> Result<PeriodVerified> {
    let lines = ledger::posted_into(Some(table), period).await?;
    let mut verified = PeriodVerified { lines: lines.len(), ..PeriodVerified::default() };
    verified.difference = chain_difference(&lines);
    let versions: BTreeSet<u64> = lines.iter().map(Line::ledger_version).collect();
    for version in versions {
        if verified.difference.is_some() {
            return Ok(verified);
        }
        verified.difference = run_difference(&reproduce(lake, table, version).await?);
        verified.runs += 1;
    }
    if verified.difference.is_some() {
        return Ok(verified);
    }
    if let Some(manifest) = ledger::manifest(table, period).await? {
        let Some((stored, signed)) = open(&manifest) else {
            verified.difference = difference(&format!("manifest of {period}"), "JSON", "none");
            return Ok(verified);
        };
        verified.difference = match signed {
            Signed::Wrong => difference(
                &format!("manifest of {period}"),
                "a signature that holds",
                "one that does not",
            ),
            _ => manifest_difference(lake, table, period, &stored).await?,
        };
        verified.signed = Some(signed);
    }
    Ok(verified)
}

/// The first line of a period that does not stand where the chain has it; `None` if all do.
///
/// # Errors
/// If the ledger cannot be read.
pub async fn check_chain(table: &Table, period: Period) -> Result<Option<Difference>> {
    Ok(chain_difference(&ledger::posted_into(Some(table), period).await?))
}

/// The first line that does not stand where the chain has it.
fn chain_difference(lines: &[Line]) -> Option<Difference> {
    let mut link = Hash::default();
    for (i, line) in lines.iter().enumerate() {
        let posting = line.posting.as_ref()?;
        let place = |column: &str| format!("line {}, {column}", line.line_id);
        link = merkle::link(&link, &line.leaf().unwrap_or_default());
        let differs = difference(&place("sequence"), i, posting.sequence)
            .or_else(|| difference(&place("chain"), link, &posting.chain));
        if differs.is_some() {
            return differs;
        }
    }
    None
}

/// The first column in which a run comes out otherwise than it was posted.
fn run_difference(run: &Reproduced) -> Option<Difference> {
    for (posted, again) in run.posted.iter().zip(&run.again) {
        let (Some(posted_record), Some(again_record)) = (posted.record(), again.record()) else {
            return None;
        };
        for ((column, found), expected) in posted_record.iter().zip(again_record.values()) {
            let differs =
                difference(&format!("line {}, {column}", posted.line_id), expected, found);
            if differs.is_some() {
                return differs;
            }
        }
    }
    let common = run.posted.len().min(run.again.len());
    let extra = run.posted.get(common).or(run.again.get(common));
    let place = format!(
        "lines of {}{}",
        run.service_period,
        extra.map(|l| format!(", from {}", l.line_id)).unwrap_or_default()
    );
    difference(&place, run.again.len(), run.posted.len())
}

/// The first field of a manifest that is not what its versions come to.
async fn manifest_difference(
    lake: &Lake,
    table: &Table,
    period: Period,
    stored: &Map<String, Value>,
) -> Result<Option<Difference>> {
    let number = |name: &str| stored.get(name).and_then(Value::as_u64);
    let versions = Versions { journal: number("journal_version"), book: number("book_version") };
    let closed = ledger::closed(Some(table)).await?.get(&period).copied().unwrap_or(0);
    let closed_at: String =
        stored.get("closed_at").and_then(Value::as_str).unwrap_or_default().to_owned();
    let run = Run { versions, ledger_version: closed, scope: String::new(), posted_at: 0 };
    let snapshot = Snapshot::of_run(lake, table, &run).await?;
    let mut again = manifest_of(&snapshot, period, 0).await?;
    // When it was closed, and by which version, nothing else tells.
    again.insert("closed_at".to_owned(), Value::String(closed_at));
    if let Some(by) = stored.get("rumledger") {
        again.insert("rumledger".to_owned(), by.clone());
    }
    let names: BTreeSet<&String> = again.keys().chain(stored.keys()).collect();
    let text = |value: Option<&Value>| value.map_or_else(|| "nothing".to_owned(), Value::to_string);
    Ok(names.into_iter().find_map(|name| {
        let place = format!("manifest of {period}, {name}");
        difference(&place, text(again.get(name)), text(stored.get(name)))
    }))
}
