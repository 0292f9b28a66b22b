//! The close of a period: its manifest, and the operator's signature under it.

use std::collections::BTreeMap;

use arrow::array::AsArray as _;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Int64Type};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use lake::{Appended, Lake, Table};
use schemas::hex::hex;
use schemas::journal;
use schemas::ledger::{Line, VerifiedShare};
use schemas::merkle::{self, Hash};
use schemas::period::{EpochSeconds, Period, rfc3339};
use schemas::quantity::money_text;
use serde_json::{Map, Value, json};

use super::ledger;
use super::run::Snapshot;
use crate::ReconcileError;
use crate::core::evidence::{moment, price_entry};
use crate::engine;

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// The key by which an operator signs manifests: Ed25519.
pub struct OperatorKey(Ed25519KeyPair);

impl OperatorKey {
    /// Reads a key in PKCS#8 DER.
    ///
    /// # Errors
    /// If it is no Ed25519 key.
    pub fn from_pkcs8(der: &[u8]) -> Result<OperatorKey> {
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(der)
            .map(OperatorKey)
            .map_err(|e| ReconcileError::OperatorKey(format!("no Ed25519 key in PKCS#8: {e}")))
    }

    /// The public key, 32 bytes in hexadecimal.
    #[must_use]
    pub fn public(&self) -> String {
        hex(self.0.public_key().as_ref())
    }
}

/// Closes a period for all accounts, as posted. Twice is no error. Gives the manifest.
///
/// # Errors
/// If the lake fails.
pub async fn close(
    lake: &Lake,
    period: Period,
    key: Option<&OperatorKey>,
    clock: &(dyn Fn() -> EpochSeconds + Sync),
) -> Result<String> {
    loop {
        let mut table = ledger::ensure(lake).await?;
        if let Some(manifest) = ledger::manifest(&table, period).await? {
            return Ok(manifest);
        }
        // The ledger is pinned first, as in a run: whatever is posted from now on makes the commit stale.
        let snapshot = Snapshot { ledger: Some(table.clone()), ..Snapshot::pin(lake).await? };
        let closed_at = clock();
        let manifest = signed(manifest_of(&snapshot, period, closed_at).await?, key);
        let next = table.version() + 1;
        let row = ledger::close_row(period, &manifest, snapshot.versions(), next, closed_at)?;
        if let Appended::Committed(_) = table.append_once(&[row]).await? {
            return Ok(manifest);
        }
    }
}

/// The manifest with the operator's signature over its bytes without it.
fn signed(manifest: Map<String, Value>, key: Option<&OperatorKey>) -> String {
    let mut manifest = Value::Object(manifest);
    if let Some(key) = key {
        let value = key.0.sign(manifest.to_string().as_bytes());
        manifest["signature"] = json!({
            "algorithm": "EdDSA",
            "public_key": key.public(),
            "value": hex(value.as_ref()),
        });
    }
    manifest.to_string()
}

/// What a manifest says of its signature.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signed {
    No,
    /// By the key of this public key, 32 bytes in hexadecimal.
    By(String),
    /// It does not hold.
    Wrong,
}

/// Splits a manifest into what was signed and the signature, which is checked.
#[must_use]
pub fn open(manifest: &str) -> Option<(Map<String, Value>, Signed)> {
    let Ok(Value::Object(mut manifest)) = serde_json::from_str(manifest) else { return None };
    let Some(signature) = manifest.remove("signature") else { return Some((manifest, Signed::No)) };
    let bytes = |name: &str| -> Option<Vec<u8>> {
        let text = signature.get(name)?.as_str()?;
        let pairs = text
            .as_bytes()
            .chunks(2)
            .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok());
        let bytes: Vec<u8> = pairs.collect::<Option<_>>()?;
        (hex(&bytes) == text).then_some(bytes)
    };
    let holds = || {
        let key = aws_lc_rs::signature::UnparsedPublicKey::new(
            &aws_lc_rs::signature::ED25519,
            bytes("public_key")?,
        );
        let message = Value::Object(manifest.clone()).to_string();
        key.verify(message.as_bytes(), &bytes("value")?).ok()?;
        let known = signature.as_object()?.len() == 3 && signature["algorithm"] == "EdDSA";
        known.then(|| signature["public_key"].as_str().map(str::to_owned))?
    };
    let signed = holds().map_or(Signed::Wrong, Signed::By);
    Some((manifest, signed))
}

/// What is closed, of the lines that the snapshot's ledger holds, and all that it stands on.
///
/// # Errors
/// If the lake cannot be read.
pub async fn manifest_of(
    snapshot: &Snapshot,
    period: Period,
    closed_at: EpochSeconds,
) -> Result<Map<String, Value>> {
    let before = snapshot.before.unwrap_or(u64::MAX);
    let mut lines = ledger::posted_into(snapshot.ledger.as_ref(), period).await?;
    lines.retain(|line| line.ledger_version() < before);
    let leaves: Vec<Hash> = lines.iter().filter_map(Line::leaf).collect();
    let head = lines.last().and_then(|line| line.posting.as_ref()).map(|p| p.chain.clone());
    let versions = snapshot.versions();
    let ledger_version =
        snapshot.before.map(|v| v - 1).or(snapshot.ledger.as_ref().map(Table::version));
    let mut logs = Map::new();
    for (name, table, version) in [
        ("journal", &snapshot.journal, versions.journal),
        ("ledger", &snapshot.ledger, ledger_version),
    ] {
        if let Some((table, version)) = table.as_ref().zip(version) {
            logs.insert(name.to_owned(), json!(table.log_digest(version).await?.to_string()));
        }
    }
    let manifest = json!({
        "period": period.to_string(),
        "closed_at": rfc3339(closed_at),
        "lines": lines.len(),
        "totals": totals(&lines),
        "lines_root": merkle::root(&leaves).to_string(),
        "chain_head": head.unwrap_or_else(|| Hash::default().to_string()),
        "ledger_version": ledger_version,
        "journal_version": versions.journal,
        "book_version": versions.book,
        "log_digests": logs,
        "prices": price_hashes(snapshot, &lines),
        "reports": reports(snapshot).await?,
        "verified_share": verified_shares(&lines),
        "rumledger": env!("CARGO_PKG_VERSION"),
    });
    match manifest {
        Value::Object(manifest) => Ok(manifest),
        _ => unreachable!("an object was made"),
    }
}

fn totals(lines: &[Line]) -> BTreeMap<&str, String> {
    let mut totals: BTreeMap<&str, i128> = BTreeMap::new();
    for line in lines {
        *totals.entry(&line.currency).or_default() += line.amount;
    }
    let text = |(currency, total)| (currency, money_text(total, currency));
    totals.into_iter().map(text).collect()
}

/// By currency: the part of what usage was charged that verified reports back.
fn verified_shares(lines: &[Line]) -> BTreeMap<&str, String> {
    let mut shares: BTreeMap<&str, VerifiedShare> = BTreeMap::new();
    for line in lines {
        shares.entry(&line.currency).or_default().add(line);
    }
    let text = |(currency, share): (_, VerifiedShare)| Some((currency, share.text()?));
    shares.into_iter().filter_map(text).collect()
}

/// The hashes of the prices of each plan that a line names, as the book of the close has them.
fn price_hashes(snapshot: &Snapshot, lines: &[Line]) -> BTreeMap<String, String> {
    let plans: std::collections::BTreeSet<&str> =
        lines.iter().map(|line| line.price_plan.as_str()).collect();
    let prices = snapshot.book.book.prices.iter().filter(|p| plans.contains(p.plan.as_str()));
    prices
        .map(|price| {
            let name =
                [&price.plan, &price.item, price.charge.as_str(), &moment(&price.valid_from)]
                    .join(" ");
            (name, merkle::digest(price_entry(price).as_bytes()).to_string())
        })
        .collect()
}

/// The balance of everything received, as the pinned journal has it.
async fn reports(snapshot: &Snapshot) -> Result<BTreeMap<String, u64>> {
    let session = engine::session()?;
    engine::register(&session, journal::TABLE, snapshot.journal.as_ref(), &journal::SCHEMA).await?;
    let rows = session.sql(include_str!("../sql/balance.sql")).await?.collect().await?;
    let mut counts = BTreeMap::from([("received".to_owned(), 0)]);
    for batch in rows {
        let (names, numbers) =
            (cast(batch.column(0), &DataType::Utf8)?, cast(batch.column(1), &DataType::Int64)?);
        let numbers = numbers.as_primitive::<Int64Type>();
        for (i, name) in names.as_string::<i32>().iter().enumerate() {
            let n = u64::try_from(numbers.value(i)).unwrap_or(0);
            let name = name.unwrap_or_default();
            if !name.contains(' ') {
                *counts.entry("received".to_owned()).or_default() += n;
            }
            counts.insert(name.to_owned(), n);
        }
    }
    Ok(counts)
}
