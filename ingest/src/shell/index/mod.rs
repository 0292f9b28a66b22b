//! The index of accepted reports: a cache on disk, rebuilt from the journal whenever it disagrees.
//!
//! The journal is the truth. The index holds the payload digest of every accepted report by its id,
//! and the commit of the journal that it stands at; both go to disk only after the commit is durable. A
//! crash leaves it behind; what it lacks is read from the files that the missing commits added. If it
//! stands at a commit that is not the journal's, or is damaged, it is thrown away and read anew.

mod filter;
mod hash;
mod known;
mod run;

use std::io;
use std::path::{Path, PathBuf};

use arrow::array::{Array as _, AsArray as _, RecordBatch};
use arrow::datatypes::{DataType, Decimal128Type};
use aws_lc_rs::digest::{Context, SHA256};
use datafusion::prelude::{SessionConfig, SessionContext, col, lit};
use futures::StreamExt as _;
use lake::Table;
use schemas::disposition::Disposition;
use schemas::merkle::Hash;
use schemas::udi::Udi;

use crate::core::mediate::Probe;
pub use hash::Seeded;
use known::{DIGEST_BYTES_HELD, Held, Known, OpenError, is_damage};

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
        source: io::Error,
    },
    #[error(
        "a file of the index in {path} is damaged; the index is only a cache, and is built anew at the next start"
    )]
    Damaged { path: String },
    #[error(
        "the index in {path} is in use, and so are all others of this lake: too many processes ingest into it on this machine"
    )]
    InUse { path: String },
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
        // nobody else.
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
    known: Known,
    version: u64,
    /// How often commits of other writers were taken in since it was opened.
    foreign: u64,
}

impl Index {
    /// Opens the index of a journal, and brings it to the journal's loaded version.
    ///
    /// # Errors
    /// If the folder cannot be used, or the journal cannot be read.
    pub async fn open(dir: &Path, journal: &Table) -> Result<Index> {
        let mut index = Self::open_free(dir)?;
        match index.state_at(journal).await? {
            Some(version) => index.version = version,
            None => index.known.clear().map_err(index.failed())?,
        }
        index.catch_up(journal).await?;
        Ok(index)
    }

    /// Opens the first index that no other process uses: each of several workers on one machine has
    /// its own.
    fn open_free(dir: &Path) -> Result<Index> {
        let mut path = dir.join("index");
        for number in 2..=PROCESSES_MAX {
            match Known::open(&path) {
                Ok(known) => return Ok(Index { path, known, version: 0, foreign: 0 }),
                Err(OpenError::InUse) => path = dir.join(format!("index-{number}")),
                Err(OpenError::Io(source)) => {
                    return Err(IndexError::Store { path: path.display().to_string(), source });
                }
            }
        }
        Err(IndexError::InUse { path: path.display().to_string() })
    }

    fn failed(&self) -> impl Fn(io::Error) -> IndexError + use<> {
        let path = self.path.display().to_string();
        move |source| match path.clone() {
            path if is_damage(&source) => IndexError::Damaged { path },
            path => IndexError::Store { path, source },
        }
    }

    /// The journal's version that the index stands at; `None` if it is of another table, or ahead, or of a
    /// commit that is not the journal's any more, since it was restored from a copy.
    async fn state_at(&self, journal: &Table) -> Result<Option<u64>> {
        let stand = self.known.stand();
        // Of a commit that was being taken in, some reports may be there, and they are known only if it is.
        let holds = stand.coming.is_empty() || journal.stood_at(&stand.coming).await?.is_some();
        match stand.at.as_str() {
            "" => Ok(Some(0).filter(|_| self.known.is_empty())),
            at => Ok(journal.stood_at(at).await?.filter(|_| holds)),
        }
    }

    /// Takes in what the journal's commits added since the index's version.
    ///
    /// # Errors
    /// If the journal cannot be read.
    pub async fn catch_up(&mut self, journal: &Table) -> Result<()> {
        if self.version >= journal.version() {
            return Ok(());
        }
        self.learned();
        self.known.begin(journal.stands_at()?);
        let changes = journal.changes_since(self.version).await?;
        let session =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let provider = match changes {
            Some(changes) if self.version > 0 => {
                let accepted = format!("disposition={}/", Disposition::Accepted.as_str());
                let files: Vec<String> =
                    changes.added.into_iter().filter(|path| path.starts_with(&accepted)).collect();
                if files.is_empty() {
                    return self.stand_at(journal, std::iter::empty());
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
            self.insert(entries(&batch.map_err(read)?)?.into_iter())?;
        }
        self.stand_at(journal, std::iter::empty())
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

    /// Looks reports up, best many at once.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn probe(&self, reports: &[(ReportKey, Digest)]) -> Result<Vec<Probe>> {
        let keys: Vec<_> = reports.iter().map(|(key, _)| key.0).collect();
        let found = self.known.find(&keys).map_err(self.failed())?;
        let probe = |((_, digest), found): (&(_, Digest), Option<Held>)| match found {
            None => Probe::New,
            Some(known) if known == held(digest) => Probe::Duplicate,
            Some(_) => Probe::Conflict,
        };
        Ok(reports.iter().zip(found).map(probe).collect())
    }

    /// Takes in reports whose commit is durable: the one behind those that the index knows.
    ///
    /// # Errors
    /// If the index cannot be written.
    ///
    /// # Panics
    /// If there are commits between: what they accepted would never be known, and be accepted once more.
    pub fn record(
        &mut self,
        accepted: impl Iterator<Item = (ReportKey, Digest)>,
        journal: &Table,
    ) -> Result<()> {
        assert!(journal.version() <= self.version + 1, "an index takes in every commit");
        self.stand_at(journal, accepted)
    }

    fn stand_at(
        &mut self,
        journal: &Table,
        accepted: impl Iterator<Item = (ReportKey, Digest)>,
    ) -> Result<()> {
        // It may have met them in the log already, and later commits too.
        if self.version >= journal.version() {
            return Ok(());
        }
        let at = journal.stands_at()?;
        self.known.begin(at.clone());
        self.insert(accepted)?;
        self.known.settle(at).map_err(self.failed())?;
        self.version = journal.version();
        Ok(())
    }

    fn insert(&mut self, entries: impl Iterator<Item = (ReportKey, Digest)>) -> Result<()> {
        let failed = self.failed();
        for (key, digest) in entries {
            self.known.insert(key.0, held(&digest)).map_err(&failed)?;
        }
        Ok(())
    }
}

/// What is held of a digest.
fn held(digest: &Digest) -> Held {
    let mut held = [0; DIGEST_BYTES_HELD];
    held.copy_from_slice(&digest[..DIGEST_BYTES_HELD]);
    held
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
        let digest: Hash = digests.is_valid(i).then(|| digests.value(i))?.parse().ok()?;
        (pids.is_valid(i) && serials.is_valid(i))
            .then(|| (ReportKey::from_parts(pids.value(i), serials.value(i), id), digest.0))
    };
    (0..batch.num_rows()).map(|i| entry(i).ok_or(IndexError::NotAJournal)).collect()
}
