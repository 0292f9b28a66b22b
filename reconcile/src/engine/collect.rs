//! Rows of the journal as claims.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{Array as _, AsArray as _, ListArray, PrimitiveArray, RecordBatch, StringArray};
use arrow::buffer::OffsetBuffer;
use arrow::datatypes::{Decimal128Type, Int64Type};
use schemas::journal;
use schemas::merkle::Hash;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::{Result, seconds_of, text, text_at};
use crate::ReconcileError;
use crate::core::claims::{Claims, Group, Number, Part};
use crate::core::timeline::{Claim, ReportFacts};

/// What of a report makes its claims, in the order in which [`Collector`] takes it.
pub(super) const CLAIM_COLUMNS: [&str; 11] = [
    "udi_pid",
    "udi_serial",
    "report_id",
    "entitlement_tag",
    "utility",
    "signature",
    "subscription_id",
    "smart_account",
    "virtual_account",
    "measurements",
    "payload_sha256",
];

/// What a report's PI and tag mean.
pub(super) struct Lookup {
    pub(super) groups: HashMap<Udi, u64>,
    /// The equivalence group of each tag that has one.
    pub(super) items: HashMap<String, String>,
}

/// Makes claims of rows of [`CLAIM_COLUMNS`].
pub(super) struct Collector {
    pub(super) lookup: Arc<Lookup>,
    /// As [`Evidence::of_pis`]. Another PI may have a serial number of theirs.
    pub(super) only: Option<Arc<HashSet<Udi>>>,
    pub(super) from: EpochSeconds,
    pub(super) to: EpochSeconds,
    pub(super) part: Part,
    /// Of each PI by its number: its group, or `None` if that is not read, or belongs to another part.
    pub(super) pis: Vec<Option<Group>>,
}

impl Collector {
    /// Takes a batch; gives the number of claims in it.
    pub(super) fn take(&mut self, batch: &RecordBatch, claims: &mut Claims) -> Result<usize> {
        let column = |i: usize| text(batch.column(i));
        let (pids, serials, tags) = (column(0)?, column(1)?, column(3)?);
        let ids: &PrimitiveArray<Decimal128Type> = batch.column(2).as_primitive();
        let utility = batch.column(4).as_boolean();
        let (signatures, subscriptions) = (column(5)?, column(6)?);
        let (smart, virtual_) = (column(7)?, column(8)?);
        let measurements = Measurements::new(batch.column(9).as_list())?;
        let digests = column(10)?;
        let mut taken = 0;
        for i in 0..batch.num_rows() {
            let (pi, new) = claims.names.pi(pids.value(i), serials.value(i));
            if new {
                self.pis.push(self.group_of(claims.names.pi_of(pi), pi));
            }
            let Some(group) = self.pis[pi as usize] else { continue };
            let tag = tags.value(i);
            let header_account = text_at(&smart, i).zip(text_at(&virtual_, i));
            let facts = ReportFacts {
                report_id: u64::try_from(ids.value(i)).unwrap_or(u64::MAX),
                pi,
                tag: claims.names.text(tag),
                subscription: claims.names.text(text_at(&subscriptions, i).unwrap_or_default()),
                header_account: header_account
                    .map(|(s, v)| (claims.names.text(s), claims.names.text(v))),
                utility: utility.is_valid(i) && utility.value(i),
                verified: text_at(&signatures, i) == Some("verified"),
                payload_sha256: match text_at(&digests, i) {
                    Some(digest) => digest.parse().map_err(ReconcileError::Journal)?,
                    None => Hash::default(),
                },
            };
            let item = self.lookup.items.get(tag).map_or(tag, String::as_str);
            let item = claims.names.text(item);
            let of_report = measurements.usage(i, self.from, self.to);
            claims.add(group, item, facts, of_report.inspect(|_| taken += 1));
        }
        Ok(taken)
    }

    pub(super) fn group_of(&self, udi: &Udi, pi: Number) -> Option<Group> {
        if self.only.as_ref().is_some_and(|only| !only.contains(udi)) {
            return None;
        }
        let several = self.lookup.groups.get(udi).copied();
        self.part.holds(udi, several).then(|| several.map_or(Group::Alone(pi), Group::Several))
    }
}

/// The measurements of a batch of reports.
pub(super) struct Measurements {
    pub(super) offsets: OffsetBuffer<i32>,
    pub(super) metric: StringArray,
    pub(super) start: Vec<EpochSeconds>,
    pub(super) end: Vec<EpochSeconds>,
    pub(super) value: PrimitiveArray<Int64Type>,
}

impl Measurements {
    pub(super) fn new(lists: &ListArray) -> Result<Measurements> {
        let fields = lists.values().as_struct();
        Ok(Measurements {
            offsets: lists.offsets().clone(),
            metric: text(fields.column(0))?,
            start: seconds_of(fields.column(1))?,
            end: seconds_of(fields.column(2))?,
            value: fields.column(3).as_primitive().clone(),
        })
    }

    /// Places of the measurements of a report.
    pub(super) fn of(&self, report: usize) -> std::ops::Range<usize> {
        let place = |i: i32| usize::try_from(i).unwrap_or(0);
        place(self.offsets[report])..place(self.offsets[report + 1])
    }

    /// What a report claims that counts as usage, and touches `[from, to)`.
    pub(super) fn usage(
        &self,
        report: usize,
        from: EpochSeconds,
        to: EpochSeconds,
    ) -> impl Iterator<Item = Claim> + '_ {
        self.of(report)
            .filter(move |&i| {
                self.metric.value(i) == journal::ENTITLEMENT_METRIC
                    && self.end[i] > from
                    && self.start[i] < to
                    && self.value.value(i) > 0
            })
            .map(|i| Claim {
                start: self.start[i],
                end: self.end[i],
                value: self.value.value(i),
                report: 0,
            })
    }
}
