//! What holds of any usage in an eventful month.

use std::collections::BTreeMap;

use proptest::prelude::*;
use reconcile::core::adjust::Ledger;
use schemas::book::Book;
use schemas::period::Period;

use super::{Claimed, PRICES, PURCHASES, SUBSCRIPTIONS, book, claim, compute, lines};

/// A made-up month: devices with moves, two pools, prices that come and go.
fn eventful() -> Book {
    let devices = "udi_pid,udi_serial,smart_account,virtual_account,valid_from,valid_to,managed_by,license_model,transport,channel
P,A,sa,va,2026-01-01,2026-09-12,cslu,slp,cslu,direct
P,A,sa,vb,2026-09-12,,cslu,slp,cslu,direct
P,B,sa,vb,2026-09-05,,cslu,slp,cslu,direct
";
    book(&[
        (
            "accounts",
            "smart_account,virtual_account,customer,currency,time_zone\nsa,va,V,USD,America/New_York\nsa,vb,W,EUR,Europe/Berlin\n",
        ),
        ("devices", devices),
        (
            "subscriptions",
            &format!(
                "{SUBSCRIPTIONS}S1,sa,va,ADV,COMMITTED,2,p,2026-01-01,2026-09-20\nS2,sa,vb,ADV,UNCOMMITTED,,q,2026-09-08,\n"
            ),
        ),
        (
            "purchases",
            &format!("{PURCHASES}1,sa,va,PLUS,1,2026-01-01,,p\n2,sa,vb,HSEC,1,2026-09-10,,q\n"),
        ),
        (
            "prices",
            &format!(
                "{PRICES}p,ADV,usage,2026-01-01,average,flat,,3,,USD\np,ADV,commit,2026-01-01,peak,flat,,1,,USD\nq,ADV,usage,2026-09-15,license-days,flat,,2,,EUR\nq,HSECK9,usage,2026-01-01,peak,flat,,5,,EUR\n"
            ),
        ),
    ])
}

prop_compose! {
    fn any_claim()(
        serial in prop::sample::select(vec!["A", "B", "C"]),
        tag in prop::sample::select(vec!["ADV", "PLUS", "HSEC", "HSEC4", "UNKNOWN"]),
        id in 1u64..5, start in 0i64..40 * 24, hours in 1i64..20 * 24, value in 0i64..5, verified: bool,
    ) -> Claimed {
        let mut claim = claim(serial, tag, "2026-08-25", "2026-08-26", value);
        claim.start += start * 3600;
        claim.end = claim.start + hours * 3600;
        claim.facts.report_id = id;
        claim.facts.verified = verified;
        claim
    }
}

/// Net quantity and amount of each key that is not nothing.
fn totals(ledger: &Ledger) -> BTreeMap<String, (i128, i128)> {
    ledger
        .posted
        .iter()
        .filter(|(_, p)| (p.quantity, p.amount) != (0, 0))
        .map(|((key, currency), p)| (format!("{key:?} {currency}"), (p.quantity, p.amount)))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    /// Any order, any copies, and any split into deliveries, closed in between or not, give the same
    /// totals; a second run posts nothing; lines sum to the targets.
    #[test]
    fn the_ledger_does_not_depend_on_how_reports_came(
        claims in prop::collection::vec(any_claim(), 0..10),
        copies in prop::collection::vec(0usize..10, 0..4),
        cut in 0usize..10,
        close_between: bool,
    ) {
        let book = eventful();
        let at_once = {
            let mut ledger = Ledger::default();
            lines(&book, "2026-09", &claims, &ledger).iter().for_each(|l| ledger.take(l));
            ledger
        };
        let mut delivered: Vec<Claimed> = claims.iter().rev().take(cut).cloned().collect();
        let mut ledger = Ledger::default();
        lines(&book, "2026-09", &delivered, &ledger).iter().for_each(|l| ledger.take(l));
        if close_between {
            ledger.closed.insert("2026-09".parse().unwrap());
        }
        delivered.extend(copies.iter().filter_map(|&i| claims.get(i).cloned()));
        delivered.extend(claims.iter().rev().skip(cut).cloned());
        let second = lines(&book, "2026-09", &delivered, &ledger);
        if close_between {
            prop_assert!(second.iter().all(|l| l.posted_period.to_string() == "2026-10"));
        }
        second.iter().for_each(|l| ledger.take(l));
        prop_assert_eq!(totals(&ledger), totals(&at_once));
        prop_assert_eq!(lines(&book, "2026-09", &delivered, &ledger), vec![]);
        let targets = compute(&book, "2026-09".parse().unwrap(), &claims).targets;
        let sum: i128 = targets.iter().map(|t| t.amount).sum();
        prop_assert_eq!(ledger.posted.values().map(|p| p.amount).sum::<i128>(), sum);
    }

    /// usage = ∫ min(Q, P) + billed ∫ D + excepted, to the licence-second (contract 3.10), where usage
    /// is counted hour by hour from the claims themselves.
    #[test]
    fn every_licence_second_is_accounted_for(claims in prop::collection::vec(any_claim(), 0..10)) {
        let book = eventful();
        let period: Period = "2026-09".parse().unwrap();
        let charges = compute(&book, period, &claims);
        for (account, zone) in [(0, "America/New_York"), (1, "Europe/Berlin")] {
            let (from, to) = period.bounds(&jiff::tz::TimeZone::get(zone).unwrap());
            // Claims start and end on the hour, and so do months and moves here.
            let mut usage: BTreeMap<&str, i128> = BTreeMap::new();
            for hour in (from..to).step_by(3600) {
                for serial in ["A", "B", "C"] {
                    let holder = match serial {
                        "A" if hour < 1_789_164_000 => Some(0),
                        "A" => Some(1),
                        "B" if hour >= 1_788_559_200 => Some(1),
                        _ => None,
                    };
                    for (item, tags) in [("ADV", &["ADV"][..]), ("PLUS", &["PLUS"]), ("HSECK9", &["HSEC", "HSEC4"])] {
                        let value = claims
                            .iter()
                            .filter(|c| c.group == serial && tags.contains(&c.facts.tag.as_str()))
                            .filter(|c| c.start <= hour && hour < c.end)
                            .map(|c| i128::from(c.value))
                            .max();
                        if holder == Some(account) {
                            *usage.entry(item).or_default() += value.unwrap_or(0) * 3600;
                        }
                    }
                }
            }
            for (item, seconds) in usage {
                let balance = charges.balances.get(&(account, item.to_owned())).copied().unwrap_or_default();
                let excepted: i128 = charges
                    .exceptions
                    .iter()
                    .filter(|(k, _)| k.account == Some(account) && k.item == item)
                    .map(|(_, s)| s)
                    .sum();
                prop_assert_eq!(balance.covered + balance.billed + excepted, seconds, "{} {}", account, item);
                prop_assert_eq!(balance.consumed, balance.covered + balance.billed + balance.unpriced);
            }
        }
    }
}
