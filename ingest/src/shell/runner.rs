//! Files into the journal: reading, mediation and commits, side by side.
//!
//! One thread reads inputs and hands on chunks of reports. Rows gather until a flush is due; their
//! commit runs while the next rows are made.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use lake::Lake;
use schemas::journal;
use schemas::period::EpochSeconds;
use tokio::runtime::Handle;

use super::documents::{self, Document};
use super::files::FileSource;
use super::index::{Index, IndexError};
use super::mediation::{Gathered, Judging, MediationError, Summary, journal_layout};
use super::writer::{Commit, JournalWriter, Settled, WriteError};
use crate::core::carrier::{Block, CarrierError, Found, Sink, read_source};
use crate::core::report::{Arrival, Delivery};
use crate::core::worker::{COMMITS_AHEAD, FlushLimits};

/// Reports that are decoded and verified together.
pub const CHUNK_REPORTS: usize = 4096;
pub const CHUNK_BYTES: usize = 8 << 20;
/// Chunks that may wait between the reader and mediation.
const CHUNKS_WAITING: usize = 2;

/// Everything a run over files is told.
pub struct Settings<'a> {
    pub judging: Judging,
    pub flush: FlushLimits,
    pub delivery: Delivery,
    /// Seconds since 1970, UTC.
    pub clock: &'a (dyn Fn() -> EpochSeconds + Sync),
    /// Told of each chunk: reports so far, files so far.
    pub progress: &'a (dyn Fn(u64, u64) + Sync),
    /// Told of each input without a report.
    pub ignored: &'a (dyn Fn(&str, &str) + Sync),
}

/// What a run came to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub summary: Summary,
    pub commits: u64,
}

#[derive(Debug, thiserror::Error)]
pub enum IngestError {
    #[error(transparent)]
    Carrier(#[from] CarrierError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Lake(#[from] lake::LakeError),
    #[error(transparent)]
    Mediation(#[from] MediationError),
    #[error(transparent)]
    Write(#[from] WriteError),
}

type Result<T, E = IngestError> = std::result::Result<T, E>;

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
) -> Result<Taken> {
    let journal = runtime.block_on(lake.ensure(journal::TABLE, &journal_layout()))?;
    let index = runtime.block_on(Index::open(cache_dir, &journal))?;
    let files_read = AtomicU64::new(0);
    std::thread::scope(|scope| {
        let (send, receive) = sync_channel(CHUNKS_WAITING);
        let delivery = Arc::new(settings.delivery.clone());
        let reader = Reader { block: Block::default(), settings, delivery, send };
        scope.spawn(|| read_files(files, reader, &files_read));
        let mut run = Run {
            runtime,
            lake,
            documents: Vec::new(),
            document_bytes: 0,
            settings,
            judged: Vec::new(),
            writer: JournalWriter::new(runtime, journal, index),
            gathered: Gathered::default(),
            since: Instant::now(),
            received: 0,
            summary: Summary::default(),
        };
        run.all(&receive, &files_read)?;
        run.keep_documents()?;
        run.flush()?;
        run.settle()?;
        Ok(Taken { summary: run.summary, commits: run.writer.commits() })
    })
}

/// Reads files until the end, an error, or nobody listens any more.
fn read_files(files: &[PathBuf], mut reader: Reader<'_>, done: &AtomicU64) {
    let limits = &reader.settings.judging.limits;
    for path in files {
        let source = FileSource::new(path.clone());
        match read_source(&source, limits, &mut reader) {
            Ok(()) => done.fetch_add(1, Ordering::Relaxed),
            Err(CarrierError::Stopped) => return,
            Err(error) => {
                // What was read before the file that failed is taken in first.
                reader.hand_on();
                let _ = reader.send.send(Err(error.into()));
                return;
            }
        };
    }
    reader.hand_on();
}

/// Gathers what is read in chunks.
struct Reader<'a> {
    block: Block,
    settings: &'a Settings<'a>,
    delivery: Arc<Delivery>,
    send: SyncSender<Result<Read>>,
}

impl Reader<'_> {
    /// False if nobody listens any more.
    fn hand_on(&mut self) -> bool {
        let received_at = (self.settings.clock)();
        let arrival = |raw| Arrival {
            raw,
            delivery: Arc::clone(&self.delivery),
            partition: None,
            received_at,
        };
        let arrivals = self.block.take().into_iter().map(arrival).collect();
        self.send.send(Ok(Read::Reports(arrivals))).is_ok()
    }
}

impl Sink for Reader<'_> {
    fn report(&mut self, found: Found<'_>) -> bool {
        self.block.push(found);
        // Not much more than is wanted in one commit.
        let reports_max = CHUNK_REPORTS.min(self.settings.flush.rows_max);
        let is_full = self.block.len() >= reports_max || self.block.bytes() >= CHUNK_BYTES;
        !is_full || self.hand_on()
    }

    fn ignored(&mut self, source: String, what: String, kept: Vec<u8>) -> bool {
        (self.settings.ignored)(&source, &what);
        kept.is_empty() || self.send.send(Ok(Read::Document { source, kept })).is_ok()
    }
}

/// What the reader hands on.
enum Read {
    Reports(Vec<Arrival>),
    /// A document without a report.
    Document {
        source: String,
        kept: Vec<u8>,
    },
}

struct Run<'a> {
    runtime: &'a Handle,
    lake: &'a Lake,
    documents: Vec<Document>,
    document_bytes: usize,
    settings: &'a Settings<'a>,
    /// Those of the chunk before: to give them back takes time.
    judged: Vec<Arrival>,
    writer: JournalWriter,
    gathered: Gathered,
    /// When the first of the rows gathered came.
    since: Instant,
    received: u64,
    summary: Summary,
}

impl Run<'_> {
    fn all(&mut self, chunks: &Receiver<Result<Read>>, files_read: &AtomicU64) -> Result<()> {
        while let Ok(chunk) = chunks.recv() {
            match chunk {
                Ok(Read::Reports(chunk)) => self.take(chunk)?,
                Ok(Read::Document { source, kept }) => self.keep(source, kept)?,
                Err(error) => {
                    self.keep_documents()?;
                    self.flush()?;
                    self.settle()?;
                    return Err(error);
                }
            }
            (self.settings.progress)(self.received, files_read.load(Ordering::Relaxed));
        }
        Ok(())
    }

    /// Keeps a document without a report; when there are enough, in the lake.
    fn keep(&mut self, source: String, bytes: Vec<u8>) -> Result<()> {
        self.document_bytes += bytes.len();
        self.documents.push(Document {
            received_at: (self.settings.clock)(),
            source,
            collector: self.settings.delivery.collector.clone().unwrap_or_default(),
            bytes,
        });
        if self.documents.len() < CHUNK_REPORTS && self.document_bytes < CHUNK_BYTES {
            return Ok(());
        }
        self.keep_documents()
    }

    fn keep_documents(&mut self) -> Result<()> {
        let documents = std::mem::take(&mut self.documents);
        self.document_bytes = 0;
        self.runtime.block_on(documents::keep(self.lake, &documents))?;
        Ok(())
    }

    fn take(&mut self, arrivals: Vec<Arrival>) -> Result<()> {
        if self.gathered.is_empty() {
            self.since = Instant::now();
        }
        self.received += arrivals.len() as u64;
        let judging = &self.settings.judging;
        let before = std::mem::take(&mut self.judged);
        self.gathered.take_beside(
            &arrivals,
            judging,
            self.writer.index(),
            self.writer.in_commit(),
            || drop(before),
        )?;
        self.judged = arrivals;
        if self.flush_is_due() { self.flush() } else { Ok(()) }
    }

    /// While a commit is under way, what comes is judged: nobody waits for the disk.
    fn flush_is_due(&self) -> bool {
        let limits = &self.settings.flush;
        let holds =
            |commits| limits.are_reached(self.gathered.len(), self.gathered.bytes(), commits);
        let is_due = holds(1) || self.since.elapsed().as_millis() >= u128::from(limits.age_ms_max);
        is_due && (self.writer.is_free() || holds(COMMITS_AHEAD))
    }

    /// Starts the commit of the rows, when the commit before it is durable.
    fn flush(&mut self) -> Result<()> {
        self.settle()?;
        if self.gathered.is_empty() {
            return Ok(());
        }
        let commit =
            Commit { batch: self.gathered.finish()?, fences: Vec::new(), marks: Vec::new() };
        Ok(self.writer.start(commit, &self.settings.judging)?)
    }

    /// Waits until the commit under way is durable.
    fn settle(&mut self) -> Result<()> {
        match self.writer.settle(&self.settings.judging)? {
            None => Ok(()),
            Some(Settled::Committed(batch)) => {
                self.summary.add(&batch.summary);
                // A hundred thousand rows are not given back in no time.
                rayon::spawn(move || drop(batch));
                Ok(())
            }
            Some(Settled::Overtaken) => unreachable!("files have no fences"),
            Some(Settled::Failed(error)) => Err(error.into()),
        }
    }
}
