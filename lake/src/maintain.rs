//! Upkeep of a table while others write and read it.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::time::Duration;

use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::RuntimeEnvBuilder;
use datafusion::prelude::{SessionConfig, SessionContext};
use deltalake::kernel::transaction::TransactionError;
use deltalake::operations::optimize::{Metrics, OptimizeBuilder, OptimizeType};
use deltalake::{DeltaTable, DeltaTableError, FilterOp, FilterValue};

use crate::files::writer_properties;
use crate::guard::GuardedLog;
use crate::{LakeError, Result, Table};

/// Memory for sorting rows; what does not fit goes to temporary files.
const CLUSTER_BYTES: usize = 1 << 30;

/// How often a merge is tried that others exchange files under.
const MERGES_MAX: u32 = 8;

/// A merge of the files of a table.
fn merge_of<'a>(
    delta: DeltaTable,
    target_bytes: NonZeroU64,
    row_group_rows: usize,
) -> OptimizeBuilder<'a> {
    delta
        .optimize()
        .with_target_size(target_bytes)
        // One at a time: a merge holds what it writes in memory.
        .with_max_concurrent_tasks(1)
        .with_writer_properties(writer_properties(row_group_rows))
}

fn is_conflict(error: &DeltaTableError) -> bool {
    matches!(error, DeltaTableError::Transaction { source: TransactionError::CommitConflict(_) })
}

/// What compaction did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Optimized {
    pub files_added: u64,
    pub files_removed: u64,
    /// The version of the table then.
    pub version: u64,
}

/// What vacuum removed, or would remove.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Vacuumed {
    pub files: Vec<String>,
}

impl Table {
    /// Merges small files into larger ones, those of one partition if one is named, and writes a checkpoint. Rows stay as
    /// they are, readers of older versions keep their files, writers go on: what they append meanwhile is not
    /// touched.
    ///
    /// # Errors
    /// If the store fails, or others exchanged its files each time that it was tried ([`LakeError::is_overtaken`]).
    pub async fn optimize(
        &mut self,
        partition: Option<(&str, &str)>,
        target_bytes: NonZeroU64,
    ) -> Result<Optimized> {
        let rows = self.row_group_rows();
        let filters: Vec<_> = partition
            .map(|(column, value)| (column, FilterOp::Eq, FilterValue::Scalar(value)))
            .into_iter()
            .collect();
        let merge = async |delta| merge_of(delta, target_bytes, rows).with_filters(&filters).await;
        let (delta, metrics) = self.settled("optimize", merge).await?;
        self.merged(delta, &metrics).await
    }

    /// Writes the rows of one partition anew, in the order of a column, so that whoever asks for some values
    /// of it reads few files and little of each. Rows stay as they are; it takes as long as reading and
    /// writing all of them.
    ///
    /// # Errors
    /// As [`Table::optimize`].
    pub async fn cluster(
        &mut self,
        (partition, value): (&str, &str),
        column: &str,
        target_bytes: NonZeroU64,
    ) -> Result<Optimized> {
        let failed = |e| LakeError::query("", e);
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(CLUSTER_BYTES)))
            .build_arc()
            .map_err(failed)?;
        let config = SessionConfig::new().with_target_partitions(1);
        let session = SessionContext::new_with_config_rt(config, runtime);
        let filters = [(partition, FilterOp::Eq, FilterValue::Scalar(value))];
        let rows = self.row_group_rows();
        let merge = async |delta| {
            merge_of(delta, target_bytes, rows)
                .with_type(OptimizeType::ZOrder(vec![column.to_owned()]))
                .with_filters(&filters)
                .with_session_state(Arc::new(session.state()))
                .await
        };
        let (delta, metrics) = self.settled("cluster", merge).await?;
        self.merged(delta, &metrics).await
    }

    /// The table, so that what it commits takes away only files that are there.
    fn guarded(&self) -> DeltaTable {
        let guard = GuardedLog { log: self.delta.log_store(), planned_on: self.version() };
        let mut delta = DeltaTable::new(Arc::new(guard));
        delta.state.clone_from(&self.delta.state);
        delta
    }

    /// A merge; where an act on a suspended report, or another upkeep, exchanged one of its files meanwhile, it is made
    /// anew.
    async fn settled(
        &mut self,
        what: &'static str,
        merge: impl AsyncFn(DeltaTable) -> Result<(DeltaTable, Metrics), DeltaTableError>,
    ) -> Result<(DeltaTable, Metrics)> {
        let mut tried = 0;
        loop {
            tried += 1;
            match merge(self.guarded()).await {
                Err(error) if tried < MERGES_MAX && is_conflict(&error) => self.refresh().await?,
                done => {
                    let (merged, metrics) = done.map_err(self.failed(what))?;
                    let mut delta = self.delta.clone();
                    delta.state = merged.state;
                    return Ok((delta, metrics));
                }
            }
        }
    }

    /// Ends a merge: digests for what it wrote, and a checkpoint.
    async fn merged(&mut self, delta: DeltaTable, metrics: &Metrics) -> Result<Optimized> {
        self.stand_on(delta).await?;
        self.seal_merged().await?;
        deltalake::checkpoints::create_checkpoint(&self.delta, None)
            .await
            .map_err(self.failed("checkpoint"))?;
        Ok(Optimized {
            files_added: metrics.num_files_added,
            files_removed: metrics.num_files_removed,
            version: self.version(),
        })
    }

    /// Removes files that no version younger than `keep` needs, and none of `versions`: what compaction
    /// replaced, and what crashed writers left behind.
    ///
    /// # Errors
    /// If the store fails, or `keep` is shorter than what the table promises its readers.
    pub async fn vacuum(
        &self,
        keep: Duration,
        versions: &[u64],
        dry_run: bool,
    ) -> Result<Vacuumed> {
        let keep = chrono::Duration::from_std(keep).map_err(|error| {
            LakeError::delta("", "vacuum", DeltaTableError::generic(error.to_string()))
        })?;
        let (_, metrics) = self
            .delta
            .clone()
            .vacuum()
            .with_retention_period(keep)
            .with_keep_versions(versions)
            .with_dry_run(dry_run)
            .await
            .map_err(self.failed("vacuum"))?;
        Ok(Vacuumed { files: metrics.files_deleted })
    }
}
