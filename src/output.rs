//! Results to stdout, everything else to stderr.

use std::io::{self, IsTerminal as _, Write};

use anyhow::Context as _;
use comfy_table::{CellAlignment, ContentArrangement, Table, TableComponent, presets};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::{Map, Value};
use tracing_subscriber::EnvFilter;

use crate::cli::Format;

/// Logs go to stderr: lines for a person, or JSON for whoever collects them.
///
/// Commands warn only; a worker that runs for months tells what it does.
pub fn start_log(verbose: u8, streaming: bool, json: bool) {
    let level = match (verbose, streaming) {
        (0, false) => "off,ingest=warn,reconcile=warn,lake=warn,rumledger=warn",
        (0 | 1, _) => "error,ingest=info,reconcile=info,lake=info,rumledger=info",
        _ => "info",
    };
    let filter = EnvFilter::try_from_env("RUMLEDGER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let log =
        tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false);
    if json {
        log.json().flatten_event(true).init();
    } else {
        log.init();
    }
}

/// An error and its causes, for a person. Some libraries repeat a cause in the text of the error
/// above it; it is shown once.
pub fn error(error: &anyhow::Error) {
    let mut shown = error.to_string();
    let _ = writeln!(io::stderr(), "error: {shown}");
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !shown.contains(&cause) {
            let _ = writeln!(io::stderr(), "  because: {cause}");
            shown = cause;
        }
    }
    let whole: Vec<String> = error.chain().map(ToString::to_string).collect();
    if let Some(advice) = ::lake::advice(&whole.join("\n")) {
        let _ = writeln!(io::stderr(), "  what to do: {advice}");
    }
}

/// A remark that is no result.
pub fn note(quiet: bool, text: &str) {
    if !quiet {
        let _ = writeln!(io::stderr(), "{text}");
    }
}

/// Text that is a result.
pub fn text(text: &str) -> anyhow::Result<()> {
    finish(writeln!(io::stdout(), "{text}"))
}

/// Bytes that are a result.
pub fn bytes(bytes: &[u8]) -> anyhow::Result<()> {
    finish(io::stdout().write_all(bytes).and_then(|()| io::stdout().flush()))
}

/// A reader that closes the pipe early has seen enough.
fn finish(written: io::Result<()>) -> anyhow::Result<()> {
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => other.context("cannot write to stdout"),
    }
}

/// Rows of text.
#[derive(Default)]
pub struct Rows<'a> {
    pub columns: &'a [&'a str],
    pub rows: Vec<Vec<String>>,
    /// Columns that JSON gives as whole numbers, and tables align to the right.
    pub numbers: &'a [&'a str],
    /// Columns that tables align to the right too, and that are text in JSON, whatever their values: a JSON number is a
    /// float to most readers.
    pub decimals: &'a [&'a str],
    /// Columns of true and false.
    pub flags: &'a [&'a str],
    /// Columns that a table leaves out, so that it fits a screen.
    pub hidden: &'a [&'a str],
}

/// Writes rows in a format. JSON is a list of objects; blank cells are null there.
pub fn rows(format: Format, rows: &Rows<'_>) -> anyhow::Result<()> {
    match format {
        Format::Csv => finish(write_csv(rows)),
        Format::Json => {
            let list = rows
                .rows
                .iter()
                .map(|row| {
                    let object: Map<String, Value> = rows
                        .columns
                        .iter()
                        .zip(row)
                        .map(|(column, cell)| ((*column).to_owned(), json_cell(rows, column, cell)))
                        .collect();
                    Value::Object(object)
                })
                .collect();
            text(&serde_json::to_string_pretty(&Value::Array(list))?)
        }
        // Files are not written here: commands that have them do that.
        Format::Table | Format::Parquet | Format::Focus | Format::Xlsx | Format::Pdf => {
            text(&table(rows))
        }
    }
}

fn json_cell(rows: &Rows<'_>, column: &str, cell: &str) -> Value {
    if cell.is_empty() {
        return Value::Null;
    }
    if rows.numbers.contains(&column) {
        let number = cell.parse::<u64>().map(Value::from);
        return number.or_else(|_| cell.parse::<i64>().map(Value::from)).unwrap_or(cell.into());
    }
    if rows.flags.contains(&column)
        && let Ok(flag) = cell.parse::<bool>()
    {
        return flag.into();
    }
    cell.into()
}

fn write_csv(rows: &Rows<'_>) -> io::Result<()> {
    let mut writer = csv::Writer::from_writer(io::stdout().lock());
    let all = std::iter::once(rows.columns.to_vec());
    let rows = rows.rows.iter().map(|row| row.iter().map(String::as_str).collect());
    for row in all.chain(rows) {
        // The library's own conversion forgets what kind of error it was.
        writer.write_record(row).map_err(|error| match error.into_kind() {
            csv::ErrorKind::Io(error) => error,
            other => io::Error::other(format!("{other:?}")),
        })?;
    }
    writer.flush()
}

/// Rows as a table for a person.
pub fn table(rows: &Rows<'_>) -> String {
    let shown: Vec<usize> =
        (0..rows.columns.len()).filter(|&i| !rows.hidden.contains(&rows.columns[i])).collect();
    let mut table = Table::new();
    table
        .load_preset(presets::UTF8_HORIZONTAL_ONLY)
        .set_content_arrangement(ContentArrangement::Disabled);
    for line in [
        TableComponent::HorizontalLines,
        TableComponent::MiddleIntersections,
        TableComponent::LeftBorderIntersections,
        TableComponent::RightBorderIntersections,
    ] {
        table.remove_style(line);
    }
    table.set_header(shown.iter().map(|&i| rows.columns[i].replace('_', " ")));
    for row in &rows.rows {
        table.add_row(shown.iter().map(|&i| printable(&row[i])));
    }
    for (place, &i) in shown.iter().enumerate() {
        let kinds = [rows.numbers, rows.decimals];
        if kinds.iter().any(|columns| columns.contains(&rows.columns[i]))
            && let Some(column) = table.column_mut(place)
        {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    table.to_string()
}

/// Text from outside may hold control characters; a terminal shall not obey them.
fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect()
}

/// A counter without an end on a terminal, nothing elsewhere.
pub fn spinner(quiet: bool, template: &str) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(None, ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

/// A progress bar on a terminal, nothing elsewhere.
pub fn progress(quiet: bool, total: u64, template: &str) -> ProgressBar {
    if quiet || !io::stderr().is_terminal() {
        return ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::hidden());
    }
    let style =
        ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}
