//! Batches into the journal, one commit at a time, each durable before anything counts as known.
//!
//! The first try of a commit runs beside mediation. If another writer was faster, the rest happens
//! here: its reports are taken into the index, the batch is judged again where they touch it, and the
//! commit is tried on the newer version.

use lake::{Appended, Fence, Table, Written, failpoint};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::index::{Index, IndexError};
use super::mediation::{Batch, Fresh, Judging, MediationError};

#[derive(Debug, thiserror::Error)]
pub enum WriteError {
    #[error(transparent)]
    Lake(#[from] lake::LakeError),
    #[error(transparent)]
    Index(#[from] IndexError),
    #[error(transparent)]
    Mediation(#[from] MediationError),
    #[error("a commit was interrupted")]
    Interrupted(#[from] tokio::task::JoinError),
}

impl WriteError {
    /// True if the same commit may succeed later.
    #[must_use]
    pub fn retry(&self) -> bool {
        match self {
            WriteError::Lake(error) | WriteError::Index(IndexError::Lake(error)) => error.retry(),
            WriteError::Interrupted(_) => true,
            _ => false,
        }
    }
}

type Result<T, E = WriteError> = std::result::Result<T, E>;

/// One commit: rows, where their sources stand before and after, and counters that move along.
pub struct Commit {
    pub batch: Batch,
    pub fences: Vec<Fence>,
    pub marks: Vec<(String, i64)>,
}

/// How a commit ended.
pub enum Settled {
    /// Durable; the batch as it was committed.
    Committed(Box<Batch>),
    /// Another writer went on with a source: nothing was written.
    Overtaken,
    /// The store failed and the log shows no commit; it can be tried again.
    Failed(WriteError),
}

struct Running {
    commit: Commit,
    task: Option<JoinHandle<Attempt>>,
}

/// A first try: the table as it was left, and how it went.
struct Attempt {
    journal: Table,
    written: Option<Written>,
    result: Result<Appended, lake::LakeError>,
}

/// The journal, its index, and the commit under way.
pub struct JournalWriter {
    runtime: Handle,
    journal: Table,
    index: Index,
    running: Option<Running>,
    commits: u64,
    conflicts: u64,
}

impl JournalWriter {
    #[must_use]
    pub fn new(runtime: &Handle, journal: Table, index: Index) -> JournalWriter {
        JournalWriter {
            runtime: runtime.clone(),
            journal,
            index,
            running: None,
            commits: 0,
            conflicts: 0,
        }
    }

    #[must_use]
    pub fn index(&self) -> &Index {
        &self.index
    }

    #[must_use]
    pub fn journal(&self) -> &Table {
        &self.journal
    }

    /// The journal and its index, for work that commits by itself while nothing is under way.
    pub fn parts(&mut self) -> (&mut Table, &mut Index) {
        assert!(self.running.is_none(), "one commit at a time");
        (&mut self.journal, &mut self.index)
    }

    /// Commits made so far.
    #[must_use]
    pub fn commits(&self) -> u64 {
        self.commits
    }

    /// Commits that had to be tried again because another writer was faster.
    #[must_use]
    pub fn conflicts(&self) -> u64 {
        self.conflicts
    }

    /// Reports of the commit under way.
    #[must_use]
    pub fn in_commit(&self) -> Option<&Fresh> {
        self.running.as_ref().map(|running| &running.commit.batch.fresh)
    }

    /// True if a commit is under way and has an answer.
    #[must_use]
    pub fn is_answered(&self) -> bool {
        self.running.as_ref().is_some_and(|r| r.task.as_ref().is_none_or(JoinHandle::is_finished))
    }

    /// True if no commit is under way without an answer.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.running.is_none() || self.is_answered()
    }

    /// Starts a commit. Only one can be under way.
    ///
    /// # Errors
    /// If the index cannot be read.
    pub fn start(&mut self, mut commit: Commit, judging: &Judging) -> Result<()> {
        assert!(self.running.is_none(), "one commit at a time");
        commit.batch.judge_again(judging, &self.index)?;
        self.try_beside(commit);
        Ok(())
    }

    fn try_beside(&mut self, commit: Commit) {
        let mut journal = self.journal.clone();
        let rows = commit.batch.rows.clone();
        let (fences, marks) = (commit.fences.clone(), commit.marks.clone());
        let task = self.runtime.spawn(async move {
            let written = match journal.write(&rows).await {
                Ok(written) => written,
                Err(error) => return Attempt { journal, written: None, result: Err(error) },
            };
            let result = journal.commit_once(&written, &fences, &marks).await;
            Attempt { journal, written: Some(written), result }
        });
        self.running = Some(Running { commit, task: Some(task) });
    }

    /// Tries the commit that failed again.
    ///
    /// # Errors
    /// If the journal cannot be read: it can be tried once more.
    pub fn retry(&mut self, judging: &Judging) -> Result<()> {
        let Some(running) = self.running.take() else { return Ok(()) };
        let refreshed = self.catch_up();
        let mut commit = running.commit;
        if refreshed.is_ok() {
            commit.batch.judge_again(judging, &self.index)?;
            self.try_beside(commit);
        } else {
            self.running = Some(Running { commit, task: None });
        }
        refreshed
    }

    /// Forgets a commit that failed. One that is under way goes on: its answer is still to come.
    pub fn forget_failed(&mut self) {
        self.running = self.running.take().filter(|running| running.task.is_some());
    }

    /// Loads the newest version of the journal and what it brings into the index.
    ///
    /// # Errors
    /// If the store fails.
    pub fn catch_up(&mut self) -> Result<()> {
        self.runtime.block_on(self.journal.refresh())?;
        Ok(self.runtime.block_on(self.index.catch_up(&self.journal))?)
    }

    /// Waits for the commit under way; when it is durable, its reports become known.
    ///
    /// # Errors
    /// If the index fails. What the store refuses is in the answer.
    pub fn settle(&mut self, judging: &Judging) -> Result<Option<Settled>> {
        let Some(mut running) = self.running.take() else { return Ok(None) };
        let Some(task) = running.task.take() else {
            self.running = Some(running);
            return Ok(None);
        };
        let attempt = match self.runtime.block_on(task) {
            Ok(attempt) => attempt,
            // A library broke off. Whether the commit was made, the log says when it is tried again.
            Err(error) => {
                self.running = Some(running);
                return Ok(Some(Settled::Failed(error.into())));
            }
        };
        self.journal = attempt.journal;
        let mut written = attempt.written;
        let mut result = attempt.result;
        loop {
            match result {
                Ok(Appended::Committed(_)) => break,
                Ok(Appended::Overtaken) => return Ok(Some(Settled::Overtaken)),
                Err(error) => {
                    self.running = Some(running);
                    return Ok(Some(Settled::Failed(error.into())));
                }
                Ok(Appended::Stale) => {}
            }
            self.conflicts += 1;
            let again = self.try_again(&mut running.commit, &mut written, judging);
            result = match again {
                Ok(appended) => Ok(appended),
                Err(WriteError::Lake(error)) => Err(error),
                Err(error) if error.retry() => {
                    self.running = Some(running);
                    return Ok(Some(Settled::Failed(error)));
                }
                Err(error) => return Err(error),
            };
        }
        failpoint::here("before-index");
        let batch = running.commit.batch;
        let known = batch.fresh.iter().map(|(key, digest)| (*key, *digest));
        self.index.record(known, &self.journal)?;
        failpoint::here("after-index");
        self.commits += 1;
        Ok(Some(Settled::Committed(Box::new(batch))))
    }

    /// On the newest version: the files are written again only where the rows changed.
    fn try_again(
        &mut self,
        commit: &mut Commit,
        written: &mut Option<Written>,
        judging: &Judging,
    ) -> Result<Appended> {
        self.catch_up()?;
        if commit.batch.judge_again(judging, &self.index)? {
            *written = None;
        }
        let runtime = self.runtime.clone();
        let files = match written.take() {
            Some(files) => files,
            None => runtime.block_on(self.journal.write(&commit.batch.rows))?,
        };
        let appended =
            runtime.block_on(self.journal.commit_once(&files, &commit.fences, &commit.marks));
        *written = Some(files);
        Ok(appended?)
    }
}
