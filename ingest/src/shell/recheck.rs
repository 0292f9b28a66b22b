//! What is kept, looked at again: the journal's columns against the bytes beside them, and signatures.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::sync::Arc;

use arrow::array::{Array as _, ArrayRef, AsArray as _, RecordBatch};
use arrow::datatypes::{Decimal128Type, Schema};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use datafusion::prelude::{SessionConfig, SessionContext};
use futures::StreamExt as _;
use lake::{Lake, LakeError, StoredBook, Table};
use rayon::prelude::*;
use schemas::disposition::{Disposition, Reason, SignaturePolicy, SignatureStatus};
use schemas::journal::SCHEMA;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::again::arrivals_of;
use super::mediation::{Decoded, Judging, decode_one};
use super::rows::{Row, Rows};
use super::takeup::{TakeUpError, in_types_of, unread};
use super::trust::{self, Newest};
use crate::core::decode::{ReportLimits, decode};
use crate::core::keyring::{Keyring, TrustFact};
use crate::core::mediate::{Checked, Rules, SignedParts, check_signature, signed_parts};
use crate::core::report::{DecodedReport, Judged, Readings};

type Result<T, E = TakeUpError> = std::result::Result<T, E>;

/// A row whose columns are not what its bytes say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RowDifference {
    /// Source and offset of the report.
    pub place: String,
    pub column: String,
    pub expected: String,
    pub found: String,
}

/// What looking at the journal again came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rechecked {
    pub reports: u64,
    /// Of these, accepted ones whose signature was verified again.
    pub verified: u64,
    pub difference: Option<RowDifference>,
}

/// The columns that follow from the bytes, the time of receipt and the keys.
const DERIVED: &[&str] = &[
    "udi_pid",
    "udi_serial",
    "report_id",
    "payload_sha256",
    "layout",
    "entitlement_tag",
    "utility",
    "software_version",
    "subscription_id",
    "signature",
    "usage_start",
    "usage_end",
    "ha_udi",
    "measurements",
];

/// Decodes every row of the journal anew and verifies the accepted ones, up to the first that differs: by the trust
/// codes on record, and where they do not, by those that earlier books had. `progress` is told how many were
/// looked at.
///
/// # Errors
/// If the journal cannot be read.
pub async fn recheck(
    lake: &Lake,
    journal: &Table,
    judging: &Judging,
    progress: &mut dyn FnMut(u64),
) -> Result<Rechecked> {
    // What could not be verified was accepted by the policy of its time; that is not asked again.
    let rules = Rules { policy: SignaturePolicy::Accept, ..judging.rules.clone() };
    let judging = &Judging { rules, ..judging.clone() };
    let session = SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
    let provider = journal.provider(&session).await?;
    // The names of the table, in the order of the schema; an earlier lake may lack the last ones.
    let held = provider.schema();
    let fields = SCHEMA.fields().iter().filter(|f| held.index_of(f.name()).is_ok()).cloned();
    let schema = Arc::new(Schema::new(fields.collect::<Vec<_>>()));
    let names: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let rows = session.read_table(provider).and_then(|rows| rows.select_columns(&names));
    let mut rows = rows.map_err(unread)?.execute_stream().await.map_err(unread)?;
    let mut checked = Rechecked::default();
    // Keys that are on record no more, once one is missed.
    let (mut earlier, mut is_looked_for) = (Vec::new(), false);
    let mut accepted: Vec<u64> = Vec::new();
    while let Some(batch) = rows.next().await {
        let batch = in_types_of(&schema, &batch.map_err(unread)?)?;
        let mut so_far = checked.clone();
        so_far.difference = recheck_rows(&batch, judging, &earlier, &mut so_far)?;
        if so_far.difference.as_ref().is_some_and(|row| row.column == "signature") && !is_looked_for
        {
            is_looked_for = true;
            earlier = trust::withdrawn(lake).await?;
            so_far = checked.clone();
            so_far.difference = recheck_rows(&batch, judging, &earlier, &mut so_far)?;
        }
        checked = so_far;
        accepted.extend(accepted_of(&batch)?);
        progress(checked.reports);
        if checked.difference.is_some() {
            break;
        }
    }
    accepted.sort_unstable();
    if checked.difference.is_none() && accepted.windows(2).any(|pair| pair[0] == pair[1]) {
        checked.difference = accepted_twice(&session, journal).await?;
    }
    Ok(checked)
}

/// A word for each accepted report of some rows: equal ones are asked for by name.
fn accepted_of(rows: &RecordBatch) -> Result<Vec<u64>> {
    let [pids, serials, dispositions] =
        ["udi_pid", "udi_serial", "disposition"].map(|name| rows[name].as_string::<i32>());
    let ids = rows["report_id"].as_primitive::<Decimal128Type>();
    let word = |i: usize| {
        let mut hasher = DefaultHasher::new();
        (pids.value(i), serials.value(i), ids.value(i)).hash(&mut hasher);
        hasher.finish()
    };
    let is_accepted = |i: &usize| dispositions.value(*i) == Disposition::Accepted.as_str();
    Ok((0..rows.num_rows()).filter(is_accepted).map(word).collect())
}

/// A report that is accepted more than once, whatever its rows say.
async fn accepted_twice(
    session: &SessionContext,
    journal: &Table,
) -> Result<Option<RowDifference>> {
    session.register_table("accepted_twice", journal.provider(session).await?).map_err(unread)?;
    let query = "SELECT udi_pid || ':' || udi_serial || ', report ' || CAST(report_id AS VARCHAR), \
                 CAST(count(*) AS VARCHAR) FROM accepted_twice WHERE disposition = 'accepted' \
                 GROUP BY udi_pid, udi_serial, report_id HAVING count(*) > 1 \
                 ORDER BY udi_pid, udi_serial, report_id LIMIT 1";
    let found = session.sql(query).await.map_err(unread)?.collect().await.map_err(unread)?;
    let Some(row) = found.iter().find(|rows| rows.num_rows() > 0) else { return Ok(None) };
    Ok(Some(RowDifference {
        place: shown(row.column(0), 0),
        column: "disposition".to_owned(),
        expected: "accepted once".to_owned(),
        found: format!("accepted {} times", shown(row.column(1), 0)),
    }))
}

fn recheck_rows(
    rows: &RecordBatch,
    judging: &Judging,
    earlier: &[Keyring],
    checked: &mut Rechecked,
) -> Result<Option<RowDifference>> {
    let arrivals = arrivals_of(rows, judging)?;
    let dispositions = rows["disposition"].as_string::<i32>();
    let looked_at: Vec<(Readings, Option<Checked>)> = arrivals
        .par_iter()
        .enumerate()
        .map(|(i, arrival)| match decode_one(arrival, judging) {
            Decoded::Refused(refused) => (refused.readings, None),
            Decoded::Good { report, .. } => {
                let is_accepted = dispositions.value(i) == Disposition::Accepted.as_str();
                let by = |keyring| check_signature(&report, keyring, &judging.rules);
                let signature = is_accepted.then(|| match by(&judging.keyring) {
                    Checked::Suspend(reason) => {
                        let verifies = |checked: &Checked| matches!(checked, Checked::Status(_));
                        let earlier = earlier.iter().map(by).find(verifies);
                        earlier.unwrap_or(Checked::Suspend(reason))
                    }
                    status => status,
                });
                (report.readings, signature)
            }
        })
        .collect();
    let signatures = rows["signature"].as_string::<i32>();
    let mut again = Rows::default();
    for (i, (arrival, (readings, signature))) in arrivals.iter().zip(&looked_at).enumerate() {
        let signature = match signature {
            Some(Checked::Status(status)) => Some(*status),
            // What it was when the report was judged, by the trust codes and the policy of then.
            None if dispositions.value(i) == Disposition::Suspended.as_str() => {
                [SignatureStatus::Verified, SignatureStatus::Unverifiable]
                    .into_iter()
                    .find(|status| signatures.is_valid(i) && signatures.value(i) == status.as_str())
            }
            _ => None,
        };
        checked.reports += 1;
        checked.verified +=
            u64::from(matches!(looked_at[i].1, Some(Checked::Status(SignatureStatus::Verified))));
        let judged =
            Judged { disposition: Disposition::Accepted, reason: None, detail: None, signature };
        again.push(&Row { arrival, readings, judged: &judged })?;
    }
    let again = again.finish()?;
    for name in DERIVED {
        let now = &again[*name];
        let Some(stored) = rows.column_by_name(name) else {
            return Ok(Some(RowDifference {
                place: "its columns".to_owned(),
                column: (*name).to_owned(),
                expected: "a column of this name".to_owned(),
                found: "none".to_owned(),
            }));
        };
        if stored == now {
            continue;
        }
        let Some(i) = (0..rows.num_rows()).find(|&i| stored.slice(i, 1) != now.slice(i, 1)) else {
            continue;
        };
        let refused: Option<Reason> = match looked_at[i].1 {
            Some(Checked::Suspend(reason)) if *name == "signature" => Some(reason),
            _ => None,
        };
        let found = shown(stored, i);
        let expected = refused.map_or_else(|| shown(now, i), |reason| reason.to_string());
        let position = &arrivals[i].raw.position;
        return Ok(Some(RowDifference {
            place: format!("report {} of {}", position.offset, position.source),
            column: (*name).to_owned(),
            expected,
            found,
        }));
    }
    Ok(None)
}

fn shown(column: &ArrayRef, i: usize) -> String {
    let options = arrow::util::display::FormatOptions::default().with_null("nothing");
    arrow::util::display::ArrayFormatter::try_new(column.as_ref(), &options)
        .map_or_else(|_| String::from("?"), |f| f.value(i).to_string())
}

/// The signature of a report, with the trust code that verifies it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedReport {
    /// The signed bytes.
    pub payload: Vec<u8>,
    pub signer: Udi,
    /// In base64, without line breaks.
    pub signature: String,
    pub trust_code: TrustFact,
}

/// A report as it is kept.
#[derive(Clone, Copy)]
pub struct Kept<'a> {
    pub raw: &'a [u8],
    pub received_at: EpochSeconds,
}

/// Looks for the trust code that verifies each of some reports, on all cores; `None` where none does.
/// `known` is a book that need not be read again if it is the newest.
///
/// # Errors
/// If the trust codes cannot be read.
pub async fn signed_reports(
    lake: &Lake,
    newest: &Newest,
    known: &StoredBook,
    reports: &[Kept<'_>],
    limits: &ReportLimits,
    rules: &Rules,
) -> Result<Vec<Option<SignedReport>>, LakeError> {
    let decoded: Vec<Option<DecodedReport>> = reports
        .par_iter()
        .map(|report| decode(report.raw, limits, report.received_at).ok())
        .collect();
    let parts: Vec<Option<SignedParts<'_>>> =
        decoded.iter().map(|report| signed_parts(report.as_ref()?, rules)).collect();
    let signers = parts.iter().flatten().map(|parts| parts.signer.clone()).collect();
    let keyring = trust::keyring_of(lake, newest, &signers, known).await?;
    let signed = |parts: &Option<SignedParts<'_>>| {
        let parts = parts.as_ref()?;
        Some(SignedReport {
            payload: parts.message.to_vec(),
            signer: parts.signer.clone(),
            signature: STANDARD.encode(parts.value.as_deref().unwrap_or_default()),
            trust_code: keyring.verifying(parts)?,
        })
    };
    Ok(parts.par_iter().map(signed).collect())
}
