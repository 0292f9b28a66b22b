//! What reports that came since an earlier run bear on.

use std::collections::HashSet;

use arrow::array::Array as _;
use datafusion::prelude::col;
use lake::Table;
use schemas::book::AccountId;
use schemas::journal;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::{Result, instant, is, session, text};
use crate::core::changed::Named;

/// The PIs of accepted reports in some files of the journal whose usage touches `[from, to)`, and the
/// accounts that their headers name.
pub(crate) async fn read_reporters(
    journal_table: &Table,
    files: Vec<String>,
    (from, to): (EpochSeconds, EpochSeconds),
) -> Result<(HashSet<Udi>, Named)> {
    let (mut pis, mut named) = (HashSet::new(), Named::new());
    if files.is_empty() {
        return Ok((pis, named));
    }
    let session = session()?;
    let provider = journal_table.provider_of_files(&session, files).await?;
    session.register_table(journal::TABLE, provider)?;
    let touches = col("usage_end").gt(instant(from)).and(col("usage_start").lt(instant(to)));
    let rows = session
        .table(journal::TABLE)
        .await?
        .filter(is("accepted").and(touches))?
        .select_columns(&["udi_pid", "udi_serial", "smart_account", "virtual_account"])?
        .distinct()?;
    for batch in rows.collect().await? {
        let (pids, serials) = (text(batch.column(0))?, text(batch.column(1))?);
        let (smart, virtual_) = (text(batch.column(2))?, text(batch.column(3))?);
        for i in 0..batch.num_rows() {
            let udi = Udi::new(pids.value(i), serials.value(i));
            if smart.is_valid(i) && virtual_.is_valid(i) {
                let (smart, virtual_) = (smart.value(i).to_owned(), virtual_.value(i).to_owned());
                named.entry(AccountId { smart, virtual_ }).or_default().insert(udi.clone());
            }
            pis.insert(udi);
        }
    }
    Ok((pis, named))
}
