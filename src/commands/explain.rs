//! `explain`, `export proof`: from a ledger line down to the signed reports under it.

use ::ingest::shell::recheck::{Kept, SignedReport, signed_reports};
use ::ingest::shell::trust::Newest;
use anyhow::{Context as _, anyhow};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rayon::iter::{
    IndexedParallelIterator as _, IntoParallelRefIterator as _, ParallelIterator as _,
};
use reconcile::ReconcileError;
use reconcile::shell::explain::{Explained, ExplainedReport, ExplainedTarget, explain};
use reconcile::shell::ledger as lines;
use schemas::ledger::{Line, STATEMENT_COLUMNS};
use schemas::merkle::{self, Hash};
use schemas::period::rfc3339;
use schemas::quantity::{QUANTITY_SCALE, decimal_text, money_text};
use serde_json::{Value, json};
use tokio::runtime::Runtime;

use crate::cli::{Failure, Format, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};
use crate::statement::short;

/// Reports that a table shows; JSON has all.
const REPORTS_SHOWN_MAX: usize = 50;

/// A line with what is under it, and the signature of each of its reports where it was verified.
struct Found {
    explained: Explained,
    signed: Vec<Option<SignedReport>>,
}

impl Found {
    fn reports(&self) -> impl Iterator<Item = (&ExplainedReport, Option<&SignedReport>)> {
        self.explained.reports.iter().zip(self.signed.iter().map(Option::as_ref))
    }
}

fn fetch(line_id: &str, config: &Config, runtime: &Runtime) -> Result<Found, Failure> {
    let lake = super::existing_lake(config, runtime)?;
    let cache_dir = lake.cache_dir(&config.cache_dir);
    // Asked for now: it is there when the reports are.
    let newest = runtime.spawn({
        let lake = lake.clone();
        async move { Newest::load(&lake).await }
    });
    let explained = match runtime.block_on(explain(&lake, &cache_dir, line_id)) {
        Err(error @ (ReconcileError::NoLine(_) | ReconcileError::Differs(_))) => {
            return Err(Failure::Failed(error.into()));
        }
        other => other.with_context(|| format!("cannot explain {line_id}"))?,
    };
    let kept: Vec<Kept<'_>> = explained
        .reports
        .iter()
        .map(|report| Kept { raw: &report.raw, received_at: report.received_at })
        .collect();
    let (limits, rules) = (&config.limits.report, &config.rules);
    let signed = runtime.block_on(async {
        let newest = newest.await??;
        Ok::<_, anyhow::Error>(
            signed_reports(&lake, &newest, &explained.book, &kept, limits, rules).await?,
        )
    });
    let mut signed = signed.context("cannot look at the signatures again")?;
    for (report, signed) in explained.reports.iter().zip(&mut signed) {
        signed.take_if(|_| !report.verified);
    }
    Ok(Found { explained, signed })
}

pub fn run(line_id: &str, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let found = fetch(line_id, config, runtime)?;
    match config.format {
        Format::Table => output::text(&table(&found))?,
        Format::Csv => output::rows(config.format, &counts(&found))?,
        _ => output::text(&serde_json::to_string_pretty(&as_json(&found))?)?,
    }
    // The process ends here. To take the book and the reports apart first would cost a twentieth of its time.
    std::mem::forget(found);
    Ok(Outcome::Done)
}

fn money(amount: i128, line: &Line) -> String {
    money_text(amount, &line.currency)
}

fn quantity(value: i128) -> String {
    decimal_text(value, QUANTITY_SCALE)
}

/// The exact product of a tier, 18 places, without the zeros at its end.
fn exact(text: &str) -> String {
    let (sign, digits) = text.strip_prefix('-').map_or(("", text), |digits| ("-", digits));
    let padded = format!("{digits:0>19}");
    let (whole, places) = padded.split_at(padded.len() - 18);
    let number = format!("{whole}.{places}");
    format!("{sign}{}", number.trim_end_matches('0').trim_end_matches('.'))
}

fn as_json(found: &Found) -> Value {
    let explained = &found.explained;
    let line = &explained.line;
    json!({
        "line": line.record(),
        "earlier_lines": explained.earlier.iter().map(Line::record).collect::<Vec<_>>(),
        "target": explained.target.as_ref().map(|target| target_json(target, line)),
        "posted_before": { "quantity": quantity(line.quantity_before), "amount": money(line.amount_before, line) },
        "reports": explained
            .reports
            .par_iter()
            .zip(&found.signed)
            .map(|(report, signed)| report_json(report, signed.as_ref()))
            .collect::<Vec<_>>(),
        "entries": { "terms": explained.terms_entry, "purchased": explained.purchased_entry },
    })
}

fn target_json(target: &ExplainedTarget, line: &Line) -> Value {
    json!({
        "quantity": quantity(target.quantity),
        "amount": money(target.amount, line),
        "measure": target.measure.as_str(),
        "tier_mode": target.price.tier_mode.as_str(),
        "package_size": target.price.package_size.map(|size| size.normalize().to_string()),
        "price_plan": line.price_plan,
        "segment": [rfc3339(target.segment.start), rfc3339(target.segment.end)],
        "month": [rfc3339(target.month.start), rfc3339(target.month.end)],
        "tiers": target.tiers.iter().map(|tier| json!({
            "units": quantity(tier.units),
            "unit_price": tier.unit_price.to_string(),
            "amount_exact": exact(&tier.exact.to_string()),
        })).collect::<Vec<_>>(),
        "measured": {
            "parts": target.parts.iter().map(|part| json!({
                "start": rfc3339(part.start),
                "end": rfc3339(part.end),
                "licenses": part.value.to_string(),
                "times": part.weight.to_string(),
            })).collect::<Vec<_>>(),
            "divided_by": target.divisor.to_string(),
        },
        "pieces": target.pieces.iter().map(|piece| json!({
            "start": rfc3339(piece.start),
            "end": rfc3339(piece.end),
            "consumed": piece.consumed.to_string(),
            "verified": piece.verified.to_string(),
            "purchased": piece.purchased.to_string(),
            "delta": piece.delta().to_string(),
        })).collect::<Vec<_>>(),
    })
}

fn report_json(report: &ExplainedReport, signed: Option<&SignedReport>) -> Value {
    json!({
        "udi_pid": report.udi.pid,
        "udi_serial": report.udi.serial,
        "report_id": report.report_id,
        "entitlement_tag": report.tag,
        "utility": report.utility,
        "signature": reconcile::core::evidence::signature_word(report.verified),
        "payload_sha256": report.payload_sha256,
        "position": {
            "source": report.source,
            "partition": report.partition,
            "offset": report.offset,
        },
        "collector": report.collector,
        "received_at": rfc3339(report.received_at),
        "counts": report.stretches.iter().map(|(start, end, value)| json!({
            "start": rfc3339(*start),
            "end": rfc3339(*end),
            "licenses": value.to_string(),
        })).collect::<Vec<_>>(),
        "trust_code": signed.map(|signed| json!({
            "signer": signed.signer.to_string(),
            "algorithm": signed.trust_code.algorithm.as_str(),
            "public_key": signed.trust_code.public_key,
            "valid_from": rfc3339(signed.trust_code.valid_from),
            "valid_to": signed.trust_code.valid_to.map(rfc3339),
        })),
        "raw": match std::str::from_utf8(&report.raw) {
            Ok(text) => json!(text),
            Err(_) => json!({ "base64": STANDARD.encode(&report.raw) }),
        },
    })
}

/// Columns of the reports under a line, a row for each stretch in which one counts.
const COUNT_COLUMNS: [&str; 15] = [
    "udi_pid",
    "udi_serial",
    "report_id",
    "entitlement_tag",
    "utility",
    "signature",
    "payload_sha256",
    "source",
    "partition",
    "offset",
    "collector",
    "received_at",
    "start",
    "end",
    "licenses",
];

fn counts(found: &Found) -> Rows<'static> {
    let of_report = |report: &ExplainedReport| {
        let head = [
            report.udi.pid.clone(),
            report.udi.serial.clone(),
            report.report_id.to_string(),
            report.tag.clone(),
            report.utility.to_string(),
            reconcile::core::evidence::signature_word(report.verified).to_owned(),
            report.payload_sha256.clone(),
            report.source.clone(),
            report.partition.map(|partition| partition.to_string()).unwrap_or_default(),
            report.offset.to_string(),
            report.collector.clone().unwrap_or_default(),
            rfc3339(report.received_at),
        ];
        let stretches = report.stretches.iter().map(|(start, end, value)| {
            let mut cells = head.to_vec();
            cells.extend([rfc3339(*start), rfc3339(*end), value.to_string()]);
            cells
        });
        stretches.collect::<Vec<_>>()
    };
    let rows = found.explained.reports.iter().flat_map(of_report).collect();
    Rows { columns: &COUNT_COLUMNS, rows, ..Rows::default() }
}

/// For a person: the way from the amount down.
fn table(found: &Found) -> String {
    let explained = &found.explained;
    let line = &explained.line;
    let mut text = String::new();
    let mut say = |what: &str| {
        text.push_str(what);
        text.push('\n');
    };
    say(&format!("line {}", line.line_id));
    for (column, cell) in STATEMENT_COLUMNS.iter().zip(line.cells()).skip(1) {
        if !cell.is_empty() {
            say(&format!("  {column:16} {}", cell.escape_debug()));
        }
    }
    if !line.cause.is_empty() {
        say(&format!("  {:16} {} of {}", "cause", line.cause, line.service_period));
    }
    say("");
    for earlier in &explained.earlier {
        say(&format!(
            "posted before    {} {} for {} in {} (line {})",
            line.currency,
            money(earlier.amount, line),
            short(earlier.quantity),
            earlier.posted_period,
            earlier.line_id
        ));
    }
    let Some(target) = &explained.target else {
        say("target           0: nothing is due any more; the line takes back what was posted");
        return text;
    };
    say(&format!(
        "target           {} {} for {} ({}, {} prices)",
        line.currency,
        money(target.amount, line),
        short(target.quantity),
        target.measure.as_str(),
        target.price.tier_mode.as_str()
    ));
    if let Some(size) = target.price.package_size {
        say(&format!("  packages       of {}", size.normalize()));
    }
    for tier in &target.tiers {
        say(&format!(
            "  tier           {} x {} = {}",
            short(tier.units),
            tier.unit_price,
            exact(&tier.exact.to_string())
        ));
    }
    say(&format!("measured         the sum of these, divided by {}", target.divisor));
    for part in &target.parts {
        say(&format!(
            "  {} – {}  {} x {}",
            rfc3339(part.start),
            rfc3339(part.end),
            part.value,
            part.weight
        ));
    }
    say("consumed, purchased, and the difference");
    for piece in &target.pieces {
        say(&format!(
            "  {} – {}  {} - {} = {}",
            rfc3339(piece.start),
            rfc3339(piece.end),
            piece.consumed,
            piece.purchased,
            piece.delta()
        ));
    }
    say(&format!("reports          {} count", explained.reports.len()));
    for (report, signed) in found.reports().take(REPORTS_SHOWN_MAX) {
        let trust = signed.map_or_else(String::new, |signed| {
            let code = &signed.trust_code;
            format!(
                " by the {} trust code of {} from {}",
                code.algorithm.as_str(),
                signed.signer,
                rfc3339(code.valid_from)
            )
        });
        say(&format!(
            "  {} report {}: {}{trust}",
            report.udi,
            report.report_id,
            reconcile::core::evidence::signature_word(report.verified)
        ));
        say(&format!(
            "    sha256 {} at {} offset {}",
            report.payload_sha256,
            report.source.escape_debug(),
            report.offset
        ));
        for (start, end, value) in &report.stretches {
            say(&format!("    {} – {}  {value}", rfc3339(*start), rfc3339(*end)));
        }
    }
    if explained.reports.len() > REPORTS_SHOWN_MAX {
        say(&format!(
            "  … and {} more; --format json has all, with their bytes",
            explained.reports.len() - REPORTS_SHOWN_MAX
        ));
    }
    text.truncate(text.trim_end().len());
    text
}

/// Writes everything that it takes to check a line without rumledger.
pub fn proof(line_id: &str, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let found = fetch(line_id, config, runtime)?;
    let explained = &found.explained;
    let lake = super::existing_lake(config, runtime)?;
    let line = &explained.line;
    let (all, manifest) = runtime.block_on(async {
        let table = lake.table(schemas::ledger::TABLE).await?;
        let all = lines::posted_into(table.as_ref(), line.posted_period).await?;
        let manifest = match &table {
            Some(table) => lines::manifest(table, line.posted_period).await?,
            None => None,
        };
        anyhow::Ok((all, manifest))
    })?;
    let leaves: Vec<Hash> = all.iter().filter_map(Line::leaf).collect();
    let index = all.iter().position(|other| other.line_id == line.line_id);
    let path = index.and_then(|index| merkle::path(&leaves, index));
    let (Some(index), Some(path)) = (index, path) else {
        return Err(Failure::Failed(anyhow!("line {line_id} is not among those of its period")));
    };
    let manifest: Option<Value> =
        manifest.map(|text| serde_json::from_str(&text)).transpose().context("the manifest")?;
    let mut proof = json!({
        "format": "rumledger proof 1",
        "line": line.record(),
        "period": {
            "index": index,
            "size": leaves.len(),
            "path": path.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "root": merkle::root(&leaves).to_string(),
        },
        "manifest": manifest,
        "terms": explained.terms_entry,
        "purchased": explained.purchased_entry,
        "reports": found.reports().map(|(report, signed)| {
            json!({
                "entry": report.entry(),
                "payload": signed.map(|s| String::from_utf8_lossy(&s.payload).into_owned()),
                "signature": signed.map(|s| &s.signature),
                "signer": signed.map(|s| s.signer.to_string()),
                "algorithm": signed.map(|s| s.trust_code.algorithm.as_str()),
                "public_key": signed.map(|s| &s.trust_code.public_key),
            })
        }).collect::<Vec<_>>(),
    });
    // Against damage on the way; what proves the line is checked beside it.
    let digest = merkle::digest(proof.to_string().as_bytes());
    proof["sha256"] = json!(digest.to_string());
    output::text(&proof.to_string())?;
    Ok(Outcome::Done)
}
