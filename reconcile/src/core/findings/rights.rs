//! Who may use what is enforced or export-controlled (R4.3 to R4.6, R11.6).

use schemas::book::{Authorization, AuthorizationKind, CatalogEntry, Enforcement, Span};
use schemas::finding::Rule;
use schemas::programme::{Family, HSECK9, PLR_CODE_VERSION, PLR_RELEASE, hseck9_row};
use schemas::release::Release;
use schemas::udi::Udi;

use super::{Found, parts};
use crate::core::history::{Fleet, Heard, Pi};

/// True if an authorization for an item permits the use of a licence.
fn permits(
    right: &Authorization,
    of_item: &str,
    (entry, item): (&CatalogEntry, &str),
    by: &Permitted,
) -> bool {
    let honoured = by.release.map(hseck9_row);
    let is_hseck9 = of_item == HSECK9;
    let of_kind = match right.kind {
        AuthorizationKind::Slac => true,
        AuthorizationKind::Pak => is_hseck9 && honoured.is_none_or(|row| row.honours_pak),
        AuthorizationKind::Slr => is_hseck9 && honoured.is_none_or(|row| row.honours_slr),
        AuthorizationKind::Plr => {
            return right.code_version.is_some_and(|v| v >= PLR_CODE_VERSION)
                && by.release.is_none_or(|r| r >= PLR_RELEASE);
        }
    };
    // R4.4: what authorizes HSECK9 stands in for the SLAC of throughput.
    let stands_in = is_hseck9 && by.hseck9_stands_in && !entry.name.contains("MRP");
    of_kind && (of_item == item || stands_in)
}

/// What decides, beside the right itself, whether a use is permitted.
struct Permitted {
    release: Option<Release>,
    hseck9_stands_in: bool,
}

/// R4.3 to R4.6.
pub(super) fn authorized(pi: &Pi<'_>, fleet: &Fleet<'_>, found: &mut Found<'_>) {
    let reference = fleet.reference;
    for heard in pi.reports {
        let Some(entry) = reference.catalog_entry(&heard.tag) else { continue };
        if entry.enforcement == Enforcement::Unenforced {
            continue;
        }
        let item = reference.item(&heard.tag);
        let family = pi.family.map(|row| row.family);
        let by = Permitted {
            release: heard.release(),
            hseck9_stands_in: matches!(family, Some(Family::Isr4000 | Family::C1100Tg)),
        };
        for udi in who_needs_one(pi, heard) {
            for of in heard.consuming() {
                let permitted =
                    |r: &&&Authorization| permits(r, reference.item(&r.tag), (entry, item), &by);
                let rights: Vec<Span> = fleet
                    .authorizations(udi)
                    .iter()
                    .filter(permitted)
                    .map(|r| Span { start: r.installed_at, end: r.returned_at.unwrap_or(i64::MAX) })
                    .collect();
                for (start, end) in parts(of, &[&rights]) {
                    if rights.iter().any(|right| right.contains(start)) {
                        continue;
                    }
                    if rights.iter().any(|right| right.end <= start) {
                        found.add(Rule::SlacReturned, heard, (start, end), of.value, || {
                            format!("{udi} returned its SLAC, and {} is in use", entry.name)
                        });
                    } else {
                        found.add(Rule::NoSlac, heard, (start, end), of.value, || {
                            format!("{udi} has no SLAC for {}", entry.name)
                        });
                    }
                }
            }
        }
    }
}

/// R4.6: each UDI of an HA group needs one; in a stack only the active.
fn who_needs_one<'a>(pi: &'a Pi<'_>, heard: &'a Heard) -> Vec<&'a Udi> {
    if heard.ha.is_empty() {
        return vec![pi.udi];
    }
    let is_stack = heard.ha.iter().any(|member| member.role.eq_ignore_ascii_case("member"));
    let needs = |role: &str| !is_stack || role.eq_ignore_ascii_case("active");
    let members = heard.ha.iter().filter(|m| needs(&m.role)).map(|m| &m.udi);
    let mut udis: Vec<&Udi> = members.collect();
    if !is_stack {
        udis.push(pi.udi);
    }
    udis.sort_unstable();
    udis.dedup();
    udis
}
