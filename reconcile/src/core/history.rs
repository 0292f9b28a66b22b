//! What each product instance has reported, as the rules of the programme look at it: every accepted
//! report, with how it came, and what it says beside its usage.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use schemas::book::{Authorization, Book, Device, ManagedBy, Span};
use schemas::period::EpochSeconds;
use schemas::programme::{FamilyRow, family_of};
use schemas::release::Release;
use schemas::udi::Udi;

use super::groups::Groups;
use super::reference::Reference;

/// A report that was accepted.
#[derive(Clone, Debug)]
pub struct Heard {
    pub report_id: u64,
    pub received_at: EpochSeconds,
    /// Blank where the report has none.
    pub tag: Arc<str>,
    /// As the report has it, or blank.
    pub software_version: Arc<str>,
    /// The subscription that it names, or blank.
    pub subscription: Arc<str>,
    pub layout: i32,
    pub utility: bool,
    pub via: Arc<Via>,
    /// `ha_udi`, with roles where they were kept.
    pub ha: Arc<[Member]>,
    /// Its measurements of usage, in their order.
    pub uses: Box<[Use]>,
    pub sub_devices: Box<[SubDeviceChange]>,
    /// Seconds by which the clock was set, by the number of the measurement.
    pub clock_changes: Box<[(usize, i64)]>,
}

/// How a report came.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Via {
    pub collector: String,
    pub collector_version: String,
    pub collection: String,
    pub transport: String,
    /// Smart and Virtual Account of the collector's headers, where both are there.
    pub account: Option<(String, String)>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub udi: Udi,
    /// Blank where it is not known.
    pub role: String,
}

/// A measurement of usage, for `[start, end)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Use {
    pub start: EpochSeconds,
    pub end: EpochSeconds,
    pub value: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubDeviceChange {
    pub measurement: usize,
    pub is_added: bool,
    pub udi: Udi,
}

impl Heard {
    /// When it speaks of: the start of its usage, or its receipt where it has none.
    #[must_use]
    pub fn first_at(&self) -> EpochSeconds {
        self.uses.iter().map(|u| u.start).min().unwrap_or(self.received_at)
    }

    #[must_use]
    pub fn last_at(&self) -> EpochSeconds {
        self.uses.iter().map(|u| u.end).max().unwrap_or(self.received_at)
    }

    #[must_use]
    pub fn peak(&self) -> i64 {
        self.uses.iter().map(|u| u.value).max().unwrap_or(0)
    }

    /// Measurements with a licence in use.
    pub fn consuming(&self) -> impl Iterator<Item = Use> + '_ {
        self.uses.iter().copied().filter(|u| u.value > 0)
    }

    #[must_use]
    pub fn release(&self) -> Option<Release> {
        self.software_version.parse().ok()
    }
}

/// All that is known of what was reported.
#[derive(Debug, Default)]
pub struct History {
    /// Accepted reports of each PI.
    pub heard: BTreeMap<Udi, Vec<Heard>>,
    /// Ids of reports that came and are suspended: they are not lost.
    pub suspended_ids: HashMap<Udi, Vec<u64>>,
    /// Reports that a source sent which may not.
    pub refused: BTreeMap<Udi, Vec<Refused>>,
}

/// A report that its source may not send: id, receipt, and the source's name.
pub type Refused = (u64, EpochSeconds, String);

impl History {
    /// The PI groups that these reports name (contract 3.1); `alone`: PIs that belong to none.
    #[must_use]
    pub fn groups(&self, alone: HashSet<Udi>) -> Groups {
        let mut groups = Groups::new(alone);
        for (udi, reports) in &self.heard {
            let mut last: Option<&Arc<[Member]>> = None;
            for heard in reports {
                if last.is_none_or(|last| !Arc::ptr_eq(last, &heard.ha)) {
                    let members: Vec<Udi> = heard.ha.iter().map(|m| m.udi.clone()).collect();
                    groups.join(udi, &members);
                }
                last = Some(&heard.ha);
            }
        }
        groups
    }

    /// Puts the reports of each PI in the order of the time that they speak of.
    pub fn sort(&mut self) {
        for reports in self.heard.values_mut() {
            reports.sort_by_key(|r| (r.first_at(), r.last_at(), r.report_id));
        }
    }
}

/// One PI, with what the book and the journal say of it.
pub struct Pi<'a> {
    pub udi: &'a Udi,
    pub family: Option<&'static FamilyRow>,
    /// In the order of the time that they speak of.
    pub reports: &'a [Heard],
    /// Rows of `devices.csv`, in the order of time.
    pub rows: &'a [&'a Device],
    pub authorizations: &'a [&'a Authorization],
    reference: &'a Reference<'a>,
}

impl Pi<'_> {
    #[must_use]
    pub fn row_at(&self, at: EpochSeconds) -> Option<&Device> {
        self.rows.iter().find(|row| row.valid.contains(at)).copied()
    }

    /// The account that holds it: by the book, else by the headers of the last report up to then.
    #[must_use]
    pub fn account_at(&self, at: EpochSeconds) -> Option<usize> {
        let heard = || self.reports.iter().filter(|r| r.first_at() <= at).rev();
        self.held_at(at, || heard().find_map(|heard| self.account_of_headers(heard)))
    }

    fn held_at(
        &self,
        at: EpochSeconds,
        of_headers: impl FnOnce() -> Option<usize>,
    ) -> Option<usize> {
        if let Some(row) = self.row_at(at) {
            return Some(row.account);
        }
        // A PI that left the book is still known by whom it belonged to last.
        of_headers().or_else(|| {
            self.rows.iter().rev().find(|row| row.valid.start <= at).map(|row| row.account)
        })
    }

    fn account_of_headers(&self, heard: &Heard) -> Option<usize> {
        let (smart, virtual_) = heard.via.account.as_ref()?;
        self.reference.account(smart, virtual_)
    }

    /// The accounts that hold it, one after the other, for all time (R6.7). Before the first that is known
    /// it is that one's.
    #[must_use]
    pub fn holders(&self) -> Vec<(Option<usize>, Span)> {
        // From when on the headers name another account.
        let mut named: Vec<(EpochSeconds, usize)> = Vec::new();
        let mut last: Option<&Arc<Via>> = None;
        for heard in self.reports {
            if last.is_some_and(|last| Arc::ptr_eq(last, &heard.via)) {
                continue;
            }
            last = Some(&heard.via);
            if let Some(account) = self.account_of_headers(heard)
                && named.last().is_none_or(|(_, held)| *held != account)
            {
                named.push((heard.first_at(), account));
            }
        }
        let of_rows = self.rows.iter().flat_map(|row| [row.valid.start, row.valid.end]);
        let mut cuts: Vec<EpochSeconds> = of_rows.chain(named.iter().map(|(at, _)| *at)).collect();
        cuts.push(EpochSeconds::MIN);
        // Where a row is open.
        cuts.retain(|at| *at < EpochSeconds::MAX);
        cuts.sort_unstable();
        cuts.dedup();
        let mut holders: Vec<(Option<usize>, Span)> = Vec::new();
        for (i, start) in cuts.iter().copied().enumerate() {
            let end = cuts.get(i + 1).copied().unwrap_or(EpochSeconds::MAX);
            let before = named.partition_point(|(at, _)| *at <= start);
            let of_headers = || named[..before].last().map(|(_, account)| *account);
            let account = self.held_at(start, of_headers);
            match holders.last_mut() {
                Some((held, span)) if *held == account || held.is_none() => {
                    (*held, span.end) = (account, end);
                }
                _ => holders.push((account, Span { start, end })),
            }
        }
        holders
    }

    /// The transport of a report: what its collector says, else what the book says at an instant, or blank.
    #[must_use]
    pub fn transport<'h>(&'h self, heard: &'h Heard, at: EpochSeconds) -> &'h str {
        let said = heard.via.transport.as_str();
        if said.is_empty() { self.row_at(at).map_or("", |row| &row.transport) } else { said }
    }

    #[must_use]
    pub fn is_under_vmanage(&self, at: EpochSeconds) -> bool {
        self.row_at(at).is_some_and(|row| row.managed_by == ManagedBy::Vmanage)
    }

    /// True if the book had it, and has it no more.
    #[must_use]
    pub fn retired_at(&self, at: EpochSeconds) -> Option<EpochSeconds> {
        let last = self.rows.iter().map(|row| row.valid.end).max()?;
        (last <= at).then_some(last)
    }
}

/// The book and the history, arranged by PI.
pub struct Fleet<'a> {
    pub reference: &'a Reference<'a>,
    pub history: &'a History,
    rows: HashMap<&'a Udi, Vec<&'a Device>>,
    authorizations: HashMap<&'a Udi, Vec<&'a Authorization>>,
}

impl<'a> Fleet<'a> {
    #[must_use]
    pub fn new(book: &'a Book, reference: &'a Reference<'a>, history: &'a History) -> Fleet<'a> {
        let mut rows: HashMap<&Udi, Vec<&Device>> = HashMap::new();
        for device in &book.devices {
            rows.entry(&device.udi).or_default().push(device);
        }
        for rows in rows.values_mut() {
            rows.sort_by_key(|row| row.valid.start);
        }
        let mut authorizations: HashMap<&Udi, Vec<&Authorization>> = HashMap::new();
        for authorization in &book.authorizations {
            authorizations.entry(&authorization.udi).or_default().push(authorization);
        }
        Fleet { reference, history, rows, authorizations }
    }

    /// Every PI that reported, or that the book names, in the order of their names.
    #[must_use]
    pub fn udis(&self) -> Vec<&'a Udi> {
        let mut udis: Vec<&Udi> =
            self.history.heard.keys().chain(self.rows.keys().copied()).collect();
        udis.sort_unstable();
        udis.dedup();
        udis
    }

    /// Authorizations of a PI.
    #[must_use]
    pub fn authorizations(&self, udi: &Udi) -> &[&'a Authorization] {
        self.authorizations.get(udi).map_or(&[], Vec::as_slice)
    }

    #[must_use]
    pub fn pi(&'a self, udi: &'a Udi) -> Pi<'a> {
        Pi {
            udi,
            family: family_of(&udi.pid),
            reports: self.history.heard.get(udi).map_or(&[], Vec::as_slice),
            rows: self.rows.get(udi).map_or(&[], Vec::as_slice),
            authorizations: self.authorizations(udi),
            reference: self.reference,
        }
    }
}

/// A stretch of time, divided by who holds the PI in it.
#[must_use]
pub fn by_holder(
    holders: &[(Option<usize>, Span)],
    (start, end): (EpochSeconds, EpochSeconds),
) -> Vec<(Option<usize>, (EpochSeconds, EpochSeconds))> {
    let of = |(account, span): &(Option<usize>, Span)| {
        let part = (span.start.max(start), span.end.min(end));
        let is_in = part.0 < part.1 || (start == end && span.contains(start));
        is_in.then_some((*account, part))
    };
    holders.iter().filter_map(of).collect()
}

#[cfg(test)]
pub(crate) mod made;
#[cfg(test)]
mod tests;
