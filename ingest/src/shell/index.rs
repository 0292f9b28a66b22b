//! The index of accepted reports: a cache on disk, rebuilt from the journal whenever it disagrees.
//!
//! The journal is the truth. The index holds the payload digest of every accepted report by its id,
//! and the version of the journal that it stands at, both written in one atomic batch after the
//! commit is durable. A crash in between leaves it behind; what it lacks is read from the files that
//! the missing commits added. If it belongs to another table, is ahead, or is damaged, it is thrown
//! away and read anew. Memory is bounded whatever its size.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type};
use aws_lc_rs::digest::{Context, SHA256};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use fjall::compaction::Leveled;
use fjall::config::{
    BlockSizePolicy, BloomConstructionPolicy, FilterPolicy, FilterPolicyEntry, PinningPolicy,
};
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use futures::StreamExt as _;
use lake::Table;
use schemas::disposition::Disposition;
use schemas::udi::Udi;

use crate::core::mediate::Probe;

/// Memory for blocks that are read; the page cache of the system holds more of them.
const CACHE_BYTES: u64 = 4 << 20;
/// The memtable of a keyspace goes to disk at this size.
const MEMTABLE_BYTES: u64 = 4 << 20;
/// Keys come in no order, so a merge of what is new rewrites most of what is there: it is worth its while
/// only when there is much of it. Until then a probe asks the filters of so many small tables.
const TABLES_UNMERGED: u8 = 12;
const TABLE_BYTES: u64 = 16 << 20;
/// The store's own journal, read again when it is opened; the smallest that the store takes.
const STORE_JOURNAL_BYTES: u64 = 64 << 20;
/// Bytes of a payload's digest that are held: two payloads that agree in them are beyond anybody's
/// reach, and the index stays small.
const DIGEST_BYTES_HELD: usize = 16;
/// How entries are laid out; an index of another layout is built anew.
const LAYOUT: &[u8] = b"key20 digest16:";
const BATCH_ENTRIES: usize = 20_000;
/// Processes that may have an index of one lake on one machine.
const PROCESSES_MAX: u32 = 64;

#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    #[error(
        "the index in {path} cannot be used; it is only a cache, so delete the folder and try again"
    )]
    Store {
        path: String,
        #[source]
        source: Box<fjall::Error>,
    },
    #[error(
        "the index in {path} is in use, and so are all others of this lake: too many processes ingest into it on this machine"
    )]
    InUse { path: String },
    #[error("the index in {path} cannot be removed")]
    Remove {
        path: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Lake(#[from] lake::LakeError),
    #[error("an accepted row of the journal lacks its device, report id or payload digest")]
    NotAJournal,
    #[error("cannot read accepted reports from the journal")]
    Read(#[source] Box<datafusion::error::DataFusionError>),
}

type Result<T, E = IndexError> = std::result::Result<T, E>;

/// Identity of a report, as the key of the index: a digest of its device, then its id. So keys are
/// short, and those of one device lie together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ReportKey([u8; 20]);

impl ReportKey {
    #[must_use]
    pub fn new(udi: &Udi, report_id: u64) -> Self {
        Self::from_parts(&udi.pid, &udi.serial, report_id)
    }

    fn from_parts(pid: &str, serial: &str, report_id: u64) -> Self {
        // The length keeps the two parts apart. Who would want two devices to agree in 96 bits of
        // SHA-256 can find a pair of names at the cost of 2^48 tries, and then stands in the way of
        // nobody else; the store holds keys of 20 bytes without an allocation of their own.
        let mut context = Context::new(&SHA256);
        context.update(&(pid.len() as u64).to_be_bytes());
        context.update(pid.as_bytes());
        context.update(serial.as_bytes());
        let mut key = [0; 20];
        key[..12].copy_from_slice(&context.finish().as_ref()[..12]);
        key[12..].copy_from_slice(&report_id.to_be_bytes());
        ReportKey(key)
    }
}

pub type Digest = [u8; 32];

pub struct Index {
    path: PathBuf,
    database: Database,
    reports: Keyspace,
    state: Keyspace,
    version: u64,
    /// How often commits of other writers were taken in since it was opened.
    foreign: u64,
}

const AT: &str = "at";

impl Index {
    /// Opens the index of a journal, and brings it to the journal's loaded version.
    ///
    /// # Errors
    /// If the folder cannot be used, or the journal cannot be read.
    pub async fn open(dir: &Path, journal: &Table) -> Result<Index> {
        let mut index = Self::open_free(dir)?;
        let path = index.path.clone();
        match index.state_at(journal)? {
            Some(version) => index.version = version,
            None => {
                drop(index);
                Self::discard(&path)?;
                index = Self::open_store(&path)?;
            }
        }
        index.catch_up(journal).await?;
        Ok(index)
    }

    /// Opens the first index that no other process uses: each of several workers on one machine has
    /// its own.
    fn open_free(dir: &Path) -> Result<Index> {
        let mut path = dir.join("index");
        for number in 2..=PROCESSES_MAX {
            match Self::open_store(&path) {
                Ok(index) => return Ok(index),
                Err(IndexError::InUse { .. }) => path = dir.join(format!("index-{number}")),
                Err(error) => {
                    tracing::warn!(%error, "the index is damaged and is built anew");
                    Self::discard(&path)?;
                    return Self::open_store(&path);
                }
            }
        }
        Err(IndexError::InUse { path: path.display().to_string() })
    }

    fn open_store(path: &Path) -> Result<Index> {
        let failed = |error: fjall::Error| match error {
            fjall::Error::Locked => IndexError::InUse { path: path.display().to_string() },
            other => {
                IndexError::Store { path: path.display().to_string(), source: Box::new(other) }
            }
        };
        std::fs::create_dir_all(path).map_err(|e| failed(e.into()))?;
        let database = Database::builder(path)
            .cache_size(CACHE_BYTES)
            .max_journaling_size(STORE_JOURNAL_BYTES)
            .worker_threads(1)
            .open()
            .map_err(failed)?;
        // Most reports are new: the filters say so without reading a block, as long as they stay in
        // memory. The last level holds nine tenths of a large index, so its filters are small (4 bits
        // a report, one block read in seven probes) and its blocks large: a report costs well under a
        // byte of memory there.
        let bits = |bits| FilterPolicyEntry::Bloom(BloomConstructionPolicy::BitsPerKey(bits));
        let mut filters = vec![bits(10.0); 6];
        filters.push(bits(4.0));
        let options = || {
            KeyspaceCreateOptions::default()
                .max_memtable_size(MEMTABLE_BYTES)
                .compaction_strategy(Arc::new(
                    Leveled::default()
                        .with_l0_threshold(TABLES_UNMERGED)
                        .with_table_target_size(TABLE_BYTES),
                ))
                .filter_policy(FilterPolicy::new(filters.clone()))
                .data_block_size_policy(BlockSizePolicy::new([4 << 10, 4 << 10, 16 << 10]))
                .filter_block_pinning_policy(PinningPolicy::all(true))
                .index_block_pinning_policy(PinningPolicy::all(true))
        };
        let reports = database.keyspace("reports", options).map_err(failed)?;
        let state = database.keyspace("state", options).map_err(failed)?;
        Ok(Index { path: path.to_path_buf(), database, reports, state, version: 0, foreign: 0 })
    }

    fn discard(path: &Path) -> Result<()> {
        std::fs::remove_dir_all(path)
            .map_err(|source| IndexError::Remove { path: path.display().to_string(), source })
    }

    fn failed(&self, error: fjall::Error) -> IndexError {
        IndexError::Store { path: self.path.display().to_string(), source: Box::new(error) }
    }

    /// The journal's version that the index stands at; `None` if it is of another table, or ahead.
    fn state_at(&self, journal: &Table) -> Result<Option<u64>> {
        let Some(state) = self.state.get(AT).map_err(|e| self.failed(e))? else {
            return Ok(Some(0).filter(|_| self.reports.is_empty().unwrap_or(false)));
        };
        let id = journal.id()?;
        let version = state
            .strip_prefix(LAYOUT)
            .and_then(|rest| rest.strip_prefix(id.as_bytes()))
            .and_then(|rest| rest.try_into().ok())
            .map(u64::from_be_bytes);
        Ok(version.filter(|v| *v <= journal.version()))
    }

    /// Takes in what the journal's commits added since the index's version.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn catch_up(&mut self, journal: &Table) -> Result<()> {
        if self.version == journal.version() {
            return Ok(());
        }
        self.learned();
        let changes = journal.changes_since(self.version).await?;
        let session =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let provider = match changes {
            Some(changes) if self.version > 0 => {
                let accepted = format!("disposition={}/", Disposition::Accepted.as_str());
                let files: Vec<String> =
                    changes.added.into_iter().filter(|path| path.starts_with(&accepted)).collect();
                if files.is_empty() {
                    return self.record(std::iter::empty(), journal);
                }
                journal.provider_of_files(&session, files).await?
            }
            _ => journal.provider(&session).await?,
        };
        let read = |e| IndexError::Read(Box::new(e));
        let mut rows = session
            .read_table(provider)
            .and_then(|t| t.filter(col("disposition").eq(lit(Disposition::Accepted.as_str()))))
            .and_then(|t| {
                t.select_columns(&["udi_pid", "udi_serial", "report_id", "payload_sha256"])
            })
            .map_err(read)?
            .execute_stream()
            .await
            .map_err(read)?;
        while let Some(batch) = rows.next().await {
            self.insert(entries(&batch.map_err(read)?)?.into_iter(), None)?;
        }
        self.record(std::iter::empty(), journal)
    }

    /// Changes whenever the index learns of reports that this process did not commit.
    #[must_use]
    pub fn foreign(&self) -> u64 {
        self.foreign
    }

    /// Says that the index knows reports now which rows not committed yet were judged without.
    pub fn learned(&mut self) {
        self.foreign += 1;
    }

    /// Looks a report up.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn probe(&self, key: &ReportKey, digest: &Digest) -> Result<Probe> {
        let held = self.reports.get(key.0).map_err(|e| self.failed(e))?;
        Ok(match held {
            None => Probe::New,
            Some(held) if *held == digest[..DIGEST_BYTES_HELD] => Probe::Duplicate,
            Some(_) => Probe::Conflict,
        })
    }

    /// Takes in reports whose commit is durable, and the version of that commit.
    ///
    /// # Errors
    /// If the index cannot be written.
    pub fn record(
        &mut self,
        accepted: impl Iterator<Item = (ReportKey, Digest)>,
        journal: &Table,
    ) -> Result<()> {
        // In the order of the keys one insertion walks where the one before has been.
        let mut accepted: Vec<(ReportKey, Digest)> = accepted.collect();
        accepted.sort_unstable_by_key(|(key, _)| key.0);
        let mut at = LAYOUT.to_vec();
        at.extend_from_slice(journal.id()?.as_bytes());
        at.extend_from_slice(&journal.version().to_be_bytes());
        self.insert(accepted.into_iter(), Some(at))?;
        self.version = journal.version();
        Ok(())
    }

    fn insert(
        &self,
        entries: impl Iterator<Item = (ReportKey, Digest)>,
        at: Option<Vec<u8>>,
    ) -> Result<()> {
        let mut batch = self.database.batch();
        for (key, digest) in entries {
            batch.insert(&self.reports, key.0, &digest[..DIGEST_BYTES_HELD]);
            if at.is_none() && batch.len() >= BATCH_ENTRIES {
                std::mem::replace(&mut batch, self.database.batch())
                    .commit()
                    .map_err(|e| self.failed(e))?;
            }
        }
        if let Some(at) = at {
            batch.insert(&self.state, AT, at);
        }
        batch.commit().map_err(|e| self.failed(e))
    }
}

/// Keys and digests of a batch of the journal's columns. An accepted row has all of them.
fn entries(batch: &RecordBatch) -> Result<Vec<(ReportKey, Digest)>> {
    let text = |i: usize| {
        arrow::compute::cast(batch.column(i), &DataType::Utf8)
            .map(|array| array.as_string::<i32>().clone())
            .map_err(|e| IndexError::Read(Box::new(e.into())))
    };
    let (pids, serials, digests) = (text(0)?, text(1)?, text(3)?);
    let ids = batch.column(2).as_primitive_opt::<Decimal128Type>();
    let entry = |i: usize| {
        let id =
            ids.filter(|ids| ids.is_valid(i)).and_then(|ids| u64::try_from(ids.value(i)).ok())?;
        let digest = unhex(digests.is_valid(i).then(|| digests.value(i))?)?;
        (pids.is_valid(i) && serials.is_valid(i))
            .then(|| (ReportKey::from_parts(pids.value(i), serials.value(i), id), digest))
    };
    (0..batch.num_rows()).map(|i| entry(i).ok_or(IndexError::NotAJournal)).collect()
}

fn unhex(text: &str) -> Option<Digest> {
    let mut digest = [0; 32];
    if text.len() != 64 {
        return None;
    }
    for (i, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(text.get(2 * i..2 * i + 2)?, 16).ok()?;
    }
    Some(digest)
}
