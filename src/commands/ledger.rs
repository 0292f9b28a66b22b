//! `reconcile`, `close`, `statement`, `exceptions`.

#[cfg(feature = "pdf")]
use std::collections::BTreeSet;
use std::collections::{BTreeMap, HashSet};
use std::path::Path;

use anyhow::{Context as _, anyhow};
use jiff::tz::TimeZone;
use reconcile::ReconcileError;
use reconcile::shell::close;
use reconcile::shell::compliance_tables::share_text;
use reconcile::shell::run::{self, EXCEPTION_COLUMNS, ExceptionRow};
use schemas::book::AccountId;
use schemas::ledger::{Line, STATEMENT_COLUMNS};
use schemas::period::Period;
use schemas::quantity::money_text;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Format, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};
use crate::statement;
#[cfg(feature = "pdf")]
use crate::statement::pdf::Letterhead;

/// Columns of a statement that a table leaves out; CSV and JSON have them.
const HIDDEN: &[&str] = &[
    "line_id",
    "posted_period",
    "smart_account",
    "price_plan",
    "evidence_root",
    "pool",
    "verified_share",
];
/// Of a customer's name in the name of a file; a character takes up to four bytes.
const FILE_NAME_CHARS_MAX: usize = 50;
const DECIMALS: &[&str] = &["consumed", "purchased", "quantity", "amount", "verified_share"];

pub fn reconcile(
    periods: &[Period],
    account: Option<&AccountId>,
    dry_run: bool,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let cache_dir = lake.cache_dir(&config.cache_dir);
    let (mut lines, mut exceptions, mut versions) = (Vec::new(), Vec::new(), Vec::new());
    for period in periods {
        let clock = || config.now();
        let ran =
            runtime.block_on(run::reconcile(&lake, &cache_dir, *period, account, dry_run, &clock));
        let ran = match ran {
            Err(error @ ReconcileError::NoAccount(_)) => return Err(Failure::Usage(error.into())),
            other => other.with_context(|| format!("cannot reconcile {period}"))?,
        };
        versions.extend(ran.posted_as.map(|version| format!(" as version {version}")));
        lines.extend(ran.lines);
        exceptions.extend(ran.exceptions);
    }
    print_lines(&lines, config)?;
    let verb = if dry_run { "would be posted" } else { "posted" };
    output::note(
        config.quiet,
        &format!(
            "{} lines {verb}{}, {} exceptions",
            lines.len(),
            versions.join(" and"),
            exceptions.len()
        ),
    );
    Ok(outcome(&exceptions))
}

/// Computes again what the run of a version of the ledger posted, from what it read then.
pub fn as_of(version: u64, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let table = runtime.block_on(lake.table(schemas::ledger::TABLE))?;
    let table = table.ok_or_else(|| anyhow!("the lake {} has no ledger yet", config.lake))?;
    let run = match runtime.block_on(run::reproduce(&lake, &table, version)) {
        Err(error @ ReconcileError::NoRun(_)) => return Err(Failure::Failed(error.into())),
        other => other.with_context(|| format!("cannot compute version {version} again"))?,
    };
    print_lines(&run.again, config)?;
    if run.again != run.posted {
        return Err(Failure::Failed(anyhow!(
            "version {version} comes out otherwise than it was posted; `rumledger verify` names the first difference"
        )));
    }
    output::note(
        config.quiet,
        &format!("{} lines, as version {version} posted them", run.again.len()),
    );
    Ok(Outcome::Done)
}

/// The month before the one that is running, and that one, as UTC has them: usage of the last hours of
/// a month comes in the next.
pub fn current(config: &Config) -> Result<Vec<Period>, Failure> {
    let running = Period::containing(config.now(), &TimeZone::UTC);
    let before = running
        .map(|p| p.bounds(&TimeZone::UTC).0 - 1)
        .and_then(|last| Period::containing(last, &TimeZone::UTC));
    let periods: Vec<Period> = before.into_iter().chain(running).collect();
    if periods.is_empty() {
        return Err(Failure::Failed(anyhow!("the clock shows no month")));
    }
    Ok(periods)
}

fn outcome(exceptions: &[ExceptionRow]) -> Outcome {
    if exceptions.is_empty() { Outcome::Done } else { Outcome::Found }
}

pub fn close(period: Period, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let key = config.operator_key().map_err(Failure::Usage)?;
    // It cannot be undone, and what comes for the month goes into a later one from then on.
    if period.bounds(&TimeZone::UTC).1 > config.now() {
        output::note(config.quiet, &format!("{period} is not over"));
    }
    let manifest = runtime
        .block_on(close::close(&lake, period, key.as_ref(), &|| config.now()))
        .with_context(|| format!("cannot close {period}"))?;
    output::text(&manifest)?;
    Ok(Outcome::Done)
}

/// A name that nobody has is a mistake of whoever typed it.
fn known_customer(customer: &str, config: &Config, runtime: &Runtime) -> Result<(), Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    if snapshot.book.book.accounts.iter().any(|account| account.customer == customer) {
        return Ok(());
    }
    Err(Failure::Usage(anyhow!(
        "no account of accounts.csv is of the customer '{customer}', and no line of the month"
    )))
}

pub fn statement(
    period: Period,
    out: Option<&Path>,
    customer: Option<&str>,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let mut lines =
        runtime.block_on(run::statement(&lake, period)).context("cannot read the ledger")?;
    if let Some(customer) = customer {
        lines.retain(|line| line.customer == customer);
        if lines.is_empty() {
            known_customer(customer, config, runtime)?;
        }
    }
    if let Some(out) = out.filter(|_| config.format != Format::Pdf)
        && (out.is_dir() || out.as_os_str().as_encoded_bytes().ends_with(b"/"))
    {
        let out = out.display();
        return Err(Failure::Usage(anyhow!(
            "{out} is a folder, and this format is one file: name it with --out FILE"
        )));
    }
    match (config.format.is_file(), out) {
        (true, Some(out)) => write_statement(period, &lines, customer, out, config, runtime)?,
        (true, None) => return Err(Failure::Usage(anyhow!("this format needs --out FILE"))),
        (false, Some(_)) => {
            return Err(Failure::Usage(anyhow!(
                "--out is for parquet, focus, xlsx and pdf; redirect the others"
            )));
        }
        (false, None) => {
            print_lines(&lines, config)?;
            if config.format == Format::Table && !config.quiet && !lines.is_empty() {
                note_coverage(period, customer, config, runtime)?;
            }
        }
    }
    Ok(Outcome::Done)
}

/// How much of the month stands on reports.
fn note_coverage(
    period: Period,
    customer: Option<&str>,
    config: &Config,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let snapshot = super::snapshot(config, runtime).map_err(Failure::into_error)?;
    let customers = super::compliance::of_customers(&snapshot, period, config, runtime)?;
    let of = customers.iter().filter(|(name, _)| customer.is_none_or(|only| only == name.as_str()));
    let (expected, covered) =
        of.fold((0, 0), |held, (_, (expected, covered))| (held.0 + expected, held.1 + covered));
    let share = share_text(covered, expected);
    if !share.is_empty() {
        output::note(
            config.quiet,
            &format!(
                "reports cover {share} of the time that devices had to account for; `rumledger coverage --period {period}` names the rest"
            ),
        );
    }
    Ok(())
}

/// Writes a statement as a file, whole or not at all.
fn write_statement(
    period: Period,
    lines: &[Line],
    customer: Option<&str>,
    out: &Path,
    config: &Config,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let bytes = match config.format {
        Format::Parquet => statement::parquet::write(lines)?,
        Format::Focus => {
            let snapshot = super::snapshot(config, runtime)?;
            statement::focus::write(period, lines, &snapshot.book.book, &config.parties)?
        }
        Format::Xlsx => {
            let snapshot = super::snapshot(config, runtime)?;
            let mut exceptions = runtime
                .block_on(run::exceptions_of(&snapshot, Some(period)))
                .context("cannot compute exceptions")?;
            let coverage =
                super::compliance::of_accounts(&snapshot, period, config.now(), runtime)?;
            // What may still come changes with the day that it is asked on; a statement is of its month.
            let mut coverage = coverage.without(&["period", "silent", "lost"]);
            if let Some(customer) = customer {
                // What is one customer's is no other's business.
                let accounts = snapshot.book.book.accounts.iter();
                let of_customer: HashSet<(&str, &str)> = accounts
                    .filter(|account| account.customer == customer)
                    .map(|account| (account.id.smart.as_str(), account.id.virtual_.as_str()))
                    .collect();
                exceptions
                    .retain(|e| of_customer.contains(&(&e.smart_account, &e.virtual_account)));
                let column = coverage.0.iter().position(|name| *name == "customer");
                coverage.1.retain(|row| column.is_some_and(|c| row[c] == customer));
            }
            statement::xlsx::write(period, lines, &exceptions, &coverage)?
        }
        _ => return write_pdf(period, lines, out, config, runtime),
    };
    statement::put(out, &bytes)?;
    output::note(config.quiet, &format!("{} lines in {}", lines.len(), out.display()));
    Ok(())
}

#[cfg(not(feature = "pdf"))]
fn write_pdf(_: Period, _: &[Line], _: &Path, _: &Config, _: &Runtime) -> Result<(), Failure> {
    Err(Failure::Usage(anyhow!("this rumledger was built without the feature pdf")))
}

/// One file, in which each customer has pages of its own; in a folder, a file for each customer.
#[cfg(feature = "pdf")]
fn write_pdf(
    period: Period,
    lines: &[Line],
    out: &Path,
    config: &Config,
    runtime: &Runtime,
) -> Result<(), Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let days = runtime
        .block_on(reconcile::shell::daily::daily(&snapshot, period))
        .context("cannot compute the days")?;
    let coverage = super::compliance::of_customers(&snapshot, period, config, runtime)?;
    let by_customer = (&days, &coverage);
    let head =
        Letterhead { issuer: &config.parties.invoice_issuer, fonts: config.pdf_fonts.as_deref() };
    if let Some(folder) = head.fonts.filter(|folder| !folder.is_dir()) {
        return Err(Failure::Usage(anyhow!("pdf_fonts: {} is no folder", folder.display())));
    }
    if !out.is_dir() && !out.as_os_str().to_string_lossy().ends_with('/') {
        let pdf = statement::pdf::write(period, lines, by_customer, head)?;
        statement::put(out, &pdf.bytes)?;
        tell_unknown(&pdf.unknown);
        output::note(config.quiet, &format!("{} lines in {}", lines.len(), out.display()));
        return Ok(());
    }
    std::fs::create_dir_all(out).with_context(|| format!("cannot make {}", out.display()))?;
    let customers = statement::customers(lines);
    let bar =
        output::progress(config.quiet, customers.len() as u64, "{wide_bar} {pos}/{len} customers");
    let mut unknown = BTreeSet::new();
    for (n, customer) in customers.iter().enumerate() {
        let of_customer: Vec<Line> =
            lines.iter().filter(|line| line.customer == *customer).cloned().collect();
        // A name is no path, and one of a file has 255 bytes at most.
        let name: String = customer
            .chars()
            .map(|c| if c.is_alphanumeric() { c } else { '-' })
            .take(FILE_NAME_CHARS_MAX)
            .collect();
        let file = out.join(format!("{period}-{n:04}-{name}.pdf"));
        let pdf = statement::pdf::write(period, &of_customer, by_customer, head)?;
        statement::put(&file, &pdf.bytes)?;
        unknown.extend(pdf.unknown);
        bar.inc(1);
    }
    bar.finish_and_clear();
    tell_unknown(&unknown);
    output::note(config.quiet, &format!("{} files in {}", customers.len(), out.display()));
    Ok(())
}

/// A name that cannot be read is no bill: whoever sends it has to know.
#[cfg(feature = "pdf")]
fn tell_unknown(unknown: &BTreeSet<char>) {
    const SHOWN_MAX: usize = 20;
    if unknown.is_empty() {
        return;
    }
    let shown: String = unknown.iter().take(SHOWN_MAX).collect();
    let more = unknown.len().saturating_sub(SHOWN_MAX);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let text = format!(
        "warning: no font here has {shown}{more}: boxes stand in their place; name a folder with fonts that have them by pdf_fonts (RUMLEDGER_PDF_FONTS)"
    );
    output::note(false, &text);
}

pub fn exceptions(
    period: Option<Period>,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let rows =
        runtime.block_on(run::exceptions(&lake, period)).context("cannot compute exceptions")?;
    print_exceptions(&rows, config.format)?;
    Ok(outcome(&rows))
}

pub fn print_exceptions(exceptions: &[ExceptionRow], format: Format) -> anyhow::Result<()> {
    output::rows(
        format,
        &Rows {
            columns: &EXCEPTION_COLUMNS,
            rows: exceptions
                .iter()
                .map(|e| {
                    let mut cells = e.cells().to_vec();
                    if format == Format::Table {
                        cells[4] = statement::tag_name(&e.entitlement).to_owned();
                    }
                    cells
                })
                .collect(),
            numbers: &["license_seconds"],
            ..Rows::default()
        },
    )
}

/// A statement; as a table, with the totals of each currency.
pub fn print_lines(lines: &[Line], config: &Config) -> anyhow::Result<()> {
    let mut rows: Vec<Vec<String>> = lines
        .iter()
        .map(|line| {
            let mut cells = line.cells().to_vec();
            if config.format == Format::Table {
                shorten(&mut cells);
            }
            cells
        })
        .collect();
    let mut columns = STATEMENT_COLUMNS.to_vec();
    let with_cause = match config.format {
        // The columns of the contract, and no other.
        Format::Csv => false,
        Format::Json => true,
        _ => lines.iter().any(|line| !line.cause.is_empty()),
    };
    if with_cause {
        columns.push("cause");
        for (row, line) in rows.iter_mut().zip(lines) {
            row.push(line.cause.clone());
        }
    }
    output::rows(
        config.format,
        &Rows { columns: &columns, rows, decimals: DECIMALS, hidden: HIDDEN, ..Rows::default() },
    )?;
    if config.format == Format::Table {
        for (currency, (count, total)) in totals(lines) {
            let total = money_text(total, currency);
            output::text(&format!("total {currency} {total} ({count} lines)"))?;
        }
    }
    Ok(())
}

fn totals(lines: &[Line]) -> BTreeMap<&str, (usize, i128)> {
    let mut totals: BTreeMap<&str, (usize, i128)> = BTreeMap::new();
    for line in lines {
        let total = totals.entry(&line.currency).or_default();
        total.0 += 1;
        total.1 += line.amount;
    }
    totals
}

/// For a screen: names instead of tags, quantities without trailing zeros.
fn shorten(cells: &mut [String]) {
    for (column, cell) in STATEMENT_COLUMNS.iter().zip(cells) {
        match *column {
            "entitlement" => *cell = statement::tag_name(cell).to_owned(),
            "consumed" | "purchased" | "quantity" => {
                *cell = cell.trim_end_matches('0').trim_end_matches('.').to_owned();
            }
            _ => {}
        }
    }
}
