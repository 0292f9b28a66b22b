//! One Delta table at one version: append once, replace, read.

use std::collections::HashSet;
use std::sync::Arc;

use arrow::array::{AsArray as _, RecordBatch};
use arrow::datatypes::SchemaRef;
use datafusion::catalog::TableProvider;
use datafusion::prelude::SessionContext;
use delta_kernel::expressions::Scalar;
use deltalake::DeltaTable;
use deltalake::kernel::engine::arrow_conversion::TryFromArrow as _;
use deltalake::kernel::transaction::{CommitBuilder, CommitProperties};
use deltalake::kernel::{Action, Add, LogicalFileView, StructField, StructType, Transaction};
use deltalake::logstore::{commit_uri_from_version, get_actions};
use deltalake::protocol::{DeltaOperation, SaveMode};
use deltalake::writer::{DeltaWriter as _, RecordBatchWriter, WriteMode};
use futures::TryStreamExt as _;
use indexmap::IndexMap;
use object_store::ObjectStoreExt as _;

use crate::files::writer_properties;
use crate::{LakeError, Result, failpoint};

/// A table, loaded at one version.
#[derive(Clone)]
pub struct Table {
    name: String,
    pub(crate) delta: DeltaTable,
    /// Versions that were added to the state since it was read as a whole.
    added: u64,
    /// What tells the commit of the loaded version from any other; blank where it is not known.
    mark: String,
}

/// What an append came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Appended {
    /// The rows are durable in this version.
    Committed(u64),
    /// Somebody else committed since this table was loaded: nothing was appended. Load it again,
    /// look at what came, and decide anew.
    Stale,
    /// A source does not stand where the rows begin: somebody else went on with it, or has these
    /// very rows. Nothing was appended.
    Overtaken,
}

/// Where a source stands before and after the rows of one commit.
///
/// | the table holds | the commit |
/// | --- | --- |
/// | what the rows stand on | is made, and moves the source to its last offset |
/// | more | is refused: another writer took over, or the rows are in it already |
/// | less, or nothing | is refused: the rows stand on something that is not there |
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fence {
    /// Name of the source, kept in the table's log for ever.
    pub source: String,
    /// The last offset that the rows stand on; `None` if they are the source's first.
    pub stands_on: Option<i64>,
    /// The last offset that the rows hold. Offsets between may be missing.
    pub last: i64,
}

/// Rows in files that belong to no version yet.
#[derive(Clone, Debug, Default)]
pub struct Written {
    adds: Vec<Add>,
}

/// What came to a table between two versions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// Paths of data files of the newest version that hold all rows that are new, and maybe others.
    pub added: Vec<String>,
    /// Paths of data files that some commit took away, whose rows are not known to be in others as they were.
    pub removed: Vec<String>,
}

pub(crate) fn delta_columns(name: &str, schema: &SchemaRef) -> Result<Vec<StructField>> {
    let layout = |why: String| LakeError::Layout { table: name.to_owned(), why };
    let delta = StructType::try_from_arrow(schema.as_ref()).map_err(|e| layout(e.to_string()))?;
    Ok(delta.fields().cloned().collect())
}

/// Versions that may be added to a state before it is read as a whole.
const ADDED_MAX: u64 = 50;

/// The one partition that all rows of a batch are of, so that they need not be divided, which copies
/// them; `None` if they are of several, or of a table that has none.
fn partition_of(batch: &RecordBatch, columns: &[String]) -> Option<IndexMap<String, Scalar>> {
    if columns.is_empty() {
        return None;
    }
    let value = |name: &String| {
        let values = batch.column_by_name(name)?.as_string_opt::<i32>()?;
        let mut all = values.iter();
        let first = all.next()??;
        all.all(|value| value == Some(first))
            .then(|| (name.clone(), Scalar::String(first.to_owned())))
    };
    columns.iter().map(value).collect()
}

/// What the store says of the file of a commit: its entity tag, or when it was written. Blank where there is none:
/// another program may have cleaned the log.
pub(crate) async fn mark_of(name: &str, delta: &DeltaTable, version: u64) -> Result<String> {
    let file = commit_uri_from_version(Some(version));
    match delta.object_store().head(&file).await {
        Ok(meta) => {
            Ok(meta.e_tag.unwrap_or_else(|| meta.last_modified.timestamp_millis().to_string()))
        }
        Err(object_store::Error::NotFound { .. }) => Ok(String::new()),
        Err(error) => Err(LakeError::store(name, error)),
    }
}

impl Table {
    pub(crate) async fn loaded(name: &str, delta: DeltaTable) -> Result<Table> {
        let mut table = Table { name: name.to_owned(), delta, added: 0, mark: String::new() };
        table.mark = table.mark_of(table.version()).await?;
        Ok(table)
    }

    /// Takes over a state that another operation came to.
    pub(crate) async fn stand_on(&mut self, delta: DeltaTable) -> Result<()> {
        self.delta = delta;
        self.mark = self.mark_of(self.version()).await?;
        Ok(())
    }

    /// A book is read whole, on all cores: a row group is what one core takes.
    pub(crate) fn row_group_rows(&self) -> usize {
        if self.name == crate::book::TABLE { 8 * 1024 } else { 64 * 1024 }
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn failed(
        &self,
        what: &'static str,
    ) -> impl FnOnce(deltalake::DeltaTableError) -> LakeError + use<> {
        let name = self.name.clone();
        move |source| LakeError::delta(&name, what, source)
    }

    /// The table with all columns of a schema; those that it lacks are added, and null in its rows.
    pub(crate) async fn with_columns_of(mut self, schema: &SchemaRef) -> Result<Table> {
        let held = self.delta.snapshot().map_err(self.failed("read"))?.schema();
        let mut missing = delta_columns(&self.name, schema)?;
        missing.retain(|field| held.field(field.name()).is_none());
        if missing.is_empty() {
            return Ok(self);
        }
        let added = self.delta.clone().add_columns().with_fields(missing).await;
        match added {
            Ok(delta) => self.stand_on(delta).await?,
            // Somebody else may have added them at this moment.
            Err(error) => {
                self.refresh().await?;
                let held = self.delta.snapshot().map_err(self.failed("read"))?.schema();
                if schema.fields().iter().any(|field| held.field(field.name()).is_none()) {
                    return Err(LakeError::delta(&self.name, "add columns to", error));
                }
            }
        }
        Ok(self)
    }

    /// The version that is loaded.
    #[must_use]
    pub fn version(&self) -> u64 {
        self.delta.version().unwrap_or(0)
    }

    /// The table's own id: another one means another table in the same place.
    ///
    /// # Errors
    /// If the table is not loaded, which would be a bug.
    pub fn id(&self) -> Result<String> {
        let snapshot = self.delta.snapshot().map_err(self.failed("read"))?;
        Ok(snapshot.metadata().id().to_owned())
    }

    /// The table, the version that is loaded and the commit that made it, in one word: equal words mean equal
    /// rows. Where a table was restored from a copy, other commits come to have the same versions.
    ///
    /// # Errors
    /// If the table is not loaded, which would be a bug.
    pub fn stands_at(&self) -> Result<String> {
        Ok(format!("{}@{}@{}", self.id()?, self.version(), self.mark))
    }

    /// The version that [`Table::stands_at`] gave a word for, if it is one of this very table, up to the one
    /// that is loaded.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn stood_at(&self, word: &str) -> Result<Option<u64>> {
        let id = self.id()?;
        let Some((version, mark)) =
            word.strip_prefix(&format!("{id}@")).and_then(|rest| rest.split_once('@'))
        else {
            return Ok(None);
        };
        let version = version.parse().ok().filter(|version| *version <= self.version());
        let Some(version) = version.filter(|_| !mark.is_empty()) else { return Ok(None) };
        Ok((self.mark_of(version).await? == mark).then_some(version))
    }

    async fn mark_of(&self, version: u64) -> Result<String> {
        mark_of(&self.name, &self.delta, version).await
    }

    /// Loads the newest version: of whatever table is there now, where the lake was restored from a copy or made anew.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn refresh(&mut self) -> Result<()> {
        let failed = self.failed("load");
        let before = self.version();
        if self.mark_of(before).await? != self.mark {
            let mut anew = DeltaTable::new(self.delta.log_store());
            anew.load().await.map_err(failed)?;
            *self = Table::loaded(&self.name, anew).await?;
            return Ok(());
        }
        self.delta.update_state().await.map_err(failed)?;
        self.added += self.version().saturating_sub(before);
        if self.version() != before || self.mark.is_empty() {
            self.mark = self.mark_of(self.version()).await?;
        }
        self.keep_short().await;
        Ok(())
    }

    /// Reads the state as a whole where it was added to often: each version stays a batch of its own in it, and
    /// delta-rs goes through all of them at each commit, so that a writer would become slower and larger for as
    /// long as it runs.
    async fn keep_short(&mut self) {
        if self.added < ADDED_MAX {
            return;
        }
        let mut anew = DeltaTable::new(self.delta.log_store());
        match anew.load_version(self.version()).await {
            Ok(()) => {
                self.delta.state = anew.state;
                self.added = 0;
            }
            // What is there is right, if slow; the next commit tries again.
            Err(error) => tracing::debug!(%error, table = self.name, "the state is not read anew"),
        }
    }

    /// The last offset that the table holds of a source, as its own commits say.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn held(&self, source: &str) -> Result<Option<i64>> {
        let snapshot = self.delta.snapshot().map_err(self.failed("read"))?;
        let log_store = self.delta.log_store();
        snapshot.transaction_version(log_store.as_ref(), source).await.map_err(self.failed("read"))
    }

    /// Appends rows in one commit, on exactly the version that is loaded, or not at all.
    ///
    /// # Errors
    /// If the store fails and the log shows that nothing was committed.
    pub async fn append_once(&mut self, rows: &[RecordBatch]) -> Result<Appended> {
        let written = self.write(rows).await?;
        self.commit_once(&written, &[], &[]).await
    }

    /// Commits rows that were written, with where their sources stand then: on exactly the version
    /// that is loaded, or not at all.
    ///
    /// The fences are compared with the very snapshot that the commit stands on, and the commit
    /// succeeds only as the next version of it. (delta-rs compares them only with commits it races,
    /// and takes an old offset again without a word: delta-rs#2580.) When the commit returns an error,
    /// it may have succeeded all the same (delta-rs#2279), so the log is read before anything is said.
    /// `marks` move other counters with the same commit, without any comparison. Afterwards the version of that commit is
    /// loaded, whatever others made since.
    ///
    /// # Errors
    /// If the store fails and the log shows that nothing was committed.
    pub async fn commit_once(
        &mut self,
        written: &Written,
        fences: &[Fence],
        marks: &[(String, i64)],
    ) -> Result<Appended> {
        for fence in fences {
            if self.held(&fence.source).await? != fence.stands_on {
                return Ok(Appended::Overtaken);
            }
        }
        let actions = written.adds.iter().cloned().map(Action::Add).collect();
        let mut counters: Vec<_> = fences.iter().map(|f| (f.source.clone(), f.last)).collect();
        counters.extend_from_slice(marks);
        self.commit(actions, &counters, SaveMode::Append).await
    }

    /// Replaces all rows in one commit, on exactly the version that is loaded.
    ///
    /// # Errors
    /// As [`Table::append_once`].
    pub async fn replace(&mut self, rows: &[RecordBatch]) -> Result<Appended> {
        let mut actions: Vec<Action> = self
            .file_views()
            .await?
            .iter()
            .map(|file| Action::Remove(file.remove_action(true)))
            .collect();
        actions.extend(self.write(rows).await?.adds.into_iter().map(Action::Add));
        self.commit(actions, &[], SaveMode::Overwrite).await
    }

    /// Replaces the rows of some files in one commit, on exactly the version that is loaded. The new rows have the
    /// place of the oldest of those files among all ([`Table::files_by`]). `marks` move counters, as in
    /// [`Table::commit_once`].
    ///
    /// # Errors
    /// As [`Table::append_once`]; also if a file is not of this version.
    pub async fn exchange(
        &mut self,
        files: &[String],
        rows: &[RecordBatch],
        marks: &[(String, i64)],
    ) -> Result<Appended> {
        let mut actions = Vec::new();
        let mut oldest = i64::MAX;
        for file in self.file_views().await? {
            let removed = file.remove_action(true);
            if files.contains(&removed.path) {
                oldest = oldest.min(file.modification_time());
                actions.push(Action::Remove(removed));
            }
        }
        if actions.len() != files.len() {
            return Ok(Appended::Stale);
        }
        let adds = self.write(rows).await?.adds.into_iter();
        actions.extend(adds.map(|add| Action::Add(Add { modification_time: oldest, ..add })));
        self.commit(actions, marks, SaveMode::Overwrite).await
    }

    /// Paths of the files of the loaded version, as [`Table::provider_of_files`] takes them.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn files(&self) -> Result<Vec<String>> {
        Ok(self.file_views().await?.iter().map(|file| file.remove_action(true).path).collect())
    }

    /// The same, in the order of the least value that a column of statistics has in each; those of which none is known
    /// come first. A file that took another's place is where that one was; those of one value come as they were
    /// written.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn files_by(&self, column: &str) -> Result<Vec<String>> {
        let least = |file: &LogicalFileView| {
            let stats: serde_json::Value = serde_json::from_str(&file.stats()?).ok()?;
            Some(stats["minValues"][column].to_string())
        };
        let views = self.file_views().await?;
        let mut files: Vec<(Option<String>, i64, String)> = views
            .iter()
            .map(|file| (least(file), file.modification_time(), file.remove_action(true).path))
            .collect();
        files.sort();
        Ok(files.into_iter().map(|(.., path)| path).collect())
    }

    fn partition_columns(&self) -> Result<Vec<String>> {
        let snapshot = self.delta.snapshot().map_err(self.failed("read"))?;
        Ok(snapshot.metadata().partition_columns().to_vec())
    }

    async fn file_views(&self) -> Result<Vec<LogicalFileView>> {
        let log_store = self.delta.log_store();
        let snapshot = self.delta.snapshot().map_err(self.failed("read"))?;
        snapshot
            .snapshot()
            .file_views(log_store.as_ref(), None)
            .try_collect()
            .await
            .map_err(self.failed("read"))
    }

    /// Writes rows to files of the table, which belong to it only once they are committed.
    ///
    /// # Errors
    /// If the store fails, or the rows do not fit the table.
    pub async fn write(&self, rows: &[RecordBatch]) -> Result<Written> {
        failpoint::here("before-data-files");
        if failpoint::refuses("disk-does-not-sync") {
            let source = std::io::Error::other(crate::disk::NotSynced);
            return Err(LakeError::Local { path: self.name.clone(), source });
        }
        let mut writer = RecordBatchWriter::for_table(&self.delta)
            .map_err(self.failed("write"))?
            .with_writer_properties(writer_properties(self.row_group_rows()));
        let partitioned_by = self.partition_columns()?;
        for batch in rows.iter().filter(|b| b.num_rows() > 0) {
            match partition_of(batch, &partitioned_by) {
                Some(values) => {
                    let batch = batch.clone();
                    let written = writer.write_partition(batch, &values, WriteMode::Default);
                    written.await.map_err(self.failed("write"))?;
                }
                None => writer.write(batch.clone()).await.map_err(self.failed("write"))?,
            }
        }
        let mut adds = writer.flush().await.map_err(self.failed("write"))?;
        self.seal(&mut adds).await?;
        failpoint::here("after-data-files");
        Ok(Written { adds })
    }

    pub(crate) async fn commit(
        &mut self,
        actions: Vec<Action>,
        offsets: &[(String, i64)],
        mode: SaveMode,
    ) -> Result<Appended> {
        let base = self.version();
        let ours: HashSet<String> = actions
            .iter()
            .filter_map(|action| match action {
                Action::Add(add) => Some(add.path.clone()),
                _ => None,
            })
            .collect();
        let transactions =
            offsets.iter().map(|(source, offset)| Transaction::new(source, *offset)).collect();
        let properties = CommitProperties::default()
            .with_max_retries(0)
            .with_application_transactions(transactions);
        let log_store = self.delta.log_store();
        let snapshot = self.delta.snapshot().map_err(self.failed("commit to"))?;
        let partition_by = self.partition_columns()?;
        let operation = DeltaOperation::Write {
            mode,
            partition_by: (!partition_by.is_empty()).then_some(partition_by),
            predicate: None,
        };
        let committed = CommitBuilder::from(properties)
            .with_actions(actions)
            .build(Some(snapshot), Arc::clone(&log_store), operation)
            .await;
        match committed {
            Ok(finalized) if finalized.version() == base + 1 => {
                failpoint::here("after-commit");
                self.delta.state = Some(finalized.snapshot());
                self.added += 1;
                // What is committed is committed: without its mark, no cache names it.
                self.mark = self.mark_of(base + 1).await.unwrap_or_default();
                self.keep_short().await;
                Ok(Appended::Committed(base + 1))
            }
            other => {
                let entry =
                    log_store.read_commit_entry(base + 1).await.map_err(self.failed("read"))?;
                let Some(entry) = entry else {
                    return match other {
                        Err(error) => Err(LakeError::delta(&self.name, "commit to", error)),
                        Ok(_) => Ok(Appended::Stale),
                    };
                };
                let is_ours = get_actions(base + 1, &entry)
                    .map_err(self.failed("read"))?
                    .iter()
                    .any(|action| matches!(action, Action::Add(add) if ours.contains(&add.path)));
                if !is_ours {
                    return Ok(Appended::Stale);
                }
                // This version and no later one: whoever counts commits takes in what others made behind it
                // when the table is refreshed.
                let mut anew = DeltaTable::new(log_store);
                anew.load_version(base + 1).await.map_err(self.failed("load"))?;
                *self = Table::loaded(&self.name, anew).await?;
                Ok(Appended::Committed(base + 1))
            }
        }
    }

    /// What came to the table after a version, up to the one that is loaded. `None` if the log does
    /// not reach back so far.
    ///
    /// # Errors
    /// If the store fails.
    pub async fn changes_since(&self, version: u64) -> Result<Option<Changes>> {
        let log_store = self.delta.log_store();
        let mut changes = Changes::default();
        for version in version + 1..=self.version() {
            let entry = log_store.read_commit_entry(version).await.map_err(self.failed("read"))?;
            let Some(entry) = entry else {
                return Ok(None);
            };
            let actions = get_actions(version, &entry).map_err(self.failed("read"))?;
            // New rows may have been moved on already: by a merge of files, or an exchange. Then they
            // are in what that commit added.
            let before = changes.added.len();
            changes.added.retain(|path| {
                !actions.iter().any(|a| matches!(a, Action::Remove(gone) if gone.path == *path))
            });
            let moved = changes.added.len() < before;
            for action in actions {
                match action {
                    Action::Add(add) if add.data_change || moved => changes.added.push(add.path),
                    Action::Remove(gone) if gone.data_change => changes.removed.push(gone.path),
                    _ => {}
                }
            }
        }
        Ok(Some(changes))
    }

    /// Makes the table readable in a session.
    ///
    /// # Errors
    /// If the session refuses the table's store.
    pub async fn provider(&self, session: &SessionContext) -> Result<Arc<dyn TableProvider>> {
        self.delta.update_datafusion_session(&session.state()).map_err(self.failed("read"))?;
        self.delta.table_provider().await.map_err(|e| LakeError::query(&self.name, e))
    }

    /// Makes some files of the table readable in a session.
    ///
    /// # Errors
    /// As [`Table::provider`].
    pub async fn provider_of_files(
        &self,
        session: &SessionContext,
        files: Vec<String>,
    ) -> Result<Arc<dyn TableProvider>> {
        self.delta.update_datafusion_session(&session.state()).map_err(self.failed("read"))?;
        self.delta
            .table_provider()
            .with_file_paths(files)
            .await
            .map_err(|e| LakeError::query(&self.name, e))
    }
}

#[cfg(test)]
mod tests;
