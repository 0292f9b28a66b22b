//! `verify`: everything that was posted, checked against the stored bytes.

use ::ingest::shell::recheck::recheck;
use std::collections::BTreeSet;

use anyhow::Context as _;
use reconcile::shell::close::Signed;
use reconcile::shell::verify::{PeriodVerified, periods, pinned, verify_period};
use schemas::period::Period;
use schemas::{journal, ledger};
use tokio::runtime::Runtime;

use crate::cli::{Failure, Format, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

/// The tables whose files are compared with the digests of their commits: the ledger first, which says what of others is
/// pinned.
const SEALED: [&str; 5] =
    [ledger::TABLE, journal::TABLE, lake::BOOK, schemas::trust::TABLE, schemas::document::TABLE];

/// What was checked, and the first difference.
#[derive(Default)]
struct Report {
    rows: Vec<Vec<String>>,
    difference: Option<[String; 3]>,
}

impl Report {
    fn say(&mut self, what: &str, result: String) {
        self.rows.push(vec![what.to_owned(), result]);
    }

    fn differs(&mut self, place: String, expected: String, found: String) {
        self.difference.get_or_insert([place, expected, found]);
    }
}

pub fn run(period: Option<Period>, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let mut report = Report::default();
    check(&mut report, period, config, runtime)?;
    let clean = report.difference.is_none();
    if let Some([place, expected, found]) = report.difference {
        if config.format == Format::Table {
            report.rows.push(vec!["first difference".to_owned(), place]);
            report.rows.push(vec!["  expected".to_owned(), expected]);
            report.rows.push(vec!["  found".to_owned(), found]);
        } else {
            for (name, text) in [("difference", place), ("expected", expected), ("found", found)] {
                report.rows.push(vec![name.to_owned(), text]);
            }
        }
    }
    output::rows(
        config.format,
        &Rows { columns: &["checked", "result"], rows: report.rows, ..Rows::default() },
    )?;
    Ok(if clean { Outcome::Done } else { Outcome::Found })
}

fn check(
    report: &mut Report,
    period: Option<Period>,
    config: &Config,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let mut stand_on = (BTreeSet::new(), BTreeSet::new());
    for name in SEALED {
        let Some(table) = runtime.block_on(lake.table(name)).with_context(|| unreadable(name))?
        else {
            continue;
        };
        if let Some(fault) =
            runtime.block_on(table.check_log()).with_context(|| unreadable(name))?
        {
            let place = format!("{name}, version {} of its log", fault.version);
            report.differs(place, fault.expected, fault.found);
            return Ok(());
        }
        let none = BTreeSet::new();
        let of_lines = match name {
            journal::TABLE => &stand_on.0,
            lake::BOOK => &stand_on.1,
            _ => &none,
        };
        let files =
            runtime.block_on(table.check_files(of_lines)).with_context(|| unreadable(name))?;
        let merged = match files.unsealed {
            0 => String::new(),
            n => format!(", {n} merged ones without a digest of their own"),
        };
        report.say(&format!("files of {name}"), format!("{} as written{merged}", files.sealed));
        if let Some((path, how)) = files.damaged {
            let expected = "the bytes and statistics that were written";
            report.differs(format!("{name}/{path}"), expected.to_owned(), how);
            return Ok(());
        }
        if name == ledger::TABLE {
            stand_on = runtime.block_on(pinned(&lake)).context("cannot read the ledger")?;
        }
    }
    if let Some(table) = runtime.block_on(lake.table(journal::TABLE)).context("the journal")? {
        let judging = super::judging(&lake, config, runtime)?;
        let bar = output::spinner(config.quiet, "{spinner} {pos} reports checked, {elapsed}");
        let mut progress = |n: u64| bar.set_position(n);
        let rechecked = runtime.block_on(recheck(&lake, &table, &judging, &mut progress));
        bar.finish_and_clear();
        let rechecked = rechecked.context("cannot check the journal")?;
        report.say(
            "reports decoded again",
            format!("{}, {} signatures verified", rechecked.reports, rechecked.verified),
        );
        if let Some(row) = rechecked.difference {
            report.differs(
                format!("journal, {}, {}", row.place, row.column),
                row.expected,
                row.found,
            );
            return Ok(());
        }
    }
    let Some(table) = runtime.block_on(lake.table(ledger::TABLE)).context("the ledger")? else {
        return Ok(());
    };
    let all = match period {
        Some(period) => [period].into(),
        None => runtime.block_on(periods(&table)).context("cannot read the ledger")?,
    };
    for period in all {
        let verified = runtime
            .block_on(verify_period(&lake, &table, period))
            .with_context(|| format!("cannot check {period}"))?;
        report.say(&format!("lines of {period}"), described(&verified));
        if let Some(difference) = verified.difference {
            report.differs(difference.place, difference.expected, difference.found);
            return Ok(());
        }
        let by_operator = config.operator_key()?.map(|key| key.public());
        if let (Some(ours), Some(Signed::By(theirs))) = (&by_operator, &verified.signed)
            && ours != theirs
        {
            report.differs(
                format!("manifest of {period}, public_key"),
                ours.clone(),
                theirs.clone(),
            );
            return Ok(());
        }
    }
    Ok(())
}

fn unreadable(table: &str) -> String {
    format!("table {table} cannot be read")
}

fn described(verified: &PeriodVerified) -> String {
    let state = match &verified.signed {
        None => "open".to_owned(),
        Some(Signed::No) => "closed, manifest not signed".to_owned(),
        Some(Signed::By(key)) => format!("closed, manifest signed by {key}"),
        Some(Signed::Wrong) => "closed, signature wrong".to_owned(),
    };
    format!("{} in chain, {} runs computed again; {state}", verified.lines, verified.runs)
}
