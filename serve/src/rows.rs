//! The rows of a query, bounded: made on the queries' own threads, ended at the deadline whether or not
//! the client reads.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use datafusion_postgres::pgwire::api::results::QueryResponse;
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::data::DataRow;
use futures::{StreamExt as _, stream};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::{Instant, timeout_at};

use crate::guard::refusal;
use crate::metrics::Metrics;

/// Rows that wait for the client to read them.
const ROWS_AHEAD: usize = 1024;
/// A plan that heeds its deadline has so long to tell of it itself.
pub(crate) const GRACE: Duration = Duration::from_millis(100);
/// PostgreSQL's codes for a statement that was cancelled, and for a limit of the program.
pub(crate) const CANCELED: &str = "57014";
pub(crate) const LIMIT: &str = "54000";

/// A slot among the queries that run at once, and what is counted when the query ends.
pub(crate) struct Slot {
    pub(crate) _permit: OwnedSemaphorePermit,
    pub(crate) metrics: Metrics,
    pub(crate) began: Instant,
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.metrics.running.dec();
        self.metrics.query_seconds.observe(self.began.elapsed().as_secs_f64());
    }
}

/// What bounds one query.
#[derive(Clone)]
pub(crate) struct Bounds {
    pub(crate) deadline: Instant,
    pub(crate) rows_max: usize,
    pub(crate) slot: Arc<Slot>,
    pub(crate) threads: Handle,
}

pub(crate) fn timed_out() -> PgWireError {
    refusal(CANCELED, "canceling statement due to statement timeout")
}

/// The same response, its rows made elsewhere and bounded.
pub(crate) fn bounded(mut response: QueryResponse, bounds: Bounds) -> QueryResponse {
    let (sender, receiver) = mpsc::channel::<PgWireResult<DataRow>>(ROWS_AHEAD);
    // What ended the rows before their end: told to the client after the rows that it did get.
    let ended: Arc<Mutex<Option<PgWireError>>> = Arc::default();
    let told = ended.clone();
    let deadline = bounds.deadline;
    let mut rows = std::mem::replace(&mut response.data_rows, Box::pin(stream::empty()));
    bounds.threads.clone().spawn(async move {
        let metrics = bounds.slot.metrics.clone();
        let tell = |error| *told.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
        let run = async {
            let mut count = 0;
            while let Some(row) = rows.next().await {
                count += 1;
                if count > bounds.rows_max {
                    let rows_max = bounds.rows_max;
                    tell(refusal(
                        LIMIT,
                        format!("more than {rows_max} rows; ask for fewer, or add LIMIT"),
                    ));
                    return "too-many-rows";
                }
                let failed = row.is_err();
                if sender.send(row).await.is_err() {
                    return "abandoned";
                }
                if failed {
                    return "failed";
                }
            }
            "done"
        };
        let outcome = timeout_at(bounds.deadline, run).await.unwrap_or_else(|_| {
            tell(timed_out());
            "timeout"
        });
        metrics.ended(outcome);
        // The plan ends here, and with it all that it holds; the slot is free before the client has read.
        drop((rows, bounds));
    });
    // Told in time even where the plan looks up from its work too late to be ended in time.
    let told_by = deadline + GRACE;
    let rows = stream::unfold((receiver, Some(ended)), move |(mut receiver, ended)| async move {
        let ended = ended?;
        match timeout_at(told_by, receiver.recv()).await {
            Ok(Some(row)) => return Some((row, (receiver, Some(ended)))),
            Ok(None) => {}
            Err(_) => return Some((Err(timed_out()), (receiver, None))),
        }
        let error = ended.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        Some((Err(error), (receiver, None)))
    });
    response.data_rows = Box::pin(rows);
    response
}
