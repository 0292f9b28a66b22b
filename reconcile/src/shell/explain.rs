//! From a ledger line down to the signed reports under it, as its run saw them.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _};
use arrow::compute::cast;
use arrow::datatypes::{DataType, Decimal128Type, Int32Type, Int64Type, TimestampMicrosecondType};
use datafusion::prelude::{col, lit};
use lake::{Lake, StoredBook, Table, load_book_kept};
use schemas::book::{Account, Price, Span};
use schemas::journal;
use schemas::ledger::{Charge, ChargeKey, Line, Measure};
use schemas::period::EpochSeconds;
use schemas::udi::Udi;
use tokio::runtime::Handle;

use super::groups::groups_of;
use super::ledger::{self, Run};
use super::plan::usage_of;
use super::run::Snapshot;
use crate::ReconcileError;
use crate::core::attribute::{CountedReport, KeyUsage, UsageKey, compact};
use crate::core::charge::{is_committed, pieces, purchased, segments};
use crate::core::evidence::{
    InForce, NO_TERMS, NOTHING_PURCHASED, Roots, Stretch, purchased_entry, terms_entry,
};
use crate::core::groups::Groups;
use crate::core::measure::{MeasurePart, Piece, clip, measure, measure_parts};
use crate::core::rate::{self, TierPart, tier_parts};
use crate::core::reference::Reference;
use crate::engine::{self, Evidence};

type Result<T, E = ReconcileError> = std::result::Result<T, E>;

/// A line, and everything under it.
#[derive(Debug)]
pub struct Explained {
    pub line: Line,
    /// Lines of the same key that were posted before it, in their order.
    pub earlier: Vec<Line>,
    /// `None` of a target that vanished: nothing is due any more.
    pub target: Option<ExplainedTarget>,
    /// The entries that the roots of the line are made of, as they are hashed.
    pub terms_entry: String,
    pub purchased_entry: String,
    /// Reports that count, with the stretches of time in which they do, cut to the segment; in the order
    /// of PI and report id.
    pub reports: Vec<ExplainedReport>,
    /// The book that the run pinned.
    pub book: Arc<StoredBook>,
}

/// What a key should come to, and how.
#[derive(Debug)]
pub struct ExplainedTarget {
    pub price: Price,
    pub segment: Span,
    pub month: Span,
    pub measure: Measure,
    /// Purchases or commitments in force in the segment.
    pub purchased: Vec<InForce>,
    /// Stretches of the segment in which consumed and purchased stay as they are.
    pub pieces: Vec<Piece>,
    /// What the quantity is the sum of, and what the sum is divided by.
    pub parts: Vec<MeasurePart>,
    pub divisor: i128,
    pub quantity: i128,
    pub tiers: Vec<TierPart>,
    pub amount: i128,
}

/// A report that counts, with where it is kept.
#[derive(Debug)]
pub struct ExplainedReport {
    pub udi: Udi,
    pub report_id: u64,
    pub tag: String,
    pub utility: bool,
    pub verified: bool,
    pub payload_sha256: String,
    pub stretches: Vec<Stretch>,
    pub source: String,
    pub partition: Option<i32>,
    pub offset: i64,
    pub collector: Option<String>,
    pub received_at: EpochSeconds,
    pub raw: Vec<u8>,
}

/// Explains a line from the versions that its run pinned.
///
/// # Errors
/// If the lake has no such line, does not hold those versions any more, or does not come to the line.
pub async fn explain(lake: &Lake, cache_dir: &Path, line_id: &str) -> Result<Explained> {
    let no_line = || ReconcileError::NoLine(line_id.to_owned());
    // Most lines stand on the newest book. It is read beside the ledger, on the other core.
    let (of_book, of_journal) = (lake.clone(), lake.clone());
    let kept = cache_dir.to_owned();
    let book = tokio::spawn(async move { load_book_kept(&of_book, &kept).await });
    let newest = tokio::spawn(async move { of_journal.table(journal::TABLE).await });
    let found = find(lake, line_id).await;
    // Both are waited for in any case: the process may end at once where there is no line.
    let (newest, book) = (newest.await?, book.await?);
    let (table, line, earlier) = found?.ok_or_else(no_line)?;
    let posting = line.posting.clone().ok_or_else(no_line)?;
    let run = Run::of(&posting);
    let (newest, mut book) = (newest?, book?);
    if book.version != run.versions.book {
        book = Snapshot::book_of_run(lake, &run).await?;
    }
    let book = Arc::new(book);
    // What is kept now is found faster than what was kept then: it may be clustered since. If it comes to
    // the same evidence, by the roots of the line, it is the same.
    if let Some(newest) = newest {
        let is_of_run = Some(newest.version()) == run.versions.journal;
        let now = Snapshot::for_run(&table, &run, Arc::clone(&book), Some(newest));
        let explained = explain_by(&now, cache_dir, line.clone(), earlier.clone()).await?;
        if explained.holds() {
            return Ok(explained);
        }
        if is_of_run {
            return Err(ReconcileError::Differs(line_id.to_owned()));
        }
    }
    let journal = Snapshot::journal_of_run(lake, &run).await?;
    let then = Snapshot::for_run(&table, &run, book, journal);
    let explained = explain_by(&then, cache_dir, line, earlier).await?;
    if explained.holds() { Ok(explained) } else { Err(ReconcileError::Differs(line_id.to_owned())) }
}

/// A line, with those of its key before it; `None` if there is no ledger.
async fn find(lake: &Lake, line_id: &str) -> Result<Option<(Table, Line, Vec<Line>)>> {
    let Some(table) = lake.table(schemas::ledger::TABLE).await? else { return Ok(None) };
    let line = ledger::line(&table, line_id).await?;
    let earlier = ledger::earlier_lines(&table, &line).await?;
    Ok(Some((table, line, earlier)))
}

/// Explains a line from a snapshot.
async fn explain_by(
    snapshot: &Snapshot,
    cache_dir: &Path,
    line: Line,
    earlier: Vec<Line>,
) -> Result<Explained> {
    let pool = &line.key.pool;
    let book = &snapshot.book.book;
    let vanished = |line, earlier| Explained {
        book: Arc::clone(&snapshot.book),
        line,
        earlier,
        target: None,
        terms_entry: NO_TERMS.to_owned(),
        purchased_entry: NOTHING_PURCHASED.to_owned(),
        reports: Vec::new(),
    };
    let ChargeKey { smart_account, virtual_account, subscription_id, item, .. } = &line.key;
    let is_of_line = |account: &Account| {
        (&account.id.smart, &account.id.virtual_) == (smart_account, virtual_account)
    };
    let Some(account) = book.accounts.iter().position(is_of_line) else {
        return Ok(vanished(line, earlier));
    };
    // The book is arranged for questions on one core while the journal is asked on the other.
    let (reference, evidence) = tokio::task::block_in_place(|| {
        let asked = Handle::current();
        std::thread::scope(|threads| {
            let reference = threads.spawn(|| Reference::new(book));
            let evidence = asked.block_on(evidence_of(snapshot, cache_dir, account));
            (reference.join(), evidence)
        })
    });
    let reference = reference.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
    let evidence = evidence?;
    let key = UsageKey {
        account,
        pool: *pool,
        subscription_id: subscription_id.clone(),
        item: item.clone(),
    };
    let months = reference.months(line.service_period);
    let month = &months[account];
    let of_charge = segments(&reference, &key, month, line.key.charge);
    let segment = of_charge.iter().find(|s| s.span.start == line.key.segment_start);
    let segment = segment.and_then(|s| Some((s, s.price?)));
    // The account's currency may be another one since.
    let segment = segment.filter(|(_, price)| price.currency == line.currency);
    let Some((segment, price)) = segment else {
        return Ok(vanished(line, earlier));
    };
    let of_month = (&months[..], line.service_period);
    let mut used = usage_of(&evidence, &reference, of_month, Some(&key), &mut |_| {}).await?.keys;
    let commits = is_committed(&reference, &key);
    let is_due = match line.key.charge {
        Charge::Usage => commits || used.contains_key(&key),
        Charge::Commit => commits,
    };
    if !is_due {
        return Ok(vanished(line, earlier));
    }
    let KeyUsage { mut steps, counted, .. } = used.remove(&key).unwrap_or_default();
    compact(&mut steps);
    let purchases = purchased(&reference, &key);
    let pieces = clip(&pieces(&steps, &purchases, month.span), segment.span);
    let value = |piece: &Piece| match line.key.charge {
        Charge::Usage => piece.delta(),
        Charge::Commit => piece.purchased,
    };
    let (parts, divisor) = measure_parts(price.measure, &pieces, segment.span, month, value);
    let quantity = measure(price.measure, &pieces, segment.span, month, value);
    let target = ExplainedTarget {
        price: price.clone(),
        segment: segment.span,
        month: month.span,
        measure: price.measure,
        purchased: purchases.clone(),
        parts,
        divisor,
        quantity,
        tiers: tier_parts(price, quantity).unwrap_or_default(),
        amount: rate::amount(price, quantity)?,
        pieces,
    };
    let plan = segment.plan.unwrap_or_default();
    let reports = place(snapshot, counted, segment.span).await?;
    Ok(Explained {
        terms_entry: terms_entry(price, plan, segment.span, month),
        purchased_entry: purchased_entry(&purchases, segment.span),
        target: Some(target),
        reports,
        book: Arc::clone(&snapshot.book),
        line,
        earlier,
    })
}

/// What of the journal bears on an account.
async fn evidence_of(snapshot: &Snapshot, cache_dir: &Path, account: usize) -> Result<Evidence> {
    let book = &snapshot.book.book;
    let groups = match &snapshot.journal {
        Some(journal) => groups_of(journal, book, cache_dir).await?,
        None => Groups::new(HashSet::new()),
    };
    Evidence::of_groups(snapshot.journal.as_ref(), groups, book)
        .await?
        .of_account(book, account)
        .await
}

/// The reports that count in a segment, with their places and bytes from the journal.
async fn place(
    snapshot: &Snapshot,
    counted: Vec<CountedReport>,
    segment: Span,
) -> Result<Vec<ExplainedReport>> {
    let mut wanted: HashMap<(String, String, u64), CountedReport> = HashMap::new();
    for mut report in counted {
        for stretch in &mut report.stretches {
            *stretch = (stretch.0.max(segment.start), stretch.1.min(segment.end), stretch.2);
        }
        report.stretches.retain(|(start, end, _)| start < end);
        if !report.stretches.is_empty() {
            let Udi { pid, serial } = report.udi.clone();
            wanted.insert((pid, serial, report.facts.report_id), report);
        }
    }
    let Some(journal_table) = snapshot.journal.as_ref().filter(|_| !wanted.is_empty()) else {
        return Ok(Vec::new());
    };
    let mut serials: Vec<&str> = wanted.keys().map(|(_, serial, _)| serial.as_str()).collect();
    serials.sort_unstable();
    serials.dedup();
    let ends = wanted.values().flat_map(|report| &report.stretches);
    let (first, last) = ends.fold((i64::MAX, i64::MIN), |(first, last), (start, end, _)| {
        (first.min(*start), last.max(*end))
    });
    let session = engine::session()?;
    engine::register(&session, journal::TABLE, Some(journal_table), &journal::SCHEMA).await?;
    let rows = session
        .table(journal::TABLE)
        .await?
        .filter(
            col("disposition")
                .eq(lit("accepted"))
                .and(col("usage_end").gt(engine::instant(first)))
                .and(col("usage_start").lt(engine::instant(last)))
                .and(col("udi_serial").in_list(serials.iter().map(|s| lit(*s)).collect(), false)),
        )?
        .select_columns(&[
            "udi_pid",
            "udi_serial",
            "report_id",
            "source",
            "partition",
            "offset",
            "collector",
            "received_at",
            "raw",
        ])?;
    let mut reports = Vec::new();
    for batch in rows.collect().await? {
        let text = |i: usize| engine::text(batch.column(i));
        let (pids, serials, sources, collectors) = (text(0)?, text(1)?, text(3)?, text(6)?);
        let ids = batch.column(2).as_primitive::<Decimal128Type>();
        let partitions = batch.column(4).as_primitive::<Int32Type>();
        let offsets = batch.column(5).as_primitive::<Int64Type>();
        let received = cast(batch.column(7), &journal::timestamp())?;
        let received = received.as_primitive::<TimestampMicrosecondType>();
        let raws = cast(batch.column(8), &DataType::Binary)?;
        let raws = raws.as_binary::<i32>();
        for i in 0..batch.num_rows() {
            let report_id = u64::try_from(ids.value(i)).unwrap_or(u64::MAX);
            let key = (pids.value(i).to_owned(), serials.value(i).to_owned(), report_id);
            let Some(report) = wanted.remove(&key) else { continue };
            reports.push(ExplainedReport {
                udi: report.udi,
                report_id,
                tag: report.tag,
                utility: report.facts.utility,
                verified: report.facts.verified,
                payload_sha256: report.facts.payload_sha256.to_string(),
                stretches: report.stretches,
                source: sources.value(i).to_owned(),
                partition: partitions.is_valid(i).then(|| partitions.value(i)),
                offset: offsets.value(i),
                collector: collectors.is_valid(i).then(|| collectors.value(i).to_owned()),
                received_at: received.value(i).div_euclid(1_000_000),
                raw: raws.value(i).to_vec(),
            });
        }
    }
    if let Some((pid, serial, report_id)) = wanted.into_keys().next() {
        let why = format!("report {report_id} of {pid}:{serial} counts, and its row is not found");
        return Err(ReconcileError::Journal(why));
    }
    reports.sort_by(|a, b| {
        (&a.udi.pid, &a.udi.serial, a.report_id).cmp(&(&b.udi.pid, &b.udi.serial, b.report_id))
    });
    Ok(reports)
}

impl Explained {
    /// True if the parts come to the line, exactly, and its roots are those of the evidence.
    #[must_use]
    pub fn holds(&self) -> bool {
        let (quantity, amount) = self.target.as_ref().map_or((0, 0), |t| (t.quantity, t.amount));
        let before = self.earlier.iter().fold((0, 0), |(quantity, amount), line| {
            (quantity + line.quantity, amount + line.amount)
        });
        before == (self.line.quantity_before, self.line.amount_before)
            && quantity - before.0 == self.line.quantity
            && amount - before.1 == self.line.amount
            && self.roots().evidence.to_string() == self.line.evidence_root
            && self.pieces_hold()
    }

    /// The roots of the evidence, computed from it.
    #[must_use]
    pub fn roots(&self) -> Roots {
        let entries = self.report_entries();
        let leaves = entries.iter().map(|entry| schemas::merkle::leaf(entry.as_bytes())).collect();
        Roots::new(&self.terms_entry, &self.purchased_entry, leaves)
    }

    /// The entry of each report, as it is hashed.
    #[must_use]
    pub fn report_entries(&self) -> Vec<String> {
        self.reports.iter().map(ExplainedReport::entry).collect()
    }

    /// True if what the reports say adds up to what was consumed, at every instant.
    fn pieces_hold(&self) -> bool {
        let Some(target) = &self.target else { return self.reports.is_empty() };
        target.pieces.iter().all(|piece| {
            let at = |(start, end, _): &&Stretch| *start <= piece.start && piece.start < *end;
            let stretches = self.reports.iter().flat_map(|report| &report.stretches);
            let sum: i128 = stretches.filter(at).map(|(_, _, value)| i128::from(*value)).sum();
            sum == piece.consumed
        })
    }
}

impl ExplainedReport {
    /// As it is hashed.
    #[must_use]
    pub fn entry(&self) -> String {
        let facts = crate::core::timeline::ReportFacts {
            report_id: self.report_id,
            pi: 0,
            tag: 0,
            subscription: 0,
            header_account: None,
            utility: self.utility,
            verified: self.verified,
            payload_sha256: self.payload_sha256.parse().unwrap_or_default(),
        };
        let mut entry = String::new();
        let udi = (self.udi.pid.as_str(), self.udi.serial.as_str());
        let stretches = self.stretches.iter().copied();
        crate::core::evidence::write_report(&mut entry, udi, &self.tag, &facts, stretches);
        entry
    }
}
