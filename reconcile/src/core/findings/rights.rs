//! Who may use what is enforced or export-controlled (R4.3 to R4.6, R11.6).

use std::collections::HashMap;

use schemas::book::{AuthorizationKind, Book, CatalogEntry, Enforcement};
use schemas::finding::Rule;
use schemas::period::EpochSeconds;
use schemas::programme::{Family, HSECK9, PLR_CODE_VERSION, PLR_RELEASE, hseck9_row};
use schemas::release::Release;
use schemas::udi::Udi;

use super::Found;
use crate::core::history::{Fleet, Heard, Pi};
use crate::core::reference::Reference;

/// Authorizations by UDI and item.
pub(super) struct Rights<'a> {
    reference: &'a Reference<'a>,
    by_udi: HashMap<&'a Udi, Vec<Right<'a>>>,
}

struct Right<'a> {
    kind: AuthorizationKind,
    item: &'a str,
    installed_at: EpochSeconds,
    returned_at: Option<EpochSeconds>,
    code_version: Option<u32>,
}

impl<'a> Rights<'a> {
    pub(super) fn new(book: &'a Book, fleet: &'a Fleet<'a>) -> Rights<'a> {
        let mut by_udi: HashMap<&Udi, Vec<Right<'_>>> = HashMap::new();
        for a in &book.authorizations {
            by_udi.entry(&a.udi).or_default().push(Right {
                kind: a.kind,
                item: fleet.reference.item(&a.tag),
                installed_at: a.installed_at,
                returned_at: a.returned_at,
                code_version: a.code_version,
            });
        }
        Rights { reference: fleet.reference, by_udi }
    }

    fn of(&self, udi: &Udi) -> &[Right<'a>] {
        self.by_udi.get(udi).map_or(&[], Vec::as_slice)
    }
}

impl Right<'_> {
    /// True if it permits the use of a licence.
    fn permits(&self, entry: &CatalogEntry, item: &str, by: &Permitted) -> bool {
        let honoured = by.release.map(hseck9_row);
        let is_hseck9 = self.item == HSECK9;
        let of_kind = match self.kind {
            AuthorizationKind::Slac => true,
            AuthorizationKind::Pak => is_hseck9 && honoured.is_none_or(|row| row.honours_pak),
            AuthorizationKind::Slr => is_hseck9 && honoured.is_none_or(|row| row.honours_slr),
            AuthorizationKind::Plr => {
                return self.code_version.is_some_and(|v| v >= PLR_CODE_VERSION)
                    && by.release.is_none_or(|r| r >= PLR_RELEASE);
            }
        };
        // R4.4: what authorizes HSECK9 stands in for the SLAC of throughput.
        let stands_in = is_hseck9 && by.hseck9_stands_in && !entry.name.contains("MRP");
        of_kind && (self.item == item || stands_in)
    }
}

/// What decides, beside the right itself, whether a use is permitted.
struct Permitted {
    release: Option<Release>,
    hseck9_stands_in: bool,
}

/// R4.3 to R4.6.
pub(super) fn authorized(pi: &Pi<'_>, rights: &Rights<'_>, found: &mut Found<'_>) {
    for heard in pi.reports {
        let Some(entry) = rights.reference.catalog_entry(&heard.tag) else { continue };
        if entry.enforcement == Enforcement::Unenforced {
            continue;
        }
        let item = rights.reference.item(&heard.tag);
        let family = pi.family.map(|row| row.family);
        let by = Permitted {
            release: heard.release(),
            hseck9_stands_in: matches!(family, Some(Family::Isr4000 | Family::C1100Tg)),
        };
        for udi in who_needs_one(pi, heard) {
            for of in heard.consuming() {
                let right =
                    |r: &&Right<'_>| r.permits(entry, item, &by) && r.installed_at <= of.start;
                let held: Vec<&Right<'_>> = rights.of(udi).iter().filter(right).collect();
                let lasts = |r: &Right<'_>| r.returned_at.is_none_or(|at| at >= of.end);
                if held.iter().any(|r| lasts(r)) {
                    continue;
                }
                let returned = held.iter().filter_map(|r| r.returned_at).max();
                match returned {
                    Some(at) => {
                        let when = (at.max(of.start), of.end);
                        found.add(Rule::SlacReturned, heard, when, of.value, || {
                            format!("{udi} returned its SLAC, and {} is in use", entry.name)
                        });
                    }
                    None => {
                        let when = (of.start, of.end);
                        found.add(Rule::NoSlac, heard, when, of.value, || {
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
