//! The statement as PDF, typeset by typst: for each customer its totals, its days, its lines.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::anyhow;
use reconcile::shell::compliance_tables::share_text;
use reconcile::shell::daily::Day;
use schemas::ledger::{Kind, Line};
use schemas::period::Period;
use schemas::quantity::money_text;
use serde_json::{Value, json};
use typst_as_lib::TypstEngine;
use typst_as_lib::typst_kit_options::TypstKitFontOptions;
use typst_library::layout::{Frame, FrameItem};

use super::{customers, short, tag_name, totals, unit};

const TEMPLATE: &str = include_str!("statement.typ");

/// Of each customer the time that its devices had to account for, and what of it reports cover, in seconds.
pub type Covered = BTreeMap<String, (i64, i64)>;

/// Who sends the bill, and the folder of fonts for what those that are built in lack.
#[derive(Clone, Copy)]
pub struct Letterhead<'a> {
    pub issuer: &'a str,
    pub fonts: Option<&'a Path>,
}

/// A file as it is written.
pub struct Pdf {
    pub bytes: Vec<u8>,
    /// Characters that no font has; boxes stand in their place.
    pub unknown: BTreeSet<char>,
}

/// The file of some customers, each on pages of its own.
pub fn write(
    period: Period,
    lines: &[Line],
    (days, coverage): (&BTreeMap<String, Vec<Day>>, &Covered),
    Letterhead { issuer, fonts }: Letterhead<'_>,
) -> anyhow::Result<Pdf> {
    let data = json!({
        "period": period.to_string(),
        "issuer": issuer,
        "customers": customers(lines)
            .into_iter()
            .map(|customer| {
                let covered = coverage.get(customer).copied();
                of_customer(customer, lines, days.get(customer), covered)
            })
            .collect::<Vec<_>>(),
    });
    let data = serde_json::to_vec(&data)?;
    let engine = TypstEngine::builder()
        .main_file(TEMPLATE)
        .with_static_file_resolver([("statement.json", data.as_slice())])
        .search_fonts_with(
            // Not those of the machine: a statement looks the same wherever it is made.
            TypstKitFontOptions::default()
                .include_system_fonts(false)
                .include_dirs(fonts)
                .include_embedded_fonts(true),
        )
        .build();
    let document = engine.compile().output.map_err(|e| anyhow!("typst cannot set it: {e}"))?;
    let bytes = typst_pdf::pdf(&document, &typst_pdf::PdfOptions::default())
        .map_err(|errors| anyhow!("typst cannot write it: {errors:?}"))?;
    let mut unknown = BTreeSet::new();
    document.pages().iter().for_each(|page| gather_unknown(&page.frame, &mut unknown));
    Ok(Pdf { bytes, unknown })
}

/// Glyph 0 of every font stands for what the font lacks (OpenType, `.notdef`).
fn gather_unknown(frame: &Frame, unknown: &mut BTreeSet<char>) {
    for (_, item) in frame.items() {
        match item {
            FrameItem::Group(group) => gather_unknown(&group.frame, unknown),
            FrameItem::Text(text) => {
                let missing = text.glyphs.iter().filter(|glyph| glyph.id == 0);
                let of_text = missing.filter_map(|glyph| text.text.get(glyph.range()));
                unknown.extend(of_text.flat_map(str::chars));
            }
            _ => {}
        }
    }
}

fn of_customer(
    customer: &str,
    lines: &[Line],
    days: Option<&Vec<Day>>,
    coverage: Option<(i64, i64)>,
) -> Value {
    let lines: Vec<&Line> = lines.iter().filter(|line| line.customer == customer).collect();
    let owned: Vec<Line> = lines.iter().map(|line| (*line).clone()).collect();
    let of_currency = totals(&owned).into_iter().map(|((_, currency), total)| {
        json!({
            "currency": currency,
            "amount": money_text(total.amount, &currency),
            "lines": total.lines,
            "verified": percent(&total.verified_share()),
        })
    });
    let row = |line: &&Line| {
        json!({
            "account": format!("{}/{}", line.key.smart_account, line.key.virtual_account),
            "item": tag_name(&line.key.item),
            "subscription": line.key.subscription_id,
            "charge": line.key.charge.as_str(),
            "kind": match line.kind {
                Kind::Charge => String::new(),
                Kind::Adjustment => format!("corrects {} ({})", line.service_period, line.cause),
            },
            "consumed": short(line.consumed),
            "purchased": short(line.purchased),
            "quantity": short(line.quantity),
            "unit": unit(line),
            "amount": format!("{} {}", line.currency, money_text(line.amount, &line.currency)),
            "line": line.line_id,
        })
    };
    let days = days.map(Vec::as_slice).unwrap_or_default();
    json!({
        "name": customer,
        "totals": of_currency.collect::<Vec<_>>(),
        "covered": coverage.map_or_else(String::new, |(expected, covered)| {
            percent(&share_text(covered, expected))
        }),
        "lines": lines.iter().map(row).collect::<Vec<_>>(),
        "days": days
            .iter()
            .map(|day| json!([clamp(day.consumed), clamp(day.purchased)]))
            .collect::<Vec<_>>(),
    })
}

/// `0.950648` as `95.06 %`, cut, never rounded up to the whole.
fn percent(share: &str) -> String {
    let Some((whole, places)) = share.split_once('.') else { return String::new() };
    let digits = format!("{whole}{places}");
    let (percent, rest) = digits.split_at(digits.len() - 4);
    let percent = percent.trim_start_matches('0');
    format!("{}.{} %", if percent.is_empty() { "0" } else { percent }, &rest[..2])
}

/// The chart is drawn, not computed with: what does not fit is drawn as the most that does.
fn clamp(licenses: i128) -> i64 {
    i64::try_from(licenses).unwrap_or(i64::MAX)
}
