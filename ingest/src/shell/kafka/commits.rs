//! Commits, and what follows them: receipts, then the group's offsets.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use arrow::array::RecordBatch;
use lake::{Fence, failpoint};
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset as KafkaOffset, TopicPartitionList};

use super::{BACKOFF_FIRST, BACKOFF_MAX, Result, Shell, WorkerError, chain};
use crate::core::worker::{Event, Offset, Partition, Span};
use crate::shell::writer::{Commit, Settled};

impl Shell<'_> {
    pub(super) fn start_commit(&mut self, spans: &[Span]) -> Result<()> {
        let fences = spans
            .iter()
            .map(|span| Fence {
                source: self.source(span.partition),
                stands_on: span.stands_on,
                last: span.last,
            })
            .collect();
        let marks = spans
            .iter()
            .filter_map(|span| {
                let sent = self.receipted.get(&span.partition)?;
                Some((self.receipts_source(span.partition), *sent))
            })
            .collect();
        let batch = self.gathered.finish()?;
        self.commit_timer = Some(self.settings.metrics.commit_seconds.start_timer());
        Ok(self.writer.start(Commit { batch, fences, marks }, &self.judging)?)
    }

    /// Takes the answer to the commit under way, if there is one or `wait` is set.
    pub(super) fn settle(&mut self, wait: bool) -> Result<()> {
        if self.retry_at.is_some_and(|at| at <= Instant::now()) {
            self.retry_at = None;
            if let Err(error) = self.writer.retry(&self.judging) {
                self.commit_failed(error.into())?;
                self.retry_later();
            }
        }
        if !wait && !self.writer.is_answered() {
            return Ok(());
        }
        let conflicts = self.writer.conflicts();
        let Some(settled) = self.writer.settle(&self.judging)? else { return Ok(()) };
        let metrics = &self.settings.metrics;
        metrics.commit_conflicts.inc_by(self.writer.conflicts() - conflicts);
        match settled {
            Settled::Committed(batch) => {
                drop(self.commit_timer.take());
                metrics.commits.inc();
                metrics.last_commit.set((self.settings.clock)());
                metrics.count(&batch.summary);
                self.summary.add(&batch.summary);
                (self.settings.progress)(self.summary.received);
                self.committed = batch.rows;
                self.backoff = BACKOFF_FIRST;
                self.settings.health.set_ready(None);
                self.handle(Event::Committed)
            }
            Settled::Overtaken => {
                if let Some(timer) = self.commit_timer.take() {
                    timer.stop_and_discard();
                }
                metrics.commits_overtaken.inc();
                tracing::info!("another worker went on with a partition; reading it anew");
                self.handle(Event::Overtaken)
            }
            Settled::Failed(error) => {
                self.commit_failed(error.into())?;
                self.handle(Event::Failed)
            }
        }
    }

    /// A failure that lies in the world is told and waited out; any other ends the worker: what it
    /// holds is in no commit and is read again by whoever comes next.
    fn commit_failed(&mut self, error: WorkerError) -> Result<()> {
        self.settings.metrics.commit_failures.inc();
        if !error.retry() {
            return Err(error);
        }
        tracing::warn!(error = chain(&error), "a commit failed and is tried again");
        self.settings.health.set_ready(Some(format!("the lake: {error}")));
        Ok(())
    }

    pub(super) fn retry_later(&mut self) {
        self.retry_at = Some(Instant::now() + self.backoff);
        self.backoff = (self.backoff * 2).min(BACKOFF_MAX);
    }

    /// Receipts first, then the group's offsets: whoever reads on behind the group's offset need not
    /// send the receipts before it again.
    pub(super) fn acknowledge(&mut self, offsets: &[(Partition, Offset)]) -> Result<()> {
        self.durable.extend(offsets.iter().copied());
        failpoint::here("before-receipts");
        let rows = std::mem::take(&mut self.committed);
        let rows = if self.receipts.is_some() { rows.as_slice() } else { &[] };
        for rows in rows {
            let sent = self.patiently(|shell| shell.send(rows))?;
            self.settings.metrics.receipts.inc_by(sent);
        }
        failpoint::here("after-receipts");
        self.receipted.extend(offsets.iter().copied());
        let reading: BTreeSet<Partition> = self.machine.reading().into_iter().collect();
        let mut list = TopicPartitionList::new();
        for (p, last) in offsets.iter().filter(|(p, _)| reading.contains(p)) {
            list.add_partition_offset(&self.settings.topic, *p, KafkaOffset::Offset(last + 1))?;
        }
        if let Err(error) = self.consumer.commit(&list, CommitMode::Async) {
            // Nothing hangs on it but tools that show the lag.
            tracing::debug!(%error, "the group does not take the offsets");
        }
        failpoint::here("after-group-offsets");
        Ok(())
    }

    pub(super) fn send(&self, rows: &RecordBatch) -> Result<u64> {
        let Some(receipts) = &self.receipts else { return Ok(0) };
        receipts
            .send(rows)
            .inspect_err(|_| self.settings.metrics.receipt_failures.inc())
            .map_err(Into::into)
    }

    /// Sends the receipts that whoever read before may not have sent.
    pub(super) fn send_missing_receipts(
        &mut self,
        behind: &[(Partition, Option<Offset>)],
    ) -> Result<()> {
        if self.receipts.is_none() {
            return Ok(());
        }
        self.send_owed_receipts()?;
        let held: Vec<Partition> =
            behind.iter().filter(|(_, held)| held.is_some()).map(|(p, _)| *p).collect();
        if held.is_empty() {
            return Ok(());
        }
        let told = self.consumer.committed_offsets(self.list(&held), BACKOFF_MAX);
        let told: BTreeMap<Partition, Offset> = match &told {
            Ok(list) => list
                .elements()
                .iter()
                .filter_map(|e| Some((e.partition(), e.offset().to_raw().filter(|o| *o > 0)? - 1)))
                .collect(),
            Err(_) => BTreeMap::new(),
        };
        let journal = self.writer.journal().clone();
        for (p, up_to) in behind.iter().filter_map(|(p, held)| Some((*p, (*held)?))) {
            let marked = self.runtime.block_on(journal.held(&self.receipts_source(p)))?;
            let known = marked.max(told.get(&p).copied()).max(self.receipted.get(&p).copied());
            if known.is_none_or(|known| known < up_to) {
                let topic = self.settings.topic.clone();
                let sent = self.patiently(|shell| {
                    let Some(receipts) = &shell.receipts else { return Ok(0) };
                    let sending = receipts.send_again(&journal, &topic, p, known, up_to);
                    Ok(shell.runtime.block_on(sending)?)
                })?;
                tracing::info!(partition = p, sent, "sent receipts that may have been missing");
                self.settings.metrics.receipts.inc_by(sent);
            }
            self.receipted.insert(p, up_to);
        }
        Ok(())
    }

    /// Sends the receipts of reports taken up that somebody may not have sent.
    pub(super) fn send_owed_receipts(&mut self) -> Result<()> {
        let Some(owed) = self.owed.clone() else { return Ok(()) };
        // Another commit is under way on it; a copy sees what is there.
        let mut journal = self.writer.journal().clone();
        let runtime = self.runtime.clone();
        let sent = self.patiently(|shell| {
            runtime.block_on(journal.refresh())?;
            let debt = runtime.block_on(owed.debt(&journal))?;
            let (Some(since), Some(receipts)) = (debt.since, &shell.receipts) else {
                return Ok(None);
            };
            let sent = runtime.block_on(receipts.send_of_taken_up(&journal, since))?;
            runtime.block_on(owed.clear(&mut journal, debt))?;
            Ok(Some(sent))
        })?;
        if let Some(sent) = sent {
            tracing::info!(sent, "sent receipts of reports taken up that may have been missing");
            self.settings.metrics.receipts.inc_by(sent);
        }
        Ok(())
    }
}
