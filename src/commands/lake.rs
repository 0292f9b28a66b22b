//! `lake optimize`, `lake vacuum`: upkeep of all tables.

use std::num::NonZeroU64;
use std::time::Duration;

use anyhow::Context as _;
use reconcile::shell::ledger::pinned_versions;
use schemas::disposition::Disposition::{Accepted, Duplicate, Suspended};
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
    let lake = super::existing_lake(config, runtime)?;
    let target = NonZeroU64::new(target_mb << 20).context("a size above 0")?;
    let mut rows = Vec::new();
    for name in TABLES {
        let Some(mut table) = runtime.block_on(lake.table(name))? else { continue };
        if cluster && name == schemas::journal::TABLE {
            let accepted = (schemas::journal::PARTITION_COLUMN, "accepted");
            let done = runtime
                .block_on(table.cluster(accepted, "udi_serial", target))
                .context("the journal holds what it did, clustered or not")?;
            rows.push(vec![
                "journal, accepted".to_owned(),
                done.files_removed.to_string(),
                done.files_added.to_string(),
                done.version.to_string(),
            ]);
        }
        // Each by itself: suspended reports that are judged again meanwhile hold up nothing else.
        let parts: Vec<Option<(&str, &str)>> = match name {
            schemas::journal::TABLE => [Accepted, Duplicate, Suspended]
                .map(|of| Some((schemas::journal::PARTITION_COLUMN, of.as_str())))
                .to_vec(),
            _ => vec![None],
        };
        let (mut removed, mut added) = (0, 0);
        for part in parts {
            match runtime.block_on(table.optimize(part, target)) {
                Ok(done) => {
                    removed += done.files_removed;
                    added += done.files_added;
                }
                Err(error) if error.is_overtaken() && part.is_some() => {
                    let what = part.map_or(name, |(_, of)| of);
                    output::note(
                        config.quiet,
                        &format!(
                            "files of {what} reports were exchanged all the while; they are merged the next time"
                        ),
                    );
                    runtime.block_on(table.refresh())?;
                }
                Err(error) => {
                    let what = format!("table {name} is merged in part, or not at all");
                    return Err(anyhow::Error::new(error).context(what).into());
                }
            }
        }
        rows.push(vec![
            name.to_owned(),
            removed.to_string(),
            added.to_string(),
            table.version().to_string(),
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
    let lake = super::existing_lake(config, runtime)?;
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
