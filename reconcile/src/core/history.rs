//! What each product instance has reported, as the rules of the programme look at it: every accepted
//! report, with how it came, and what it says beside its usage.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use schemas::book::{Authorization, Book, Device, ManagedBy};
use schemas::period::EpochSeconds;
use schemas::programme::{FamilyRow, family_of};
use schemas::release::Release;
use schemas::udi::Udi;

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
    /// Reports that a source sent which may not: id, receipt and the source's name.
    pub refused: BTreeMap<Udi, Vec<(u64, EpochSeconds, String)>>,
}

impl History {
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
        if let Some(row) = self.row_at(at) {
            return Some(row.account);
        }
        let of_headers = |heard: &Heard| {
            let (smart, virtual_) = heard.via.account.as_ref()?;
            self.reference.account(smart, virtual_)
        };
        let last = self.reports.iter().filter(|r| r.first_at() <= at).rev().find_map(of_headers);
        // A PI that left the book is still known by whom it belonged to last.
        last.or_else(|| {
            self.rows.iter().rev().find(|row| row.valid.start <= at).map(|row| row.account)
        })
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

#[cfg(test)]
pub(crate) mod made;
