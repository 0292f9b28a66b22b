//! The streaming worker against a world that does its worst, replayed exactly from a seed.
//!
//! Several workers share the partitions of one topic and one journal. Commits fail, or succeed while
//! their worker dies; workers crash between any two steps; the group moves partitions about; a worker
//! sleeps while its partitions go to another, wakes and tries to commit what it holds. At the end
//! every message must be in the journal once, in order, and have a receipt.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use ingest::core::worker::{
    COMMITS_AHEAD, Event, FlushLimits, Intention, Message, Millis, Offset, Partition, Span, Worker,
};

const SEEDS: u64 = 1000;
const PARTITIONS: Partition = 4;
const MESSAGES: i64 = 60;
const STEPS: u32 = 1500;
const LIMITS: FlushLimits = FlushLimits { rows_max: 6, bytes_max: 2000, age_ms_max: 40 };

#[test]
fn every_message_counts_once_whatever_happens() {
    let mut hardships = Hardships::default();
    for seed in 0..SEEDS {
        let mut world = World::new(seed);
        world.run();
        hardships.add(&world.hardships);
    }
    // A simulation in which nothing happens would prove nothing.
    let Hardships { crashes, overtaken, failed, unclear, lost, moved, paused, resent } = hardships;
    for (what, n) in [
        ("crashes", crashes),
        ("overtaken", overtaken),
        ("failed", failed),
        ("unclear", unclear),
        ("lost", lost),
        ("moved", moved),
        ("paused", paused),
        ("resent", resent),
    ] {
        assert!(n > SEEDS / 4, "only {n} {what} in {SEEDS} worlds");
    }
}

#[derive(Clone, Copy, Debug, Default)]
struct Hardships {
    crashes: u64,
    overtaken: u64,
    failed: u64,
    unclear: u64,
    lost: u64,
    moved: u64,
    paused: u64,
    resent: u64,
}

impl Hardships {
    fn add(&mut self, other: &Hardships) {
        self.crashes += other.crashes;
        self.overtaken += other.overtaken;
        self.failed += other.failed;
        self.unclear += other.unclear;
        self.lost += other.lost;
        self.moved += other.moved;
        self.paused += other.paused;
        self.resent += other.resent;
    }
}

/// SplitMix64: small, and the same everywhere.
struct Rng(u64);

impl Rng {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }
}

/// The journal: commits behind fences, and the mark up to which receipts are known to be sent.
#[derive(Default)]
struct Journal {
    held: BTreeMap<Partition, Offset>,
    messages: BTreeMap<Partition, Vec<Offset>>,
    receipts_mark: BTreeMap<Partition, Offset>,
}

impl Journal {
    fn append(&mut self, commit: &Commit) -> bool {
        if commit.spans.iter().any(|s| self.held.get(&s.partition).copied() != s.stands_on) {
            return false;
        }
        for span in &commit.spans {
            self.held.insert(span.partition, span.last);
        }
        for (p, offset) in &commit.rows {
            self.messages.entry(*p).or_default().push(*offset);
        }
        for (p, offset) in &commit.marks {
            let mark = self.receipts_mark.entry(*p).or_insert(*offset);
            *mark = (*mark).max(*offset);
        }
        true
    }
}

#[derive(Clone, Default)]
struct Commit {
    spans: Vec<Span>,
    rows: Vec<(Partition, Offset)>,
    /// Receipts known to be sent when the commit was put together.
    marks: BTreeMap<Partition, Offset>,
}

/// A worker process: the machine, and what its shell holds.
struct Process {
    machine: Worker,
    rows: Vec<(Partition, Offset)>,
    commit: Option<Commit>,
    /// A commit that failed, until it is tried again or thrown away.
    failed: Option<Commit>,
    /// Rows of the commit that was made last.
    committed: Vec<(Partition, Offset)>,
    /// Last offset read of each partition that the client reads.
    reading: BTreeMap<Partition, Option<Offset>>,
    acknowledged: BTreeMap<Partition, Offset>,
    events: VecDeque<Event>,
    asleep: bool,
    left: bool,
}

impl Process {
    fn new() -> Process {
        Process {
            machine: Worker::new(LIMITS),
            rows: Vec::new(),
            commit: None,
            failed: None,
            committed: Vec::new(),
            reading: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            events: VecDeque::new(),
            asleep: false,
            left: false,
        }
    }
}

struct World {
    seed: u64,
    rng: Rng,
    now: Millis,
    topic: BTreeMap<Partition, Vec<Offset>>,
    journal: Journal,
    processes: Vec<Process>,
    /// Who owns a partition, as the group sees it.
    owner: BTreeMap<Partition, Option<usize>>,
    /// Partitions that were asked back and are not given back yet.
    asked_back: BTreeSet<Partition>,
    group_offsets: BTreeMap<Partition, Offset>,
    receipts: BTreeSet<(Partition, Offset)>,
    calm: bool,
    hardships: Hardships,
}

impl World {
    fn new(seed: u64) -> World {
        let mut rng = Rng(seed);
        let workers = 1 + rng.below(4) as usize;
        let topic = (0..PARTITIONS)
            .map(|p| {
                // Offsets have holes: aborted transactions, markers, compaction.
                let offsets = (0..MESSAGES).filter(|_| !rng.one_in(5)).collect();
                (p, offsets)
            })
            .collect();
        World {
            seed,
            rng,
            now: 0,
            topic,
            journal: Journal::default(),
            processes: (0..workers).map(|_| Process::new()).collect(),
            owner: (0..PARTITIONS).map(|p| (p, None)).collect(),
            asked_back: BTreeSet::new(),
            group_offsets: BTreeMap::new(),
            receipts: BTreeSet::new(),
            calm: false,
            hardships: Hardships::default(),
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            self.step();
        }
        self.calm = true;
        for i in 0..self.processes.len() {
            self.wake(i);
        }
        for step in 0.. {
            assert!(step < 200_000, "seed {}: the world stands still", self.seed);
            self.step();
            if self.journal.held.len() == PARTITIONS as usize
                && self.topic.iter().all(|(p, all)| self.journal.held.get(p) == all.last())
                && self.processes.iter().all(|p| p.machine.is_idle() && p.events.is_empty())
            {
                break;
            }
        }
        assert_eq!(self.journal.messages, self.topic, "seed {}: lost or doubled", self.seed);
        for (p, offsets) in &self.topic {
            for offset in offsets {
                let sent = self.receipts.contains(&(*p, *offset));
                assert!(sent, "seed {}: no receipt for {offset} of {p}", self.seed);
            }
        }
        // All workers stop in good order and have nothing left.
        for i in 0..self.processes.len() {
            self.handle(i, Event::Stop);
            assert!(self.processes[i].left, "seed {}: a worker does not end", self.seed);
        }
    }

    fn step(&mut self) {
        self.now += self.rng.below(8);
        let i = self.rng.below(self.processes.len() as u64) as usize;
        match self.rng.below(100) {
            0..=2 if !self.calm => self.crash(i),
            3..=4 if !self.calm => self.processes[i].asleep = true,
            5..=6 => self.wake(i),
            7..=11 => self.rebalance(),
            12..=25 => self.settle(i),
            26..=35 if !self.processes[i].asleep => self.handle(i, Event::Tick),
            36..=50 if !self.processes[i].asleep => {
                if let Some(event) = self.processes[i].events.pop_front() {
                    self.handle(i, event);
                }
            }
            _ if !self.processes[i].asleep => self.poll(i),
            _ => {}
        }
    }

    /// The client gives the worker a message of a partition that it reads.
    fn poll(&mut self, i: usize) {
        let process = &mut self.processes[i];
        let partitions: Vec<Partition> = process.reading.keys().copied().collect();
        if partitions.is_empty() {
            return;
        }
        let p = partitions[self.rng.below(partitions.len() as u64) as usize];
        let behind = process.reading[&p];
        let next = self.topic[&p].iter().copied().find(|o| behind.is_none_or(|b| *o > b));
        let Some(offset) = next else { return };
        process.reading.insert(p, Some(offset));
        // A message that is not wanted is left, and comes again after the next seek.
        if process.machine.wants(p, offset) {
            process.rows.push((p, offset));
            let rows = self.rng.below(3) as usize;
            let taken = Message { partition: p, offset, rows, bytes: rows * 100 };
            self.handle(i, Event::Taken(vec![taken]));
            let most = LIMITS.rows_max * COMMITS_AHEAD + 2;
            assert!(self.processes[i].machine.gathered_rows() <= most + 60, "memory is bounded");
        }
    }

    /// The commit under way comes to an end.
    fn settle(&mut self, i: usize) {
        let Some(commit) = self.processes[i].commit.clone() else { return };
        if self.rng.one_in(6) && !self.calm {
            self.hardships.failed += 1;
            self.processes[i].failed = self.processes[i].commit.take();
            return self.handle(i, Event::Failed);
        }
        let made = self.journal.append(&commit);
        if made && self.rng.one_in(6) && !self.calm {
            // The answer never comes: the worker dies with its commit made.
            self.hardships.unclear += 1;
            return self.crash(i);
        }
        self.processes[i].commit = None;
        if made {
            self.processes[i].committed = commit.rows;
        } else {
            self.hardships.overtaken += 1;
        }
        self.handle(i, if made { Event::Committed } else { Event::Overtaken });
    }

    fn crash(&mut self, i: usize) {
        self.hardships.crashes += 1;
        self.processes[i] = Process::new();
        for (p, owner) in &mut self.owner {
            if *owner == Some(i) {
                *owner = None;
                self.asked_back.remove(p);
            }
        }
    }

    /// The group gives partitions without an owner away, takes some back, and those of a worker that
    /// sleeps without asking it.
    fn rebalance(&mut self) {
        for p in 0..PARTITIONS {
            let to = self.rng.below(self.processes.len() as u64) as usize;
            match self.owner[&p] {
                None if !self.processes[to].asleep => {
                    self.owner.insert(p, Some(to));
                    self.processes[to].events.push_back(Event::Assigned(vec![p]));
                }
                Some(from) if self.processes[from].asleep => {
                    self.owner.insert(p, None);
                    self.asked_back.remove(&p);
                    let lost = Event::Revoked { partitions: vec![p], lost: true };
                    self.processes[from].events.push_back(lost);
                    self.hardships.lost += 1;
                }
                Some(from)
                    if from != to
                        && !self.calm
                        && self.rng.one_in(3)
                        && self.asked_back.insert(p) =>
                {
                    let back = Event::Revoked { partitions: vec![p], lost: false };
                    self.processes[from].events.push_back(back);
                }
                _ => {}
            }
        }
    }

    fn wake(&mut self, i: usize) {
        self.processes[i].asleep = false;
    }

    fn handle(&mut self, i: usize, event: Event) {
        let mut events = VecDeque::from([event]);
        while let Some(event) = events.pop_front() {
            for intention in self.processes[i].machine.on(event, self.now) {
                if let Some(answer) = self.carry_out(i, intention) {
                    events.push_back(answer);
                }
            }
        }
    }

    fn carry_out(&mut self, i: usize, intention: Intention) -> Option<Event> {
        let process = &mut self.processes[i];
        match intention {
            Intention::ReadFences(partitions) => {
                let held = |p| (p, self.journal.held.get(&p).copied());
                return Some(Event::Fences(partitions.into_iter().map(held).collect()));
            }
            Intention::Assign(behind) | Intention::Seek(behind) => {
                for (p, offset) in behind {
                    process.reading.insert(p, offset);
                    // Who went on with it before may have died between commit and receipts.
                    let known = self.journal.receipts_mark.get(&p).copied();
                    let told = self.group_offsets.get(&p).map(|next| next - 1);
                    for again in self.journal.messages.get(&p).into_iter().flatten() {
                        if Some(*again) > known.max(told) && Some(*again) <= offset {
                            self.receipts.insert((p, *again));
                            self.hardships.resent += 1;
                        }
                    }
                }
            }
            Intention::Unassign(partitions) => {
                for p in partitions {
                    process.reading.remove(&p);
                    let held = process.rows.iter().any(|(of, _)| *of == p);
                    assert!(!held, "seed {}: let go of a partition with rows", self.seed);
                    if self.owner[&p] == Some(i) && self.asked_back.remove(&p) {
                        self.owner.insert(p, None);
                        self.hardships.moved += 1;
                    }
                }
            }
            Intention::Pause => self.hardships.paused += 1,
            Intention::Resume => {}
            Intention::Retry => process.commit = process.failed.take(),
            Intention::Commit(spans) => {
                assert!(process.commit.is_none(), "seed {}: two commits at once", self.seed);
                let rows = std::mem::take(&mut process.rows);
                process.commit = Some(Commit { spans, rows, marks: process.acknowledged.clone() });
            }
            Intention::Discard => process.rows.clear(),
            Intention::Acknowledge(offsets) => {
                self.receipts.extend(process.committed.drain(..));
                for (p, offset) in offsets {
                    let durable = self.journal.held.get(&p).is_some_and(|held| *held >= offset);
                    assert!(durable, "seed {}: acknowledged what is not durable", self.seed);
                    process.acknowledged.insert(p, offset);
                    if self.owner[&p] == Some(i) && self.rng.one_in(2) {
                        let next = self.group_offsets.entry(p).or_insert(0);
                        *next = (*next).max(offset + 1);
                    }
                }
            }
            Intention::Leave => process.left = true,
        }
        None
    }
}
