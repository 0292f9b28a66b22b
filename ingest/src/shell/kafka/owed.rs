//! Receipts of reports that were taken up: who is killed between an exchange and its receipts leaves word that
//! they are owed.
//!
//! Each exchange moves two counters of the journal's log with it: how many exchanges there were, and the second
//! since which receipts of them may be owed (0: none are). A worker that sent all of its own clears the second,
//! unless another's exchange came between; whoever starts, or is given a partition, and finds it set sends again
//! what was taken up since, and clears it.

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, BooleanArray, RecordBatch, TimestampMicrosecondArray,
};
use arrow::compute::{cast, filter_record_batch};
use arrow::datatypes::TimestampMicrosecondType;
use datafusion::prelude::{SessionConfig, SessionContext, col};
use futures::StreamExt as _;
use lake::{Appended, Fence, LakeError, Table, Written};
use schemas::journal::SCHEMA;
use schemas::period::EpochSeconds;

use super::receipts::{COLUMNS, ReceiptError, Receipts};
use crate::shell::suspense::RETRY;
use crate::shell::takeup::Marks;

/// By whose hand a worker takes reports up, in `acts`.
pub(super) const WORKER: &str = "rumledger";

/// The counters of one topic of receipts, by their names in the journal's log.
#[derive(Clone, Debug)]
pub(super) struct Owed {
    exchanges: String,
    since: String,
}

/// Where the counters stand in one version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Debt {
    pub(super) exchanges: i64,
    /// Seconds since 1970; `None`: nothing is owed.
    pub(super) since: Option<EpochSeconds>,
}

impl Debt {
    /// The same after one more exchange.
    pub(super) fn with_exchange(self, at: EpochSeconds) -> Debt {
        // Clocks of workers differ; what is sent twice does no harm.
        let since = self.since.map_or(at, |since| since.min(at));
        Debt { exchanges: self.exchanges + 1, since: Some(since) }
    }

    /// True if it came from nothing owed by so many exchanges, and no other's is among them.
    pub(super) fn is_all_of(self, before: Debt, own: i64) -> bool {
        before.since.is_none() && self.exchanges == before.exchanges + own
    }
}

impl Owed {
    pub(super) fn to(receipts_topic: &str) -> Owed {
        Owed {
            exchanges: format!("taken-up:{receipts_topic}"),
            since: format!("receipts-owed:{receipts_topic}"),
        }
    }

    /// As the loaded version has it.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn debt(&self, journal: &Table) -> Result<Debt, LakeError> {
        let exchanges = journal.held(&self.exchanges).await?.unwrap_or(0);
        let since = journal.held(&self.since).await?.filter(|since| *since > 0);
        Ok(Debt { exchanges, since })
    }

    /// What an exchange on the loaded version has to move with it.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn marks(
        &self,
        journal: &Table,
        at: EpochSeconds,
    ) -> Result<Marks, LakeError> {
        let Debt { exchanges, since } = self.debt(journal).await?.with_exchange(at);
        let since = (self.since.clone(), since.unwrap_or(0));
        Ok(vec![(self.exchanges.clone(), exchanges), since])
    }

    /// Says that nothing is owed any more, in a commit of its own, if there was no exchange since. Gives whether
    /// it was said.
    ///
    /// # Errors
    /// If the store fails.
    pub(super) async fn clear(&self, journal: &mut Table, debt: Debt) -> Result<bool, LakeError> {
        let stands_on = (debt.exchanges > 0).then_some(debt.exchanges);
        let fence = Fence { source: self.exchanges.clone(), stands_on, last: debt.exchanges };
        let marks = [(self.since.clone(), 0)];
        loop {
            let fences = std::slice::from_ref(&fence);
            match journal.commit_once(&Written::default(), fences, &marks).await? {
                Appended::Committed(_) => return Ok(true),
                Appended::Overtaken => return Ok(false),
                Appended::Stale => journal.refresh().await?,
            }
        }
    }
}

impl Receipts {
    /// Sends again the receipts of reports that workers took up since a second; gives how many.
    ///
    /// # Errors
    /// If the journal cannot be read, or the broker does not take them.
    pub(super) async fn send_of_taken_up(
        &self,
        journal: &Table,
        since: EpochSeconds,
    ) -> Result<u64, ReceiptError> {
        let read = |e| ReceiptError::Read(Box::new(e));
        let session =
            SessionContext::new_with_config(SessionConfig::new().with_target_partitions(1));
        let mut columns = COLUMNS.to_vec();
        columns.push("acts");
        let mut rows = session
            .read_table(journal.provider(&session).await?)
            .and_then(|rows| rows.filter(col("acts").is_not_null()))
            .and_then(|rows| rows.select_columns(&columns))
            .map_err(read)?
            .execute_stream()
            .await
            .map_err(read)?;
        let mut sent = 0;
        while let Some(batch) = rows.next().await {
            let batch = batch.map_err(read)?;
            let taken_up = taken_up_since(&batch, since)?;
            let rows = filter_record_batch(&batch, &taken_up)
                .map_err(|_| ReceiptError::NotAJournal("acts"))?;
            sent += self.send(&rows)?;
        }
        Ok(sent)
    }
}

/// Of each row whether a worker took it up since a second.
fn taken_up_since(rows: &RecordBatch, since: EpochSeconds) -> Result<BooleanArray, ReceiptError> {
    let missing = || ReceiptError::NotAJournal("acts");
    let field = SCHEMA.field_with_name("acts").map_err(|_| missing())?;
    let acts = rows.column_by_name("acts").ok_or_else(missing)?;
    let acts: ArrayRef = cast(acts, field.data_type()).map_err(|_| missing())?;
    let acts = acts.as_list::<i32>();
    let is_meant = |i: usize| {
        let of_row = acts.value(i);
        let of_row = of_row.as_struct();
        let times: &TimestampMicrosecondArray =
            of_row.column(0).as_primitive::<TimestampMicrosecondType>();
        let (by, act) = (of_row.column(1).as_string::<i32>(), of_row.column(2).as_string::<i32>());
        (0..of_row.len()).any(|n| {
            times.value(n) >= since.saturating_mul(1_000_000)
                && by.value(n) == WORKER
                && act.value(n) == RETRY
        })
    };
    Ok((0..rows.num_rows()).map(|i| Some(acts.is_valid(i) && is_meant(i))).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_owed_follows_from_whose_exchanges_there_were() {
        let none = Debt { exchanges: 7, since: None };
        let one = none.with_exchange(100);
        assert_eq!(one, Debt { exchanges: 8, since: Some(100) });
        // Another worker, whose clock is behind.
        let two = one.with_exchange(90);
        assert_eq!(two, Debt { exchanges: 9, since: Some(90) });
        assert!(one.is_all_of(none, 1));
        assert!(!two.is_all_of(none, 1), "another's exchange came between");
        assert!(!two.is_all_of(one, 1), "something was owed before");
    }
}
