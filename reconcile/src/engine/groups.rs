//! PI groups as the journal has them (contract 3.1).

use std::collections::HashSet;

use arrow::array::{AsArray as _, ListArray};
use futures::StreamExt as _;
use lake::Table;
use schemas::book::{Book, ManagedBy};
use schemas::journal;
use schemas::udi::Udi;

use super::{Result, register, session, text};
use crate::core::groups::Groups;

/// PIs that belong to no group.
pub(crate) fn alone(book: &Book) -> HashSet<Udi> {
    let struck = book.devices.iter().filter(|d| d.managed_by == ManagedBy::Vmanage);
    struck.map(|d| d.udi.clone()).collect()
}

/// Joins what accepted reports of the journal name together, or those of some of its files.
pub(crate) async fn read_groups(
    journal_table: &Table,
    files: Option<Vec<String>>,
    mut groups: Groups,
) -> Result<Groups> {
    let session = session()?;
    match files {
        Some(files) if files.is_empty() => return Ok(groups),
        Some(files) => {
            let provider = journal_table.provider_of_files(&session, files).await?;
            session.register_table("journal", provider)?;
        }
        None => register(&session, "journal", Some(journal_table), &journal::SCHEMA).await?,
    }
    let mut rows =
        session.sql(include_str!("../sql/ha_groups.sql")).await?.execute_stream().await?;
    while let Some(batch) = rows.next().await {
        let batch = batch?;
        let (pids, serials) = (text(batch.column(0))?, text(batch.column(1))?);
        let lists: &ListArray = batch.column(2).as_list();
        let members = lists.values().as_struct();
        let (member_pids, member_serials) = (text(members.column(0))?, text(members.column(1))?);
        let place = |i: i32| usize::try_from(i).unwrap_or(0);
        for i in 0..batch.num_rows() {
            let offsets = lists.value_offsets();
            let udis: Vec<Udi> = (place(offsets[i])..place(offsets[i + 1]))
                .map(|j| Udi::new(member_pids.value(j), member_serials.value(j)))
                .collect();
            groups.join(&Udi::new(pids.value(i), serials.value(i)), &udis);
        }
    }
    Ok(groups)
}
