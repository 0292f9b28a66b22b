//! From inputs to commits: reading, mediation and the lake, side by side.
//!
//! One thread reads inputs and hands on chunks of reports. Each chunk is decoded and verified on all
//! cores; dispositions are given in the order of arrival. Rows gather until a flush is due; their
//! commit runs while the next rows are made, one commit at a time. A report counts as known to this
//! run from the moment it is accepted, and to any other run once its commit is durable: only then
//! does it enter the index.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use lake::{Appended, Lake, Layout, Table};
use rayon::prelude::*;
use schemas::disposition::{Disposition, Reason, SignatureStatus};
use schemas::journal;
use schemas::period::EpochSeconds;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::files::FileSource;
use super::index::{Digest, Index, IndexError, ReportKey};
use super::rows::{Delivery, Row, Rows};
use crate::core::carrier::{CarrierError, CarrierLimits, Item, read_source};
use crate::core::decode::decode;
use crate::core::keyring::Keyring;
use crate::core::mediate::{Checked, Probe, Rules, check_origin, check_signature, judge, suspend};
use crate::core::report::{DecodedReport, Judged, RawReport, Readings, RefusedReport};

/// Reports that are decoded and verified together.
const CHUNK_REPORTS: usize = 512;
const CHUNK_BYTES: usize = 4 << 20;
/// Chunks that may wait between the reader and mediation.
const CHUNKS_WAITING: usize = 2;

/// When rows are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushLimits {
    pub rows_max: usize,
    pub bytes_max: usize,
    pub age_max: Duration,
}

impl Default for FlushLimits {
    fn default() -> Self {
        FlushLimits { rows_max: 16_000, bytes_max: 32 << 20, age_max: Duration::from_secs(10) }
    }
}

/// Everything a run is told.
pub struct Settings<'a> {
    pub limits: CarrierLimits,
    pub flush: FlushLimits,
    pub rules: Rules,
    pub delivery: Delivery,
    pub keyring: Keyring,
    /// Seconds since 1970, UTC.
    pub clock: &'a (dyn Fn() -> EpochSeconds + Sync),
    /// Told of each chunk: reports so far, files so far.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Told of each input without a report.
    pub ignored: &'a (dyn Fn(&str, &str) + Sync),
}

/// What became of the reports of one run.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    pub received: u64,
    pub accepted: u64,
    pub duplicate: u64,
    pub suspended: BTreeMap<Reason, u64>,
    pub verified: u64,
    pub unverifiable: u64,
    pub commits: u64,
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
        match judged.signature {
            Some(SignatureStatus::Verified) => self.verified += 1,
            Some(SignatureStatus::Unverifiable) => self.unverifiable += 1,
            None => {}
        }
    }

    #[must_use]
    pub fn suspended_total(&self) -> u64 {
        self.suspended.values().sum()
    }
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Lake(#[from] lake::LakeError),
    #[error("the rows do not fit the journal's columns")]
    Rows(#[from] arrow::error::ArrowError),
    #[error(
        "another ingest took in some of the same reports at the same moment; nothing of the last batch was written, run it again"
    )]
    Raced,
    #[error("a commit was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

type Result<T, E = IngestError> = std::result::Result<T, E>;

/// How the journal is laid out.
#[must_use]
pub fn journal_layout() -> Layout {
    Layout {
        schema: journal::SCHEMA.clone(),
        partition_columns: &[journal::PARTITION_COLUMN],
        statistics: &["received_at", "usage_start", "usage_end", "reason"],
    }
}

/// Takes in all reports of the files, in order. Blocks; run it off the runtime's own threads.
///
/// # Errors
/// If a file cannot be read, or the lake or the index fails. What was committed stays; run it again
/// and nothing is lost or taken twice.
pub fn ingest_files(
    runtime: &Handle,
    lake: &Lake,
    cache_dir: &Path,
    files: &[PathBuf],
    settings: &Settings<'_>,
) -> Result<Summary> {
    let journal = runtime.block_on(lake.ensure(journal::TABLE, &journal_layout()))?;
    let index = runtime.block_on(Index::open(cache_dir, &journal))?;
    let files_read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(CHUNKS_WAITING);
        scope.spawn(|| read_files(files, settings, &files_read, send));
        let mut mediation = Mediation::new(runtime, journal, index, settings);
        mediation.run(&receive, &files_read)?;
        mediation.finish()
    })
}

/// Reads files until the end, an error, or nobody listens any more.
fn read_files(
    files: &[PathBuf],
    settings: &Settings<'_>,
    done: &AtomicU64,
    send: SyncSender<Result<Vec<RawReport>>>,
) {
    let mut chunk = Vec::new();
    let mut chunk_bytes = 0;
    for path in files {
        let source = FileSource::new(path.clone());
        let read = read_source(&source, &settings.limits, &mut |item| match item {
            Item::Report(report) => {
                chunk_bytes += report.text.len();
                chunk.push(report);
                if chunk.len() < CHUNK_REPORTS && chunk_bytes < CHUNK_BYTES {
                    return true;
                }
                chunk_bytes = 0;
                send.send(Ok(std::mem::take(&mut chunk))).is_ok()
            }
            Item::Ignored { source, what } => {
                (settings.ignored)(&source, &what);
                true
            }
        });
        match read {
            Ok(()) => done.fetch_add(1, Ordering::Relaxed),
            Err(CarrierError::Stopped) => return,
            Err(error) => {
                // What was read before the file that failed is taken in first.
                let _ = send.send(Ok(std::mem::take(&mut chunk)));
                let _ = send.send(Err(error.into()));
                return;
            }
        };
    }
    let _ = send.send(Ok(chunk));
}

/// Reports accepted since the last durable commit.
type Fresh = HashMap<ReportKey, Digest>;

/// A commit under way, with the reports that become known when it is durable.
struct Commit {
    task: JoinHandle<Result<(Table, Appended, RecordBatch)>>,
    fresh: Fresh,
}

struct Mediation<'a> {
    runtime: &'a Handle,
    settings: &'a Settings<'a>,
    journal: Table,
    index: Index,
    rows: Rows,
    rows_since: Instant,
    fresh: Fresh,
    commit: Option<Commit>,
    summary: Summary,
}

/// A report between decoding and its disposition.
enum Decoded {
    Good { report: Box<DecodedReport>, key: ReportKey, probe: Probe, checked: Option<Checked> },
    Refused(Box<RefusedReport>),
}

impl<'a> Mediation<'a> {
    fn new(runtime: &'a Handle, journal: Table, index: Index, settings: &'a Settings<'a>) -> Self {
        Mediation {
            runtime,
            settings,
            journal,
            index,
            rows: Rows::default(),
            rows_since: Instant::now(),
            fresh: Fresh::new(),
            commit: None,
            summary: Summary::default(),
        }
    }

    fn run(
        &mut self,
        chunks: &Receiver<Result<Vec<RawReport>>>,
        files_read: &AtomicU64,
    ) -> Result<()> {
        while let Ok(chunk) = chunks.recv() {
            match chunk {
                Ok(chunk) => self.take(chunk)?,
                Err(error) => {
                    self.flush()?;
                    self.settle()?;
                    return Err(error);
                }
            }
            (self.settings.progress)(self.summary.received, files_read.load(Ordering::Relaxed));
        }
        Ok(())
    }

    fn take(&mut self, chunk: Vec<RawReport>) -> Result<()> {
        let received_at = (self.settings.clock)();
        let mut decoded: Vec<Decoded> =
            chunk.par_iter().map(|raw| decode_one(raw, self.settings, received_at)).collect();
        for one in &mut decoded {
            if let Decoded::Good { report, key, probe, .. } = one {
                *probe = self.probe(key, &report.payload_sha256)?;
            }
        }
        let settings = self.settings;
        decoded.par_iter_mut().for_each(|one| {
            if let Decoded::Good { report, probe: Probe::New | Probe::Conflict, checked, .. } = one
            {
                *checked = Some(check_signature(report, &settings.keyring, &settings.rules));
            }
        });
        for (raw, one) in chunk.iter().zip(decoded) {
            self.conclude(raw, one, received_at)?;
        }
        if self.flush_is_due() {
            self.flush()?;
        }
        Ok(())
    }

    fn probe(&self, key: &ReportKey, digest: &Digest) -> Result<Probe> {
        let in_commit = self.commit.as_ref().and_then(|c| c.fresh.get(key));
        match self.fresh.get(key).or(in_commit) {
            Some(held) if held == digest => Ok(Probe::Duplicate),
            Some(_) => Ok(Probe::Conflict),
            None => Ok(self.index.probe(key, digest)?),
        }
    }

    /// Gives a report its disposition, in the order of arrival, and makes it a row.
    fn conclude(
        &mut self,
        raw: &RawReport,
        decoded: Decoded,
        received_at: EpochSeconds,
    ) -> Result<()> {
        let (judged, readings) = match decoded {
            Decoded::Refused(refused) => (suspend(&refused), refused.readings),
            Decoded::Good { report, key, probe, checked } => {
                // A copy that stood before it in this very chunk may have been accepted meanwhile.
                let probe = match self.fresh.get(&key) {
                    Some(held) if *held == report.payload_sha256 => Probe::Duplicate,
                    Some(_) => Probe::Conflict,
                    None => probe,
                };
                let judged = judge(probe, checked);
                if judged.disposition == Disposition::Accepted {
                    self.fresh.insert(key, report.payload_sha256);
                }
                (judged, report.readings)
            }
        };
        self.summary.count(&judged);
        if self.rows.is_empty() {
            self.rows_since = Instant::now();
        }
        let row = Row {
            position: &raw.position,
            text: &raw.text,
            context: &raw.context,
            readings: &readings,
            judged: &judged,
        };
        Ok(self.rows.push(&row, &self.settings.delivery, received_at)?)
    }

    fn flush_is_due(&self) -> bool {
        let limits = &self.settings.flush;
        self.rows.len() >= limits.rows_max
            || self.rows.bytes() >= limits.bytes_max
            || (!self.rows.is_empty() && self.rows_since.elapsed() >= limits.age_max)
    }

    /// Starts the commit of the rows, when the commit before it is durable.
    fn flush(&mut self) -> Result<()> {
        self.settle()?;
        if self.rows.is_empty() {
            return Ok(());
        }
        let batch = self.rows.finish()?;
        let mut journal = self.journal.clone();
        let task = self.runtime.spawn(async move {
            let appended = journal.append_once(std::slice::from_ref(&batch), &[]).await?;
            Ok((journal, appended, batch))
        });
        self.commit = Some(Commit { task, fresh: std::mem::take(&mut self.fresh) });
        Ok(())
    }

    /// Waits until the commit under way is durable, then makes its reports known.
    fn settle(&mut self) -> Result<()> {
        let Some(Commit { task, fresh }) = self.commit.take() else {
            return Ok(());
        };
        let (mut journal, mut appended, batch) = self.runtime.block_on(task)??;
        while appended == Appended::Stale {
            // Somebody else committed. If that brought none of our reports, the rows still hold.
            self.runtime.block_on(journal.refresh())?;
            self.runtime.block_on(self.index.catch_up(&journal))?;
            for (key, digest) in &fresh {
                if self.index.probe(key, digest)? != Probe::New {
                    return Err(IngestError::Raced);
                }
            }
            appended =
                self.runtime.block_on(journal.append_once(std::slice::from_ref(&batch), &[]))?;
        }
        self.journal = journal;
        self.index.record(fresh.into_iter(), &self.journal)?;
        self.summary.commits += 1;
        Ok(())
    }

    fn finish(mut self) -> Result<Summary> {
        self.flush()?;
        self.settle()?;
        Ok(self.summary)
    }
}

/// Everything about one report that needs neither the index nor the keys.
fn decode_one(raw: &RawReport, settings: &Settings<'_>, received_at: EpochSeconds) -> Decoded {
    let refuse = |reason, detail, readings| {
        Decoded::Refused(Box::new(RefusedReport { reason, detail, readings }))
    };
    if let Some((reason, detail)) = &raw.refused {
        return refuse(*reason, detail.clone(), Readings::default());
    }
    match decode(&raw.text, &settings.limits.report, received_at) {
        Err(refused) => Decoded::Refused(refused),
        Ok(report) => match check_origin(&report, &settings.delivery.collector, &settings.rules) {
            Some((reason, detail)) => refuse(reason, detail, report.readings),
            None => Decoded::Good {
                key: ReportKey::new(&report.udi, report.report_id),
                report: Box::new(report),
                probe: Probe::New,
                checked: None,
            },
        },
    }
}
