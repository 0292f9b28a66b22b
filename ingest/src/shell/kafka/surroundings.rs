//! What a worker looks at beside its messages: trust codes, the book, its lag, its topic.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use arrow::array::RecordBatch;
use lake::{Table, failpoint};
use rdkafka::consumer::Consumer as _;
use schemas::disposition::Reason;

use super::follower::{self, Follower};
use super::owed::{Debt, WORKER};
use super::topics::TopicError;
use super::{BOOK_EVERY, Halt, Result, Shell, TRUST_EVERY, WorkerError, chain};
use crate::shell::metrics::Metrics;
use crate::shell::suspense::{Act, RETRY, Which};
use crate::shell::takeup::{Followed, TakenUp, take_up};
use crate::shell::trust;

impl Shell<'_> {
    /// Opens the topic of trust codes, where there is one, and reads it to its end; gives how many came.
    pub(super) fn open_trust(&mut self) -> Result<u64> {
        let Some(topic) = &self.settings.trust_topic else { return Ok(0) };
        let settings = self.settings;
        self.trust =
            Follower::open(&settings.connection, &settings.group, topic, self.lake, &self.runtime)?;
        let Some(trust) = &mut self.trust else { return Ok(0) };
        let turn = || {
            settings.health.turn();
            !settings.stop.load(Ordering::Relaxed)
        };
        let step = trust.catch_up(&self.runtime, (settings.clock)(), &turn)?;
        count_trust(&settings.metrics, step);
        Ok(step.taken)
    }

    pub(super) fn load_keys(&mut self) -> Result<()> {
        let (keyring, book_version) =
            self.patiently(|shell| Ok(shell.runtime.block_on(trust::load_keyring(shell.lake))?))?;
        self.book_version = book_version;
        self.judging.keyring = Arc::new(keyring);
        Ok(())
    }

    /// What is looked at now and then.
    pub(super) fn look_around(&mut self) -> Result<()> {
        if self.trust_seen.elapsed() >= TRUST_EVERY {
            self.trust_seen = Instant::now();
            self.update_lag();
            self.check_topic();
            self.follow_trust()?;
        }
        if self.book_seen.elapsed() >= BOOK_EVERY {
            self.book_seen = Instant::now();
            self.look_for_trust()?;
            let version = self.runtime.block_on(lake::book_version(self.lake));
            if version.is_ok_and(|version| version != self.book_version) {
                tracing::info!("the book changed");
                self.load_keys()?;
                self.take_up_when_committed();
            }
        }
        if let Some(after) = self.take_up_after
            && (self.writer.commits() >= after || self.machine.is_idle())
        {
            self.take_up()?;
        }
        Ok(())
    }

    /// A topic of trust codes that was not there when the worker started may have been made since.
    /// One that got partitions, or was made anew, is opened again.
    fn look_for_trust(&mut self) -> Result<()> {
        if let Some(trust) = &self.trust {
            if !trust.is_outdated() {
                return Ok(());
            }
            tracing::info!("the topic of trust codes is another than before; it is opened again");
        }
        match self.open_trust() {
            Err(WorkerError::Topic(error @ TopicError::OutOfReach(_))) => {
                tracing::warn!(%error, "trust codes are looked for again later");
                Ok(())
            }
            Err(error) => Err(error),
            Ok(taken) => self.use_codes(taken),
        }
    }

    pub(super) fn follow_trust(&mut self) -> Result<()> {
        let now = (self.settings.clock)();
        let runtime = self.runtime.clone();
        let Some(trust) = &mut self.trust else { return Ok(()) };
        let step = match trust.step(&runtime, now, Duration::ZERO) {
            Ok(step) => step,
            Err(error) if error.retry() => {
                tracing::warn!(error = chain(&error), "trust codes cannot be kept now");
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        count_trust(&self.settings.metrics, step);
        self.use_codes(step.taken)
    }

    /// Judges by the codes that came.
    fn use_codes(&mut self, taken: u64) -> Result<()> {
        if taken > 0 {
            self.load_keys()?;
            self.take_up_when_committed();
        }
        Ok(())
    }

    /// Rows that wait for their commit were judged by the keys before: they come first.
    fn take_up_when_committed(&mut self) {
        self.take_up_after = Some(self.writer.commits() + 2);
    }

    /// Judges reports again that waited for a trust code (R7.4).
    pub(super) fn take_up(&mut self) -> Result<()> {
        // It commits to the journal as well, so the commit under way comes first.
        self.settle(true)?;
        if self.writer.in_commit().is_some() {
            return Ok(());
        }
        self.take_up_after = None;
        let which = Which::of_reasons(BTreeSet::from([Reason::TrustUnknown]));
        let act = Act {
            at: (self.settings.clock)(),
            by: WORKER.to_owned(),
            act: RETRY,
            reason: "a trust code came".to_owned(),
        };
        let found = self.take_up_and_tell(&which, &act)?;
        if found.changed() > 0 {
            tracing::info!(
                accepted = found.accepted,
                duplicate = found.duplicate,
                other_reason = found.other_reason,
                "suspended reports taken up"
            );
            self.settings.metrics.taken_up.inc_by(found.changed());
        }
        Ok(())
    }

    /// Judges again, and tells whoever sent them what became of them after all.
    fn take_up_and_tell(&mut self, which: &Which, act: &Act) -> Result<TakenUp> {
        let runtime = self.runtime.clone();
        let judging = self.judging.clone();
        let owed = self.owed.clone();
        let settings = self.settings;
        let go_on = || {
            settings.health.turn();
            !settings.stop.load(Ordering::Relaxed)
        };
        let marks = |journal: &Table| match &owed {
            Some(owed) => runtime.block_on(owed.marks(journal, act.at)),
            None => Ok(Vec::new()),
        };
        let debt = |shell: &Self| match &owed {
            Some(owed) => Ok(runtime.block_on(owed.debt(shell.writer.journal()))?),
            None => Ok(Debt::default()),
        };
        let before = self.patiently(|shell| debt(shell))?;
        let (mut attempts, mut exchanges) = (0, 0);
        let mut unsent: Vec<RecordBatch> = Vec::new();
        let found = self.patiently(|shell| {
            let Shell { writer, receipts, .. } = shell;
            let (journal, index) = writer.parts();
            attempts += 1;
            let mut tell = |rows: &RecordBatch| {
                exchanges += 1;
                failpoint::here("before-receipts-of-taken-up");
                if receipts.as_ref().is_some_and(|receipts| receipts.send(rows).is_err()) {
                    unsent.push(rows.clone());
                }
            };
            let followed = Followed { marks: &marks, changed: &mut tell };
            Ok(take_up(&runtime, journal, index, &judging, (which, act), followed, &go_on)?)
        })?;
        for rows in &unsent {
            self.patiently(|shell| shell.send(rows))?;
        }
        if self.receipts.is_some() {
            settings.metrics.receipts.inc_by(found.changed());
        }
        let Some(owed) = &owed else { return Ok(found) };
        let after = self.patiently(|shell| debt(shell))?;
        if attempts > 1 {
            // An exchange whose answer was an error may be in the log all the same, and nobody was told of it.
            self.send_owed_receipts()?;
        } else if exchanges > 0 && after.is_all_of(before, exchanges) {
            let mut journal = self.writer.journal().clone();
            self.patiently(|shell| Ok(shell.runtime.block_on(owed.clear(&mut journal, after))?))?;
        }
        Ok(found)
    }

    /// Lag is what is not durable yet, not what is not read yet.
    pub(super) fn update_lag(&self) {
        let ends = self.consumer.context().ends();
        for p in self.machine.reading() {
            if let Some(end) = ends.get(&p) {
                let next = self.durable.get(&p).map_or(0, |held| held + 1);
                let is_done = end.all_given && self.machine.is_idle();
                let lag = self.settings.metrics.lag.with_label_values(&[&p.to_string()]);
                lag.set(if is_done { 0 } else { (end.next - next).max(0) });
            }
        }
    }

    pub(super) fn check_topic(&mut self) {
        let topic = &self.settings.topic;
        let Some(change) = self.consumer.context().topic_ids().remove(topic) else { return };
        // Also if that was between the worker's question for its id and the first answer that the consumer had.
        if change.made_anew() || !self.topic_id.is_empty() && change.to != self.topic_id {
            self.halt.get_or_insert(Halt::For(WorkerError::MadeAnew {
                topic: topic.clone(),
                from: self.topic_id.clone(),
                to: change.to,
            }));
        }
    }
}

fn count_trust(metrics: &Metrics, step: follower::Step) {
    metrics.trust_codes.with_label_values(&["taken"]).inc_by(step.taken);
    metrics.trust_codes.with_label_values(&["refused"]).inc_by(step.refused);
}
