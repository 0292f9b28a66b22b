//! `lake optimize`, `lake vacuum`: upkeep of all tables.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context as _;
use reconcile::shell::ledger::pinned_versions;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

/// The tables that a lake may have.
const TABLES: [&str; 5] = [
    schemas::journal::TABLE,
    schemas::ledger::TABLE,
    "book",
    schemas::trust::TABLE,
    schemas::document::TABLE,
];

pub fn optimize(
    target_mb: u64,
    cluster: bool,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config)?;
    let target = NonZeroU64::new(target_mb << 20).context("a size above 0")?;
    let mut rows = Vec::new();
    for name in TABLES {
        let Some(mut table) = runtime.block_on(lake.table(name))? else { continue };
        if cluster && name == schemas::journal::TABLE {
            let accepted = (schemas::journal::PARTITION_COLUMN, "accepted");
            let done = runtime
                .block_on(table.cluster(accepted, "udi_serial", target))
                .context("the journal is as it was")?;
            rows.push(vec![
                "journal, accepted".to_owned(),
                done.files_removed.to_string(),
                done.files_added.to_string(),
                done.version.to_string(),
            ]);
        }
        let done = runtime
            .block_on(table.optimize(target))
            .with_context(|| format!("table {name} is as it was, or merged in part"))?;
        rows.push(vec![
            name.to_owned(),
            done.files_removed.to_string(),
            done.files_added.to_string(),
            done.version.to_string(),
        ]);
    }
    output::rows(
        config.format,
        &Rows {
            columns: &["table", "files_merged", "files_made", "version"],
            rows,
            numbers: &["files_merged", "files_made", "version"],
            ..Rows::default()
        },
    )?;
    Ok(Outcome::Done)
}

pub fn vacuum(
    keep_hours: u64,
    dry_run: bool,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config)?;
    let keep = Duration::from_secs(keep_hours * 3600);
    let mut rows = Vec::new();
    // What lines and closes stand on stays readable, however old: they are computed again from it.
    let pinned = match runtime.block_on(lake.table(schemas::ledger::TABLE))? {
        Some(ledger) => runtime.block_on(pinned_versions(&ledger))?,
        None => Vec::new(),
    };
    for name in TABLES {
        let Some(table) = runtime.block_on(lake.table(name))? else { continue };
        let mut versions: Vec<u64> = match name {
            schemas::journal::TABLE => pinned.iter().filter_map(|v| v.journal).collect(),
            "book" => pinned.iter().filter_map(|v| v.book).collect(),
            _ => Vec::new(),
        };
        versions.sort_unstable();
        versions.dedup();
        let done = runtime
            .block_on(table.vacuum(keep, &versions, dry_run))
            .with_context(|| format!("table {name} was not cleaned"))?;
        rows.extend(done.files.into_iter().map(|file| vec![name.to_owned(), file]));
    }
    let what = if dry_run { "file_to_remove" } else { "file_removed" };
    output::rows(config.format, &Rows { columns: &["table", what], rows, ..Rows::default() })?;
    Ok(Outcome::Done)
}
