//! The statement as a workbook: summary, lines, exceptions, adjustments, coverage.

use reconcile::shell::run::{EXCEPTION_COLUMNS, ExceptionRow};
use rust_xlsxwriter::{DocProperties, ExcelDateTime, Format, FormatAlign, Workbook, Worksheet};
use schemas::ledger::{Kind, Line, STATEMENT_COLUMNS};
use schemas::period::Period;
use schemas::quantity::money_text;

use super::{spreadsheet_number, totals};

const NUMBERS: &[&str] = &[
    "consumed",
    "purchased",
    "quantity",
    "amount",
    "verified_share",
    "license_seconds",
    "lines",
    "product_instances",
    "expected_seconds",
    "covered_seconds",
    "share",
    "unseen_license_seconds",
    "would_bill",
];
const SUMMARY_COLUMNS: [&str; 6] =
    ["customer", "currency", "lines", "amount", "adjustments", "verified_share"];

/// The file's bytes.
pub fn write(
    period: Period,
    lines: &[Line],
    exceptions: &[ExceptionRow],
    (coverage_columns, coverage): &(Vec<&str>, Vec<Vec<String>>),
) -> anyhow::Result<Vec<u8>> {
    let mut book = Workbook::new();
    // A fixed moment: the same statement gives the same bytes.
    let made = ExcelDateTime::from_ymd(2000, 1, 1)?;
    let title = format!("Statement {period}");
    book.set_properties(&DocProperties::new().set_title(&title).set_creation_datetime(&made));
    let adjustments: Vec<Line> =
        lines.iter().filter(|line| line.kind == Kind::Adjustment).cloned().collect();
    let of_adjustments = totals(&adjustments);
    let summary = totals(lines).into_iter().map(|((customer, currency), total)| {
        let key = (customer, currency);
        let adjusted = of_adjustments.get(&key).map_or(0, |total| total.amount);
        let share = total.verified_share();
        let (customer, currency) = key;
        let cells = [
            total.lines.to_string(),
            money_text(total.amount, &currency),
            money_text(adjusted, &currency),
            share,
        ];
        [customer, currency].into_iter().chain(cells).collect()
    });
    let summary: Vec<Vec<String>> = summary.collect();
    sheet(book.add_worksheet(), "Summary", &SUMMARY_COLUMNS, &summary)?;
    let cells = |lines: &[Line]| lines.iter().map(|l| l.cells().to_vec()).collect::<Vec<_>>();
    sheet(book.add_worksheet(), "Lines", &STATEMENT_COLUMNS, &cells(lines))?;
    let excepted: Vec<Vec<String>> = exceptions.iter().map(|e| e.cells().to_vec()).collect();
    sheet(book.add_worksheet(), "Exceptions", &EXCEPTION_COLUMNS, &excepted)?;
    let mut columns = vec!["cause", "corrects"];
    columns.extend(STATEMENT_COLUMNS);
    let adjusted: Vec<Vec<String>> = adjustments
        .iter()
        .map(|line| {
            let first = [line.cause.clone(), line.service_period.to_string()];
            first.into_iter().chain(line.cells()).collect()
        })
        .collect();
    sheet(book.add_worksheet(), "Adjustments", &columns, &adjusted)?;
    sheet(book.add_worksheet(), "Coverage", coverage_columns, coverage)?;
    Ok(book.save_to_buffer()?)
}

fn sheet(
    sheet: &mut Worksheet,
    name: &str,
    columns: &[&str],
    rows: &[Vec<String>],
) -> anyhow::Result<()> {
    sheet.set_name(name)?;
    let head = Format::new().set_bold();
    let text = Format::new().set_num_format("@");
    let right = Format::new().set_num_format("@").set_align(FormatAlign::Right);
    for (c, column) in (0u16..).zip(columns) {
        sheet.write_string_with_format(0, c, column.replace('_', " "), &head)?;
    }
    for (r, row) in (1u32..).zip(rows) {
        for ((c, column), cell) in (0u16..).zip(columns).zip(row) {
            let is_number = NUMBERS.contains(column) || *column == "adjustments";
            match (is_number, spreadsheet_number(cell)) {
                (true, Some(number)) => {
                    let places = cell.split_once('.').map_or(0, |(_, places)| places.len());
                    let shown = match places {
                        0 => "0".to_owned(),
                        n => format!("0.{}", "0".repeat(n)),
                    };
                    sheet.write_with_format(r, c, number, &Format::new().set_num_format(shown))?;
                }
                // More digits than a spreadsheet holds stay text: it would round them.
                (true, None) => {
                    sheet.write_string_with_format(r, c, cell, &right)?;
                }
                // Text, never a formula, whatever it begins with.
                (false, _) => {
                    sheet.write_string_with_format(r, c, cell, &text)?;
                }
            }
        }
    }
    sheet.set_freeze_panes(1, 0)?;
    if !rows.is_empty() {
        let (last_row, last_column) =
            (u32::try_from(rows.len())?, u16::try_from(columns.len())? - 1);
        sheet.autofilter(0, 0, last_row, last_column)?;
    }
    sheet.autofit();
    Ok(())
}
