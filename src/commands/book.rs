//! `book import`, `book show`.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context as _, anyhow};
use datafusion::prelude::SessionContext;
use lake::{Import, Lake};
use reconcile::shell::prices::{self, ChangedPrice, Imported};
use schemas::book::{Book, BookError, Cells, TABLES, as_tables, parse_csv, prices_as_written};
use schemas::period::rfc3339;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

/// Errors of a book that are named one by one; of more, the number is told.
const ERRORS_SHOWN_MAX: usize = 10_000;

pub fn import(
    dir: &Path,
    correct: Option<&str>,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let lake = super::open_lake(config)?;
    if correct.is_some_and(|reason| reason.trim().is_empty()) {
        return Err(Failure::Usage(anyhow!("--correct: say why")));
    }
    let (book, version) = import_from(dir, correct, &lake, config, runtime)?;
    output::note(
        config.quiet,
        &format!(
            "book version {version}: {} accounts, {} devices",
            book.accounts.len(),
            book.devices.len()
        ),
    );
    Ok(Outcome::Done)
}

/// Reads and checks a whole folder, and makes it the book in force.
/// A price that posted lines stand on stays as it is, unless `correct` says why it changes.
pub fn import_from(
    dir: &Path,
    correct: Option<&str>,
    lake: &Lake,
    config: &Config,
    runtime: &Runtime,
) -> anyhow::Result<(Book, u64)> {
    let (cells, errors) = read_dir(dir)?;
    let checked = Book::read_new(&cells);
    // Where the accounts could not be read, nothing can be said of what refers to them.
    let no_accounts = errors.iter().any(|e| e.file == "accounts.csv")
        && cells.get("accounts").is_none_or(Cells::is_empty);
    let follows = |e: &BookError| no_accounts && e.message.starts_with("accounts.csv has no");
    let of_rows = checked.as_ref().err().into_iter().flatten().filter(|e| !follows(e)).cloned();
    let mut errors: Vec<BookError> = errors.into_iter().chain(of_rows).collect();
    errors.sort();
    errors.dedup();
    match checked {
        Ok(book) if errors.is_empty() => {
            let import = Import {
                at: rfc3339(config.now()),
                by: config.operator.clone(),
                corrects: correct.unwrap_or_default().to_owned(),
            };
            let imported = runtime
                .block_on(prices::import(lake, &cells, &book, &import))
                .context("cannot import the book")?;
            match imported {
                Imported::InForce(version) => Ok((book, version)),
                Imported::Refused(changed) => Err(changes(dir, &changed)),
            }
        }
        _ => Err(refusal(dir, &errors)),
    }
}

fn changes(dir: &Path, changed: &[ChangedPrice]) -> anyhow::Error {
    let Some(first) = changed.first() else { return anyhow!("nothing was changed") };
    let how = if first.missing { "is missing" } else { "has other terms" };
    let more = match changed.len() {
        1 => String::new(),
        n => format!(", and so with {} more prices", n - 1),
    };
    anyhow!(
        "the price of {} stands under {} posted lines and {how} in {}{more}; nothing was changed. Add a price with a later valid_from beside it, or import with --correct REASON",
        first.name,
        first.lines,
        dir.display()
    )
}

fn refusal(dir: &Path, errors: &[BookError]) -> anyhow::Error {
    let mut text =
        format!("the book in {} has {} errors; nothing was changed", dir.display(), errors.len());
    for error in errors.iter().take(ERRORS_SHOWN_MAX) {
        text.push_str(&format!("\n  {error}"));
    }
    if errors.len() > ERRORS_SHOWN_MAX {
        text.push_str(&format!("\n  … and {} more", errors.len() - ERRORS_SHOWN_MAX));
    }
    anyhow!(text)
}

fn read_dir(dir: &Path) -> anyhow::Result<(BTreeMap<String, Cells>, Vec<BookError>)> {
    let mut errors = Vec::new();
    let mut cells = BTreeMap::new();
    let listing = std::fs::read_dir(dir)
        .with_context(|| format!("cannot read the folder {}", dir.display()))?;
    for entry in listing {
        let name =
            entry.with_context(|| format!("cannot read the folder {}", dir.display()))?.file_name();
        let name = name.to_string_lossy().into_owned();
        let known = TABLES.iter().any(|t| format!("{}.csv", t.name) == name);
        if name.ends_with(".csv") && !known {
            let names: Vec<String> = TABLES.iter().map(|t| format!("{}.csv", t.name)).collect();
            errors.push(BookError {
                file: name,
                line: 0,
                column: String::new(),
                message: format!("no file of a book; a book has {}", names.join(", ")),
            });
        }
    }
    for spec in TABLES {
        let path = dir.join(format!("{}.csv", spec.name));
        match std::fs::read(&path) {
            Ok(bytes) => {
                cells.insert(spec.name.to_owned(), parse_csv(spec, &bytes, &mut errors));
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", path.display()));
            }
        }
    }
    Ok((cells, errors))
}

pub fn show(table: Option<&str>, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    if let Some(table) = table {
        if !TABLES.iter().any(|t| t.name == table) {
            let names: Vec<&str> = TABLES.iter().map(|t| t.name).collect();
            return Err(Failure::Usage(anyhow!(
                "the book has no table '{table}'; it has {}",
                names.join(", ")
            )));
        }
        let session = SessionContext::new();
        for shown in as_tables(&snapshot.book.book)? {
            let rows = match shown.name {
                "book_prices" => prices_as_written(&snapshot.book.book, &shown.rows)?,
                _ => shown.rows,
            };
            session.register_batch(shown.name, rows).context("cannot show the book")?;
        }
        return super::sql::print(
            &session,
            &format!("SELECT * FROM book_{table}"),
            config,
            runtime,
        );
    }
    let version = snapshot.book.version.map_or_else(String::new, |v| v.to_string());
    let tables = as_tables(&snapshot.book.book)?;
    let rows = tables
        .iter()
        .map(|t| vec![t.name.to_owned(), t.rows.num_rows().to_string(), version.clone()])
        .collect();
    output::rows(
        config.format,
        &Rows {
            columns: &["table", "rows", "book_version"],
            rows,
            numbers: &["rows", "book_version"],
            ..Rows::default()
        },
    )?;
    Ok(Outcome::Done)
}
