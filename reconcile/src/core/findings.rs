//! Breaches of the programme's rules, from what the PIs reported and what the book says.
//!
//! One finding a rule, PI, entitlement and account, with the first and the last time that it was seen. Every rule is
//! a function of its own below, in the order of the table in `schemas::finding`.

mod lost;
mod rights;
mod told;

use std::collections::{BTreeMap, BTreeSet, HashSet};

use schemas::book::{AuthorizationKind, Duration, Enforcement, LicenseModel, Span};
use schemas::finding::Rule;
use schemas::period::EpochSeconds;
use schemas::programme::{
    self, COLLECTORS, Family, PAK_BY_SNAPSHOT, PLR_CODE_VERSION, PLR_OLD_CODES, PLR_RELEASE,
    is_older_version, is_throttled, takes_pak_snapshots, transports_after_upgrade,
};
use schemas::udi::Udi;

use self::lost::{gaps, refused};
use self::rights::authorized;
use self::told::{clock, moved, overlaps};
use super::deadlines::DAY;
use super::history::{Fleet, Heard, Pi, Use, by_holder};
use super::reference::Reference;

pub use self::lost::convertible;

/// Reports that a finding names; more are counted only.
pub const REPORTS_MAX: usize = 20;
/// A jump of ids by more than this is a numbering begun anew, and no loss of so many reports.
pub const ID_GAP_MAX: u64 = 10_000;

/// A breach of a rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub rule: Rule,
    pub account: Option<usize>,
    /// `None` of an account as a whole.
    pub udi: Option<Udi>,
    /// Tag or item, or blank.
    pub entitlement: String,
    pub since: EpochSeconds,
    pub last: EpochSeconds,
    /// At stake; of lost reports, how many.
    pub licenses: i64,
    /// Ids of the first reports that show it, in order.
    pub reports: Vec<u64>,
    pub reports_total: usize,
    pub detail: String,
    pub utility: bool,
}

/// What is said of one rule, PI, entitlement and account so far.
#[derive(Debug)]
struct Shown {
    since: EpochSeconds,
    last: EpochSeconds,
    licenses: i64,
    reports: BTreeSet<u64>,
    detail: String,
    utility: bool,
}

/// The findings of one PI under collection.
struct Found<'p> {
    pi: &'p Pi<'p>,
    /// Who held it when.
    holders: Vec<(Option<usize>, Span)>,
    shown: BTreeMap<(Rule, String, Option<usize>), Shown>,
}

impl<'p> Found<'p> {
    fn new(pi: &'p Pi<'p>) -> Found<'p> {
        Found { pi, holders: pi.holders(), shown: BTreeMap::new() }
    }

    /// Adds a stretch of time in which a report shows a breach, to each account that held the PI in it.
    fn add(
        &mut self,
        rule: Rule,
        heard: &Heard,
        when: (EpochSeconds, EpochSeconds),
        licenses: i64,
        detail: impl Fn() -> String,
    ) {
        for (account, part) in by_holder(&self.holders, when) {
            self.add_part(rule, heard, (account, part), licenses, &detail);
        }
    }

    fn add_part(
        &mut self,
        rule: Rule,
        heard: &Heard,
        (account, (since, last)): (Option<usize>, (EpochSeconds, EpochSeconds)),
        licenses: i64,
        detail: &dyn Fn() -> String,
    ) {
        let key = (rule, heard.tag.to_string(), account);
        let shown = self.shown.entry(key).or_insert_with(|| Shown {
            since,
            last,
            licenses,
            reports: BTreeSet::new(),
            detail: detail(),
            utility: heard.utility,
        });
        shown.since = shown.since.min(since);
        shown.last = shown.last.max(last);
        shown.licenses = shown.licenses.max(licenses);
        shown.reports.insert(heard.report_id);
    }

    /// A measurement, divided by the accounts that hold the PI in it, where they are known.
    fn held(&self, of: Use) -> Vec<(usize, Use)> {
        let parts = by_holder(&self.holders, (of.start, of.end)).into_iter();
        let part = |(account, (start, end))| Some((account?, Use { start, end, ..of }));
        parts.filter_map(part).collect()
    }

    /// Adds a report as a whole.
    fn report(&mut self, rule: Rule, heard: &Heard, detail: impl Fn() -> String) {
        let when = (heard.first_at(), heard.last_at());
        for (account, part) in by_holder(&self.holders, when) {
            // At stake is what was used while the account held the PI.
            let uses = heard.uses.iter().filter(|of| of.start < part.1 && of.end > part.0);
            let most = uses.map(|of| of.value).max().unwrap_or(0);
            self.add_part(rule, heard, (account, part), most, &detail);
        }
    }

    fn finish(self) -> Vec<Finding> {
        let pi = self.pi;
        self.shown
            .into_iter()
            .map(|((rule, entitlement, account), shown)| Finding {
                rule,
                account,
                udi: Some(pi.udi.clone()),
                entitlement,
                since: shown.since,
                last: shown.last,
                licenses: shown.licenses,
                reports_total: shown.reports.len(),
                reports: shown.reports.into_iter().take(REPORTS_MAX).collect(),
                detail: shown.detail,
                utility: shown.utility,
            })
            .collect()
    }
}

/// All findings of PIs, in the order of PI, rule and entitlement. Those of accounts as a whole come from
/// [`convertible`], and from what was consumed beyond purchases.
#[must_use]
pub fn findings(fleet: &Fleet<'_>) -> Vec<Finding> {
    let mut all = Vec::new();
    // Also PIs that the book does not name, and that were refused whenever they reported.
    let udis: BTreeSet<&Udi> =
        fleet.udis().into_iter().chain(fleet.history.refused.keys()).collect();
    for udi in udis {
        let pi = fleet.pi(udi);
        let mut found = Found::new(&pi);
        product(&pi, &mut found);
        collector(&pi, &mut found);
        throttle(&pi, &mut found);
        utility(&pi, &mut found);
        pools(&pi, fleet.reference, &mut found);
        authorized(&pi, fleet, &mut found);
        ended(&pi, fleet.reference, &mut found);
        earlier_models(&pi, &mut found);
        high_availability(&pi, &mut found);
        sub_devices(&pi, &mut found);
        clock(&pi, &mut found);
        overlaps(&pi, &mut found);
        moved(&pi, fleet.reference, &mut found);
        all.extend(found.finish());
        all.extend(refused(&pi, fleet));
        all.extend(gaps(&pi, fleet));
    }
    all
}

/// R3.
fn product(pi: &Pi<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        let Some(family) = pi.family else {
            let detail = || format!("{} is of no supported family", pi.udi.pid);
            found.report(Rule::ProductUnsupported, heard, detail);
            continue;
        };
        if let Some(release) = heard.release().filter(|r| *r < family.first_release) {
            found.report(Rule::ReleaseTooOld, heard, || {
                format!("{release}; {} is supported from {}", family.name, family.first_release)
            });
        }
    }
}

/// R2.3, R2.4, R10.4.
fn collector(pi: &Pi<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        let via = &heard.via;
        if via.collector == "cslu" && pi.is_under_vmanage(heard.first_at()) {
            let detail = || "reported through CSLU, and vManage manages it".to_owned();
            found.report(Rule::CsluUnderVmanage, heard, detail);
        }
        let rows = COLLECTORS.iter().filter(|row| {
            row.collector == via.collector
                && (!row.utility || heard.utility)
                && (row.families.is_empty()
                    || pi.family.is_some_and(|family| row.families.contains(&family.family)))
        });
        for row in rows {
            if is_older_version(&via.collector_version, row.least_version) {
                found.report(Rule::CollectorTooOld, heard, || {
                    format!(
                        "{} {}, at least {} is needed{}",
                        via.collector,
                        via.collector_version,
                        row.least_version,
                        if row.utility { " for utility mode" } else { "" }
                    )
                });
            }
            let release = heard.release();
            if let (Some(release), Some(least)) = (release, row.least_release)
                && release < least
            {
                found.report(Rule::ReleaseTooOldForCollector, heard, || {
                    format!("{release}, {} needs at least {least}", row.collector)
                });
            }
        }
    }
}

/// R6.4: more than one report of one entitlement on one day (UTC), that the PI pushed.
fn throttle(pi: &Pi<'_>, found: &mut Found<'_>) {
    let mut by_day: BTreeMap<(&str, EpochSeconds), Vec<&Heard>> = BTreeMap::new();
    for heard in pi.reports {
        let pushed = heard.via.collection == "push";
        if pushed && heard.release().is_some_and(is_throttled) {
            let day = heard.received_at.div_euclid(DAY);
            by_day.entry((&heard.tag, day)).or_default().push(heard);
        }
    }
    for ((_, day), reports) in by_day.into_iter().filter(|(_, reports)| reports.len() > 1) {
        for heard in &reports {
            let when = (day * DAY, (day + 1) * DAY);
            found.add(Rule::Throttle, heard, when, heard.peak(), || {
                format!("{} reports on one day", reports.len())
            });
        }
    }
}

/// R10.2, R10.3, R10.8.
fn utility(pi: &Pi<'_>, found: &mut Found<'_>) {
    for heard in pi.reports.iter().filter(|r| r.utility) {
        let family = pi.family.map(|row| row.family);
        if family != Some(Family::C8000v) {
            found.report(Rule::UtilityProduct, heard, || match family {
                Some(Family::Csr1000v | Family::Isrv) => {
                    format!("{} has another post-paid programme, under Smart Licensing", pi.udi.pid)
                }
                _ => format!("{} has no utility mode", pi.udi.pid),
            });
        } else if let Some(release) = heard.release() {
            let is_controlled = pi.is_under_vmanage(heard.first_at());
            let least = if is_controlled {
                programme::UTILITY_CONTROLLER
            } else {
                programme::UTILITY_AUTONOMOUS
            };
            if release < least {
                let detail = || format!("{release}, utility mode needs at least {least}");
                found.report(Rule::UtilityRelease, heard, detail);
            }
        }
        if heard.via.transport == "callhome" {
            let detail = || "Call Home in utility mode".to_owned();
            found.report(Rule::UtilityCallHome, heard, detail);
        }
    }
}

/// R10.1: licences that are subscribed to only, used outside utility mode, and the reverse.
fn pools(pi: &Pi<'_>, reference: &Reference<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        let Some(entry) = reference.catalog_entry(&heard.tag) else { continue };
        for of in heard.consuming() {
            if heard.utility {
                let may_not =
                    !entry.postpaid_allowed && entry.enforcement != Enforcement::ExportControlled;
                if may_not {
                    let when = (of.start, of.end);
                    found.add(Rule::PrepaidTagOnPostpaid, heard, when, of.value, || {
                        format!("{} cannot be post-paid", entry.name)
                    });
                }
                continue;
            }
            if !entry.postpaid_allowed {
                continue;
            }
            for (account, of) in found.held(of) {
                let subscriptions = reference.subscriptions_of_tag(account, &heard.tag);
                let purchases = reference.purchases(account, reference.item(&heard.tag));
                let subscribed: Vec<Span> = subscriptions.iter().map(|s| s.valid).collect();
                let purchased: Vec<Span> = purchases.iter().map(|p| p.valid).collect();
                for (start, end) in parts(of, &[&subscribed, &purchased]) {
                    let within = |spans: &[Span]| spans.iter().any(|span| span.contains(start));
                    if within(&subscribed) && !within(&purchased) {
                        found.add(
                            Rule::PostpaidTagOnPrepaid,
                            heard,
                            (start, end),
                            of.value,
                            || {
                                format!(
                                    "{} is subscribed to, and the report is not in utility mode",
                                    entry.name
                                )
                            },
                        );
                    }
                }
            }
        }
    }
}

/// R4.2: use after the last purchase or subscription of a licence has ended.
fn ended(pi: &Pi<'_>, reference: &Reference<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        let Some(entry) = reference.catalog_entry(&heard.tag) else { continue };
        if entry.duration != Duration::Subscription {
            continue;
        }
        for (account, of) in heard.consuming().flat_map(|of| found.held(of)).collect::<Vec<_>>() {
            // What may not be post-paid counts against purchases in utility mode too (R10.6).
            let bought: Vec<Span> = if heard.utility && entry.postpaid_allowed {
                let rows = reference.subscriptions_of_tag(account, &heard.tag);
                rows.iter().map(|s| s.valid).collect()
            } else {
                let rows = reference.purchases(account, reference.item(&heard.tag));
                rows.iter().map(|p| p.valid).collect()
            };
            for (start, end) in parts(of, &[&bought]) {
                let has_ended = bought.iter().any(|span| span.end <= start);
                if has_ended && !bought.iter().any(|span| span.contains(start)) {
                    found.add(Rule::UseAfterEnd, heard, (start, end), of.value, || {
                        format!("{} is used after all that was bought of it ended", entry.name)
                    });
                }
            }
        }
    }
}

/// A measurement, cut wherever a span starts or ends: what holds at the start of a part holds in all of it, however long
/// the measurement is.
fn parts(of: Use, spans: &[&[Span]]) -> Vec<(EpochSeconds, EpochSeconds)> {
    let ends = spans.iter().copied().flatten().flat_map(|span| [span.start, span.end]);
    let mut cuts: Vec<EpochSeconds> = ends.filter(|at| of.start < *at && *at < of.end).collect();
    cuts.extend([of.start, of.end]);
    cuts.sort_unstable();
    cuts.dedup();
    cuts.windows(2).map(|part| (part[0], part[1])).collect()
}

/// R11.1, R11.3, R11.4.
fn earlier_models(pi: &Pi<'_>, found: &mut Found<'_>) {
    let took_snapshot = |heard: &Heard| heard.release().is_some_and(takes_pak_snapshots);
    let first_snapshot = pi.reports.iter().filter(|r| took_snapshot(r)).map(Heard::first_at).min();
    for heard in pi.reports {
        let (at, release) = (heard.first_at(), heard.release());
        let holds = |kind| {
            pi.authorizations.iter().any(|a| {
                a.kind == kind
                    && a.installed_at <= at
                    && a.returned_at.is_none_or(|returned| returned > at)
            })
        };
        let model = pi.row_at(at).map(|row| row.license_model);
        let newest_plr = pi
            .authorizations
            .iter()
            .filter(|a| a.kind == AuthorizationKind::Plr && a.installed_at <= at)
            .filter(|a| a.returned_at.is_none_or(|returned| returned > at))
            .max_by_key(|a| a.installed_at);
        if let (Some(code), Some(release)) = (newest_plr, release) {
            let version = code.code_version.unwrap_or(1);
            let is_old = version < PLR_CODE_VERSION && release >= PLR_OLD_CODES;
            if is_old || (version >= PLR_CODE_VERSION && release < PLR_RELEASE) {
                found.report(Rule::PlrCodeVersion, heard, || {
                    format!("code of version {version} on {release}: not honoured")
                });
            }
        }
        let is_pak = model == Some(LicenseModel::Pak) || holds(AuthorizationKind::Pak);
        if is_pak
            && release.is_some_and(|r| r >= PAK_BY_SNAPSHOT)
            && first_snapshot.is_none_or(|snapshot| snapshot >= at)
        {
            found.report(Rule::PakNoSnapshot, heard, || {
                "no report of it shows a release that takes snapshots".to_owned()
            });
        }
        let transport = pi.transport(heard, at);
        let allowed = model.map_or(&[][..], transports_after_upgrade);
        if !transport.is_empty() && !allowed.is_empty() && !allowed.contains(&transport) {
            let model = model.map_or("", LicenseModel::as_str);
            found.report(Rule::TransportAfterUpgrade, heard, || {
                format!("{transport}; after {model} it is {}", allowed.join(" or "))
            });
        }
    }
}

/// R2.6.
fn high_availability(pi: &Pi<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        let others = heard.ha.iter().filter(|member| member.udi != *pi.udi).count();
        if others > 0 && pi.is_under_vmanage(heard.first_at()) {
            let detail = || format!("names {others} others in HA, and vManage manages it");
            found.report(Rule::HaUnderVmanage, heard, detail);
        }
    }
}

/// R6.6: the changes of sub-devices, replayed, against what is counted.
fn sub_devices(pi: &Pi<'_>, found: &mut Found<'_>) {
    let mut by_tag: BTreeMap<&str, Vec<(Use, usize, &Heard)>> = BTreeMap::new();
    for heard in pi.reports {
        let measurements = heard.uses.iter().enumerate();
        by_tag.entry(&heard.tag).or_default().extend(measurements.map(|(i, of)| (*of, i, heard)));
    }
    for mut measurements in by_tag.into_values() {
        if measurements.iter().all(|(_, _, heard)| heard.sub_devices.is_empty()) {
            continue;
        }
        measurements.sort_by_key(|(of, _, heard)| (of.start, of.end, heard.report_id));
        // What was reported twice changes nothing the second time.
        let mut seen = HashSet::new();
        let mut under: BTreeSet<&Udi> = BTreeSet::new();
        let mut is_known = false;
        for (of, number, heard) in measurements {
            for change in heard.sub_devices.iter().filter(|change| change.measurement == number) {
                is_known = true;
                if change.is_added {
                    under.insert(&change.udi);
                } else {
                    under.remove(&change.udi);
                }
            }
            let counted = usize::try_from(of.value).unwrap_or(usize::MAX);
            if is_known && seen.insert((of.start, of.end, of.value)) && counted != under.len() {
                found.add(Rule::SubDeviceCount, heard, (of.start, of.end), of.value, || {
                    format!("counts {counted}, and {} are left of those added", under.len())
                });
            }
        }
    }
}

#[cfg(test)]
mod tests;
