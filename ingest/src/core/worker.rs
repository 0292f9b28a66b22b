//! The streaming worker as a state machine: events in, intentions out.
//!
//! It decides which messages are taken, when what was taken is committed and on which fences, when
//! reading pauses, and what happens when partitions come and go. It reads no clock and does no IO;
//! the shell carries its intentions out and reports what came of them.
//!
//! What makes every message count once is the fence of the commit (`lake::Fence`), not the group:
//!
//! | what happened | what the machine does |
//! | --- | --- |
//! | a partition is given | asks the journal where it stands, reads on behind that |
//! | a message at or before what was taken of its partition | leaves it |
//! | the commit was made | moves the partitions on; then receipts, then the group's offsets |
//! | the commit was overtaken: another worker went on with a partition | throws away what it holds, asks the journal anew |
//! | the store failed, and the log shows no commit | tries the same commit again |
//! | a partition is taken away in good order | commits what it holds of it first, then lets go |
//! | a partition is lost: the group believes this worker dead | throws away what it holds, asks anew for the rest |
//! | the process dies | nothing: what was not committed is read again |

use std::collections::{BTreeMap, BTreeSet};

/// Number of a partition in the topic.
pub type Partition = i32;
/// Offset of a message in its partition.
pub type Offset = i64;
/// Milliseconds of a clock that never goes back.
pub type Millis = u64;

/// When rows are committed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlushLimits {
    pub rows_max: usize,
    /// Bytes of raw evidence.
    pub bytes_max: usize,
    pub age_ms_max: Millis,
}

/// Rows of so many commits wait for the commit before them, at most; with fewer, reading and judging go on.
pub const COMMITS_AHEAD: usize = 2;

impl FlushLimits {
    /// True of as many rows, or as many bytes of raw evidence, as so many commits have at most.
    #[must_use]
    pub fn are_reached(&self, rows: usize, bytes: usize, commits: usize) -> bool {
        rows >= self.rows_max.saturating_mul(commits)
            || bytes >= self.bytes_max.saturating_mul(commits)
    }
}

/// What happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The group gives partitions to this worker.
    Assigned(Vec<Partition>),
    /// Where the journal stands in partitions: the last offset that it holds.
    Fences(Vec<(Partition, Option<Offset>)>),
    /// The group takes partitions away; `lost` if it did so some time ago.
    Revoked { partitions: Vec<Partition>, lost: bool },
    /// Messages that [`Worker::wants`] were made into rows, all of them together.
    Taken(Vec<Message>),
    /// The commit under way is durable.
    Committed,
    /// The commit under way was refused: a fence did not hold.
    Overtaken,
    /// The commit under way was not made.
    Failed,
    /// Time went by.
    Tick,
    /// The worker is to end.
    Stop,
}

/// A message that was made into rows, none or more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    pub partition: Partition,
    pub offset: Offset,
    pub rows: usize,
    /// Bytes of raw evidence.
    pub bytes: usize,
}

/// Where a partition stands before and after a commit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    pub partition: Partition,
    pub stands_on: Option<Offset>,
    pub last: Offset,
}

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Intention {
    /// Ask the journal where it stands, and report [`Event::Fences`].
    ReadFences(Vec<Partition>),
    /// Begin to read new partitions behind these offsets; `None`: from the first message.
    Assign(Vec<(Partition, Option<Offset>)>),
    /// Read partitions that are being read already behind these offsets.
    Seek(Vec<(Partition, Option<Offset>)>),
    /// Let go of partitions.
    Unassign(Vec<Partition>),
    /// Take no messages for a while, but go on polling.
    Pause,
    Resume,
    /// Commit all rows made so far; one commit at a time.
    Commit(Vec<Span>),
    /// Try the same commit again, after a while.
    Retry,
    /// Throw away all rows that are in no commit, and the commit that failed.
    Discard,
    /// Send the receipts of the commit that is durable now, then tell the group its offsets.
    Acknowledge(Vec<(Partition, Offset)>),
    /// Nothing is left to do: leave the group and end.
    Leave,
}

/// What is known of a partition that this worker owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Owned {
    /// Asked the journal where it stands. `new`: the client does not read it yet.
    Asking { new: bool },
    /// Reads on. `taken` is the last offset that is in the journal, in a commit, or in rows.
    Reading { taken: Option<Offset> },
}

/// Rows that are in no commit yet.
#[derive(Clone, Debug, Default)]
struct Gathered {
    rows: usize,
    bytes: usize,
    since: Option<Millis>,
    spans: BTreeMap<Partition, Span>,
}

/// A streaming worker.
#[derive(Clone, Debug)]
pub struct Worker {
    limits: FlushLimits,
    owned: BTreeMap<Partition, Owned>,
    gathered: Gathered,
    /// Spans of the commit under way.
    in_commit: Option<Vec<Span>>,
    /// Partitions to let go of when nothing of them is held any more.
    leaving: BTreeSet<Partition>,
    /// Everything held was thrown away; when the commit under way has ended, the journal is asked.
    ask_again: bool,
    paused: bool,
    stopping: bool,
    left: bool,
}

impl Worker {
    #[must_use]
    pub fn new(limits: FlushLimits) -> Worker {
        Worker {
            limits,
            owned: BTreeMap::new(),
            gathered: Gathered::default(),
            in_commit: None,
            leaving: BTreeSet::new(),
            ask_again: false,
            paused: false,
            stopping: false,
            left: false,
        }
    }

    /// True if this message is to be made into rows and reported as [`Event::Taken`].
    #[must_use]
    pub fn wants(&self, partition: Partition, offset: Offset) -> bool {
        !self.stopping
            && !self.ask_again
            && !self.leaving.contains(&partition)
            && matches!(self.owned.get(&partition), Some(Owned::Reading { taken }) if taken.is_none_or(|t| offset > t))
    }

    /// True if nothing is held that is not durable.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.in_commit.is_none() && self.gathered.spans.is_empty()
    }

    /// Partitions that are being read.
    #[must_use]
    pub fn reading(&self) -> Vec<Partition> {
        let reading =
            |(p, owned): (&Partition, &Owned)| matches!(owned, Owned::Reading { .. }).then_some(*p);
        self.owned.iter().filter_map(reading).collect()
    }

    /// Rows gathered for the next commit.
    #[must_use]
    pub fn gathered_rows(&self) -> usize {
        self.gathered.rows
    }

    /// Takes an event; the intentions are to be carried out in their order before the next event.
    pub fn on(&mut self, event: Event, now: Millis) -> Vec<Intention> {
        let mut out = Vec::new();
        match event {
            Event::Assigned(partitions) => {
                for p in &partitions {
                    self.leaving.remove(p);
                    self.owned.insert(*p, Owned::Asking { new: true });
                }
                out.push(Intention::ReadFences(partitions));
            }
            Event::Fences(fences) => self.on_fences(&fences, &mut out),
            Event::Revoked { partitions, lost } => self.on_revoked(partitions, lost, &mut out),
            Event::Taken(messages) => {
                for message in messages {
                    self.on_taken(message, now);
                }
            }
            Event::Committed => self.on_committed(&mut out),
            Event::Overtaken => {
                self.in_commit = None;
                self.throw_away(&mut out);
            }
            Event::Failed => self.on_failed(&mut out),
            Event::Tick => {}
            Event::Stop => self.stopping = true,
        }
        self.go_on(now, &mut out);
        out
    }

    fn on_fences(&mut self, fences: &[(Partition, Option<Offset>)], out: &mut Vec<Intention>) {
        let (mut assign, mut seek) = (Vec::new(), Vec::new());
        for (p, held) in fences {
            if let Some(Owned::Asking { new }) = self.owned.get(p).copied() {
                if new { &mut assign } else { &mut seek }.push((*p, *held));
                self.owned.insert(*p, Owned::Reading { taken: *held });
            }
        }
        // The group waits for an answer, also where it gave nothing.
        if !assign.is_empty() || fences.is_empty() {
            out.push(Intention::Assign(assign));
        }
        if !seek.is_empty() {
            out.push(Intention::Seek(seek));
        }
        // A client forgets that it paused when partitions come.
        if self.paused {
            out.push(Intention::Pause);
        }
    }

    fn on_revoked(&mut self, partitions: Vec<Partition>, lost: bool, out: &mut Vec<Intention>) {
        if lost {
            for p in &partitions {
                self.owned.remove(p);
                self.leaving.remove(p);
            }
            self.throw_away(out);
            out.push(Intention::Unassign(partitions));
        } else {
            self.leaving.extend(partitions);
        }
    }

    fn on_taken(&mut self, message: Message, now: Millis) {
        let Message { partition, offset, rows, bytes } = message;
        let Some(Owned::Reading { taken }) = self.owned.get_mut(&partition) else {
            unreachable!("only wanted messages are taken, and those are of partitions being read")
        };
        let stands_on = taken.replace(offset);
        let span = Span { partition, stands_on, last: offset };
        self.gathered.spans.entry(partition).or_insert(span).last = offset;
        self.gathered.rows += rows;
        self.gathered.bytes += bytes;
        self.gathered.since.get_or_insert(now);
    }

    fn on_committed(&mut self, out: &mut Vec<Intention>) {
        let spans = self.in_commit.take().unwrap_or_default();
        // A partition that was taken away meanwhile is acknowledged as well: its receipts are due, and
        // the group refuses an offset that is no longer this worker's to tell.
        out.push(Intention::Acknowledge(spans.iter().map(|s| (s.partition, s.last)).collect()));
    }

    fn on_failed(&mut self, out: &mut Vec<Intention>) {
        // Partitions that have to go do not wait for a store that is out of reach: somebody else may
        // reach it.
        if self.leaving.is_empty() {
            out.push(Intention::Retry);
        } else {
            self.in_commit = None;
            self.throw_away(out);
        }
    }

    /// Everything that is in no commit goes; where to read on, the journal has to say.
    fn throw_away(&mut self, out: &mut Vec<Intention>) {
        self.gathered = Gathered::default();
        out.push(Intention::Discard);
        self.ask_again = true;
    }

    fn flush_is_due(&self, now: Millis) -> bool {
        let gathered = &self.gathered;
        let aged = gathered.since.is_some_and(|s| now.saturating_sub(s) >= self.limits.age_ms_max);
        let goes = gathered.spans.keys().any(|p| self.leaving.contains(p));
        self.holds(1) || aged || goes || (self.stopping && !gathered.spans.is_empty())
    }

    /// True if as many rows as so many commits have at most wait.
    fn holds(&self, commits: usize) -> bool {
        self.limits.are_reached(self.gathered.rows, self.gathered.bytes, commits)
    }

    /// What the new state asks for, whatever led to it.
    fn go_on(&mut self, now: Millis, out: &mut Vec<Intention>) {
        if self.in_commit.is_none() && !self.gathered.spans.is_empty() && self.flush_is_due(now) {
            let gathered = std::mem::take(&mut self.gathered);
            let spans: Vec<Span> = gathered.spans.into_values().collect();
            out.push(Intention::Commit(spans.clone()));
            self.in_commit = Some(spans);
        }
        self.let_go(out);
        if self.ask_again && self.in_commit.is_none() {
            self.ask_again = false;
            // A partition that was just given has been asked for, and has not been read yet.
            let ask: Vec<Partition> = self.reading();
            for p in &ask {
                self.owned.insert(*p, Owned::Asking { new: false });
            }
            if !ask.is_empty() {
                out.push(Intention::ReadFences(ask));
            }
        }
        let full = self.in_commit.is_some() && self.holds(COMMITS_AHEAD);
        if full != self.paused {
            self.paused = full;
            out.push(if full { Intention::Pause } else { Intention::Resume });
        }
        if self.stopping && self.is_idle() && !self.left {
            self.left = true;
            out.push(Intention::Leave);
        }
    }

    /// Lets go of the partitions that have to go and of which nothing is held.
    fn let_go(&mut self, out: &mut Vec<Intention>) {
        let held = |p: &Partition| {
            self.gathered.spans.contains_key(p)
                || self.in_commit.iter().flatten().any(|span| span.partition == *p)
        };
        // All at once: the group waits for one answer to what it took away.
        if self.leaving.is_empty() || self.leaving.iter().any(held) {
            return;
        }
        let gone: Vec<Partition> = std::mem::take(&mut self.leaving).into_iter().collect();
        for p in &gone {
            self.owned.remove(p);
        }
        out.push(Intention::Unassign(gone));
    }
}
