//! From reports to judged rows: decoding and signatures on all cores, dispositions in the order of
//! arrival.
//!
//! A report counts as known to this process from the moment it is accepted, and to any other once its
//! commit is durable. When another writer's commit comes in between, what was judged before it is
//! judged again ([`super::again`]).

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard};

use arrow::array::RecordBatch;
use schemas::disposition::{Disposition, Reason, SignatureStatus};
use schemas::journal;

use super::index::{Digest, Index, IndexError, ReportKey, Seeded};
use super::line::Line;
use super::rows::{Row, Rows};
use crate::core::carrier::CarrierLimits;
use crate::core::decode::decode;
use crate::core::keyring::Keyring;
use crate::core::mediate::{Checked, Probe, Rules, check_origin, check_signatures, judge, suspend};
use crate::core::report::{Arrival, DecodedReport, Judged, Readings, RefusedReport};

/// By what reports are judged.
#[derive(Clone)]
pub struct Judging {
    pub limits: CarrierLimits,
    pub rules: Rules,
    pub keyring: Arc<Keyring>,
}

#[derive(Debug, thiserror::Error)]
pub enum MediationError {
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error("the rows do not fit the journal's columns")]
    Rows(#[from] arrow::error::ArrowError),
    #[error("a row of the journal cannot be judged again: {0}")]
    NotAJournal(&'static str),
}

type Result<T, E = MediationError> = std::result::Result<T, E>;

/// What became of reports.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub received: u64,
    pub accepted: u64,
    pub duplicate: u64,
    pub suspended: BTreeMap<Reason, u64>,
    pub verified: u64,
    pub unverifiable: u64,
}

impl Summary {
    fn count(&mut self, judged: &Judged) {
        self.received += 1;
        match (judged.disposition, judged.reason) {
            (Disposition::Duplicate, _) => self.duplicate += 1,
            (Disposition::Suspended, reason) => {
                *self.suspended.entry(reason.unwrap_or(Reason::Malformed)).or_default() += 1;
            }
            (Disposition::Accepted, _) => self.accepted += 1,
        }
        match judged.signature.filter(|_| judged.disposition == Disposition::Accepted) {
            Some(SignatureStatus::Verified) => self.verified += 1,
            Some(SignatureStatus::Unverifiable) => self.unverifiable += 1,
            None => {}
        }
    }

    pub fn add(&mut self, other: &Summary) {
        self.received += other.received;
        self.accepted += other.accepted;
        self.duplicate += other.duplicate;
        for (reason, n) in &other.suspended {
            *self.suspended.entry(*reason).or_default() += n;
        }
        self.verified += other.verified;
        self.unverifiable += other.unverifiable;
    }

    #[must_use]
    pub fn suspended_total(&self) -> u64 {
        self.suspended.values().sum()
    }
}

/// Reports that one core decodes and verifies in one go.
const REPORTS_TOGETHER: usize = 64;
/// Parts of what comes at once, at least, so that no core waits long for another.
const PARTS_MIN: usize = 32;
/// The same of the last reports, so that the cores end together.
const LAST_TOGETHER: usize = 16;
/// How many of the reports are the last: one in so many.
const LAST_PART: usize = 16;
/// Rows that make a batch of their own.
const ROWS_TOGETHER: usize = 512;

/// Reports accepted in rows that are not durable yet.
pub type Fresh = HashMap<ReportKey, Digest, Seeded>;

/// Rows that belong together: one commit's, or what is gathered for one.
pub struct Gathered {
    /// Those of each disposition by themselves, as the journal has them; or all in their order.
    open: Vec<Open>,
    done: Vec<(RecordBatch, Places)>,
    bytes: usize,
    fresh: Fresh,
    summary: Summary,
    /// State of the index that the first of them was judged by.
    judged_by: Option<u64>,
    /// Some were judged by reports whose commit was under way.
    leans: bool,
}

/// Rows of one disposition that more may be added to.
#[derive(Default)]
struct Open {
    rows: Rows,
    places: Places,
}

/// Where rows of one disposition stand among all that came with them, in their order.
type Places = Vec<usize>;

impl Open {
    fn finish(self) -> Result<(RecordBatch, Places)> {
        Ok((self.rows.finish()?, self.places))
    }
}

/// Rows ready to be committed.
#[derive(Clone)]
pub struct Batch {
    pub rows: Vec<RecordBatch>,
    /// Of each of `rows`.
    pub(super) places: Vec<Places>,
    pub fresh: Fresh,
    pub summary: Summary,
    pub(super) judged_by: u64,
    /// Some were judged by reports of the commit before it, which may come to something else.
    pub(super) leans: bool,
}

/// A report between decoding and its disposition.
#[allow(clippy::large_enum_variant, reason = "nearly all are good, and none lives long")]
pub(super) enum Decoded {
    Good { report: DecodedReport, key: ReportKey, probe: Probe, checked: Option<Checked> },
    Refused(Box<RefusedReport>),
}

impl Decoded {
    fn key(&self) -> Option<&ReportKey> {
        match self {
            Decoded::Good { key, .. } => Some(key),
            Decoded::Refused(_) => None,
        }
    }

    /// The report, if its signature is to be looked at.
    fn to_check(&self) -> Option<&DecodedReport> {
        match self {
            Decoded::Good { report, probe, .. } if *probe != Probe::Duplicate => Some(report),
            _ => None,
        }
    }
}

impl Default for Gathered {
    fn default() -> Self {
        Gathered::of(Disposition::ALL.len())
    }
}

impl Gathered {
    /// Keeps all rows in the order of their reports, in one batch, even if there are none.
    #[must_use]
    pub fn in_order() -> Gathered {
        Gathered::of(1)
    }

    fn of(parts: usize) -> Gathered {
        Gathered {
            open: std::iter::repeat_with(Open::default).take(parts).collect(),
            done: Vec::new(),
            bytes: 0,
            fresh: Fresh::default(),
            summary: Summary::default(),
            judged_by: None,
            leans: false,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    #[must_use]
    pub fn len(&self) -> usize {
        usize::try_from(self.summary.received).unwrap_or(usize::MAX)
    }

    /// Bytes of raw evidence.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Judges reports, in their order. `in_commit` are those whose commit is under way before them.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn take(
        &mut self,
        arrivals: &[Arrival],
        judging: &Judging,
        index: &Index,
        in_commit: Option<&Fresh>,
    ) -> Result<()> {
        self.take_beside(arrivals, judging, index, in_commit, || ())
    }

    /// The same, while something else is done here.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn take_beside<T>(
        &mut self,
        arrivals: &[Arrival],
        judging: &Judging,
        index: &Index,
        in_commit: Option<&Fresh>,
        beside: impl FnOnce() -> T,
    ) -> Result<T> {
        self.judged_by.get_or_insert(index.foreign());
        let fresh = RwLock::new(std::mem::take(&mut self.fresh));
        let leans = AtomicBool::new(false);
        let prepare = |arrivals: &[Arrival]| -> Result<Vec<Decoded>> {
            let mut part: Vec<Decoded> =
                arrivals.iter().map(|arrival| decode_one(arrival, judging)).collect();
            if look_up(&mut part, index, &fresh, in_commit)? {
                leans.store(true, Ordering::Relaxed);
            }
            check(&mut part, judging);
            Ok(part)
        };
        let parts = parts_of(arrivals);
        let line = Line::default();
        let full = self.full();
        let mut closed = Ok(Vec::new());
        let rows = Mutex::new(&mut *self);
        // All cores decode and verify. Whichever has the part that is next in the order concludes it, and those
        // behind it that are there: so nobody has to be woken for it.
        let done = rayon::in_place_scope_fifo(|scope| {
            // What the reports before these made is closed beside them, so that no core waits for it.
            let closed = &mut closed;
            scope.spawn_fifo(move |_| *closed = full.into_iter().map(Open::finish).collect());
            for (number, part) in parts.iter().enumerate() {
                let (prepare, line, parts, fresh, rows) = (&prepare, &line, &parts, &fresh, &rows);
                scope.spawn_fifo(move |_| {
                    line.come(number, prepare(part), |number, decoded| {
                        let mut rows = rows.lock().unwrap_or_else(PoisonError::into_inner);
                        rows.conclude(parts[number], decoded, fresh)
                    });
                });
            }
            beside()
        });
        line.ended()?;
        self.fresh = fresh.into_inner().unwrap_or_else(PoisonError::into_inner);
        self.leans |= leans.into_inner();
        self.done.append(&mut closed?);
        Ok(done)
    }

    /// Rows that are enough for batches of their own; those of the reports to come begin anew.
    fn full(&mut self) -> Vec<Open> {
        if self.open.len() == 1 {
            return Vec::new();
        }
        let full = self.open.iter_mut().filter(|open| open.rows.len() >= ROWS_TOGETHER);
        full.map(std::mem::take).collect()
    }

    /// Gives reports their dispositions, one after the other, and makes them rows.
    fn conclude(
        &mut self,
        arrivals: &[Arrival],
        decoded: Vec<Decoded>,
        fresh: &RwLock<Fresh>,
    ) -> Result<()> {
        for (arrival, decoded) in arrivals.iter().zip(decoded) {
            let (judged, readings) = match decoded {
                Decoded::Refused(refused) => (suspend(&refused), refused.readings),
                Decoded::Good { report, key, probe, checked } => {
                    let mut fresh = fresh.write().unwrap_or_else(PoisonError::into_inner);
                    // A copy that stood before it may have been accepted since it was looked up.
                    let judged = match fresh.entry(key) {
                        Entry::Occupied(held) => {
                            judge(known(held.get(), &report.payload_sha256), checked)
                        }
                        Entry::Vacant(place) => {
                            let judged = judge(probe, checked);
                            if judged.disposition == Disposition::Accepted {
                                place.insert(report.payload_sha256);
                            }
                            judged
                        }
                    };
                    (judged, report.readings)
                }
            };
            let place = self.len();
            self.summary.count(&judged);
            let part = if self.open.len() > 1 { judged.disposition as usize } else { 0 };
            let Open { rows, places } = &mut self.open[part];
            places.push(place);
            let bytes = rows.bytes();
            rows.push(&Row { arrival, readings: &readings, judged: &judged })?;
            self.bytes += rows.bytes() - bytes;
        }
        Ok(())
    }

    /// The rows as they are committed; nothing is left.
    ///
    /// # Errors
    /// Only if the columns do not fit the schema, which would be a bug.
    pub fn finish(&mut self) -> Result<Batch> {
        let mut next = Gathered::of(self.open.len());
        next.fresh.reserve(self.fresh.len());
        let mut gathered = std::mem::replace(self, next);
        for open in gathered.open {
            if !open.rows.is_empty() || self.open.len() == 1 {
                gathered.done.push(open.finish()?);
            }
        }
        let (rows, places) = gathered.done.into_iter().unzip();
        Ok(Batch {
            rows,
            places,
            fresh: gathered.fresh,
            summary: gathered.summary,
            judged_by: gathered.judged_by.unwrap_or_default(),
            leans: gathered.leans,
        })
    }
}

/// Reports in the parts that a core takes at once.
fn parts_of(arrivals: &[Arrival]) -> Vec<&[Arrival]> {
    let together = (arrivals.len() / PARTS_MIN).clamp(1, REPORTS_TOGETHER);
    let (first, last) = arrivals.split_at(arrivals.len() - arrivals.len() / LAST_PART);
    first.chunks(together).chain(last.chunks(together.min(LAST_TOGETHER))).collect()
}

/// Nothing panics while it holds the lock: what a poisoned one holds is whole.
fn read(fresh: &RwLock<Fresh>) -> RwLockReadGuard<'_, Fresh> {
    fresh.read().unwrap_or_else(PoisonError::into_inner)
}

/// Asks for the reports of a part whether they are known; true if the commit under way had an answer. The lock is
/// taken once for all of them: two cores that take it in turns hand its memory to and fro.
fn look_up(
    part: &mut [Decoded],
    index: &Index,
    fresh: &RwLock<Fresh>,
    in_commit: Option<&Fresh>,
) -> Result<bool> {
    let held: Vec<Option<Digest>> = {
        let fresh = read(fresh);
        part.iter().map(|decoded| fresh.get(decoded.key()?).copied()).collect()
    };
    let mut leans = false;
    let (mut asked, mut answers) = (Vec::with_capacity(part.len()), Vec::with_capacity(part.len()));
    for (decoded, held) in part.iter_mut().zip(held) {
        if let Decoded::Good { report, key, probe, .. } = decoded {
            let in_commit = || in_commit?.get(key).copied().inspect(|_| leans = true);
            match held.or_else(in_commit) {
                Some(held) => *probe = known(&held, &report.payload_sha256),
                None => {
                    asked.push((*key, report.payload_sha256));
                    answers.push(probe);
                }
            }
        }
    }
    for (answer, probe) in answers.into_iter().zip(index.probe(&asked)?) {
        *answer = probe;
    }
    Ok(leans)
}

/// Looks at the signatures of the reports of a part that are no duplicates.
fn check(part: &mut [Decoded], judging: &Judging) {
    let reports: Vec<&DecodedReport> = part.iter().filter_map(Decoded::to_check).collect();
    let checks = check_signatures(&reports, &judging.keyring, &judging.rules);
    let mut checks = checks.into_iter();
    for decoded in part {
        let is_checked = decoded.to_check().is_some();
        if let Decoded::Good { report, checked, .. } = decoded {
            if is_checked {
                *checked = checks.next();
            }
            // What only the check needed goes here, and not with the report to another core.
            report.signed_payload = None;
            report.signature = None;
        }
    }
}

fn known(held: &Digest, digest: &Digest) -> Probe {
    if held == digest { Probe::Duplicate } else { Probe::Conflict }
}

/// Everything about one report that needs neither the index nor the keys.
pub(super) fn decode_one(arrival: &Arrival, judging: &Judging) -> Decoded {
    let Arrival { raw, delivery, received_at, .. } = arrival;
    let refuse = |reason, detail, readings| {
        Decoded::Refused(Box::new(RefusedReport { reason, detail, readings }))
    };
    if let Some((reason, detail)) = &raw.refused {
        return refuse(*reason, detail.clone(), Readings::default());
    }
    match decode(&raw.text, &judging.limits.report, *received_at) {
        Err(refused) => Decoded::Refused(refused),
        Ok(report) => match check_origin(&report, delivery.collector.as_deref(), &judging.rules) {
            Some((reason, detail)) => refuse(reason, detail, report.readings),
            None => Decoded::Good {
                key: ReportKey::new(report.udi(), report.report_id),
                report,
                probe: Probe::New,
                checked: None,
            },
        },
    }
}

/// How the journal is laid out.
#[must_use]
pub fn journal_layout() -> lake::Layout {
    lake::Layout {
        schema: journal::SCHEMA.clone(),
        partition_columns: &[journal::PARTITION_COLUMN],
        statistics: &[
            "received_at",
            "usage_start",
            "usage_end",
            "reason",
            "partition",
            "offset",
            "udi_serial",
        ],
    }
}
