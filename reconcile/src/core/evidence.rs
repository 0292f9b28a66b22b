//! What a line stands on, in the form in which it is hashed: the terms, what was purchased, and the
//! reports whose claims won.
//!
//! ```text
//! evidence_root = root of [terms, purchased, usage_root]
//! usage_root    = root of the reports' entries, in the order of their leaves' hashes
//! ```
//!
//! Entries are JSON without spaces, texts as they are and not escaped beyond what JSON asks for, so that
//! any other program can make the same bytes. No entry names a place in an input or a time of receipt: the
//! roots do not depend on the order in which reports came, or how often.

use std::fmt::Write as _;

use schemas::book::{Price, Span};
use schemas::merkle::{self, Hash};
use schemas::period::{EpochSeconds, Moment, rfc3339};
use schemas::quantity::minor_digits;
use serde_json::{Value, json};

use super::reference::Month;
use super::timeline::ReportFacts;

/// A stretch of time in which a report's claim counts: `[start, end)` and the licences.
pub type Stretch = (EpochSeconds, EpochSeconds, i64);

/// A quantity in force: the row of the book, `[start, end)`, licences.
pub type InForce = (String, Span, u64);

/// The hashes that a line carries.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Roots {
    pub evidence: Hash,
    pub usage: Hash,
    pub terms: Hash,
    pub purchased: Hash,
}

impl Roots {
    /// Of the entries of a line, and the leaves of its reports.
    #[must_use]
    pub fn new(terms: &str, purchased: &str, mut reports: Vec<Hash>) -> Roots {
        reports.sort_unstable();
        let usage = merkle::root(&reports);
        let terms = merkle::leaf(terms.as_bytes());
        let purchased = merkle::leaf(purchased.as_bytes());
        let of_usage = merkle::leaf(usage.to_string().as_bytes());
        Roots { evidence: merkle::root(&[terms, purchased, of_usage]), usage, terms, purchased }
    }

    /// Of a line whose target vanished: it has no terms, and nothing was purchased or used.
    #[must_use]
    pub fn vanished() -> Roots {
        Roots::new(NO_TERMS, NOTHING_PURCHASED, Vec::new())
    }
}

/// The entries of a vanished target.
pub const NO_TERMS: &str = "null";
pub const NOTHING_PURCHASED: &str = "[]";

/// How a quantity is measured and what it costs, for one segment of a month.
#[must_use]
pub fn terms_entry(price: &Price, plan: &str, segment: Span, month: &Month) -> String {
    let tiers: Vec<[String; 2]> = price
        .tiers
        .iter()
        .map(|tier| {
            let up_to = tier.up_to.map(|bound| bound.normalize().to_string()).unwrap_or_default();
            [up_to, tier.unit_price.normalize().to_string()]
        })
        .collect();
    let package = price.package_size.map(|size| size.normalize().to_string()).unwrap_or_default();
    let fields: [(&str, Value); 13] = [
        ("charge", json!(price.charge.as_str())),
        ("currency", json!(price.currency)),
        ("days", json!(month.day_starts)),
        ("item", json!(price.item)),
        ("measure", json!(price.measure.as_str())),
        ("minor_digits", json!(minor_digits(&price.currency))),
        ("month", json!([month.span.start, month.span.end])),
        ("package_size", json!(package)),
        ("plan", json!(plan)),
        ("segment", json!([segment.start, segment.end])),
        ("tier_mode", json!(price.tier_mode.as_str())),
        ("tiers", json!(tiers)),
        ("valid_from", json!(moment(&price.valid_from))),
    ];
    object(&fields)
}

/// An object whose keys stand in their order, whatever map JSON values are made with.
fn object(fields: &[(&str, Value)]) -> String {
    let fields: Vec<String> =
        fields.iter().map(|(key, value)| format!("{}:{value}", json!(key))).collect();
    format!("{{{}}}", fields.join(","))
}

/// A moment of the book, as it is hashed.
#[must_use]
pub fn moment(moment: &Moment) -> String {
    match moment {
        Moment::At(instant) => rfc3339(*instant),
        Moment::Date(day) => day.to_string(),
    }
}

/// The hash of a price: of its terms without segment and month.
#[must_use]
pub fn price_entry(price: &Price) -> String {
    let nothing = Span { start: 0, end: 0 };
    let month = Month { span: nothing, day_starts: Vec::new() };
    terms_entry(price, &price.plan, nothing, &month)
}

/// What was purchased or committed in a segment.
#[must_use]
pub fn purchased_entry(purchases: &[InForce], segment: Span) -> String {
    let mut rows: Vec<(EpochSeconds, EpochSeconds, &str, u64)> = purchases
        .iter()
        .map(|(id, span, quantity)| {
            (span.start.max(segment.start), span.end.min(segment.end), id.as_str(), *quantity)
        })
        .filter(|(start, end, _, quantity)| start < end && *quantity > 0)
        .collect();
    rows.sort_unstable();
    let rows: Vec<String> = rows
        .iter()
        .map(|(start, end, id, quantity)| format!("[{},{start},{end},{quantity}]", json!(id)))
        .collect();
    format!("[{}]", rows.join(","))
}

/// Writes the entry of a report: PI, report id, digest of the signed bytes, tag, mode, signature, and the
/// stretches that count, cut to the segment. Empty where none does.
pub fn write_report(
    entry: &mut String,
    (pid, serial): (&str, &str),
    tag: &str,
    facts: &ReportFacts,
    stretches: impl Iterator<Item = Stretch>,
) {
    entry.clear();
    let mut any = false;
    for (start, end, value) in stretches {
        if !any {
            entry.push('[');
            for text in [pid, serial] {
                write_text(entry, text);
                entry.push(',');
            }
            let _ = write!(entry, "\"{}\",\"{}\",", facts.report_id, facts.payload_sha256);
            write_text(entry, tag);
            let _ = write!(entry, ",{},\"{}\",[", facts.utility, signature_word(facts.verified));
        } else {
            entry.push(',');
        }
        let _ = write!(entry, "[{start},{end},{value}]");
        any = true;
    }
    if any {
        entry.push_str("]]");
    }
}

#[must_use]
pub fn signature_word(verified: bool) -> &'static str {
    if verified { "verified" } else { "unverifiable" }
}

fn write_text(entry: &mut String, text: &str) {
    if text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\') {
        entry.push('"');
        entry.push_str(text);
        entry.push('"');
    } else {
        let _ = write!(entry, "{}", json!(text));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn facts() -> ReportFacts {
        ReportFacts {
            report_id: u64::MAX,
            pi: 0,
            tag: 0,
            subscription: 0,
            header_account: None,
            utility: true,
            verified: false,
            payload_sha256: Hash([0xab; 32]),
        }
    }

    #[test]
    fn entries_are_json_without_spaces() {
        let mut entry = String::new();
        let stretches = [(10, 20, 3), (30, 40, 1)];
        write_report(&mut entry, ("C9300\"x", "é\n"), "t", &facts(), stretches.into_iter());
        let digest = "ab".repeat(32);
        assert_eq!(
            entry,
            format!(
                r#"["C9300\"x","é\n","18446744073709551615","{digest}","t",true,"unverifiable",[[10,20,3],[30,40,1]]]"#
            )
        );
        assert!(serde_json::from_str::<Value>(&entry).is_ok());
        write_report(&mut entry, ("a", "b"), "t", &facts(), [].into_iter());
        assert_eq!(entry, "");
    }

    #[test]
    fn purchases_are_cut_to_the_segment() {
        let all = [
            ("b".to_owned(), Span { start: 0, end: i64::MAX }, 5),
            ("a".to_owned(), Span { start: 150, end: 160 }, 2),
            ("c".to_owned(), Span { start: 200, end: 300 }, 2),
        ];
        let segment = Span { start: 100, end: 200 };
        assert_eq!(purchased_entry(&all, segment), r#"[["b",100,200,5],["a",150,160,2]]"#);
    }
}
