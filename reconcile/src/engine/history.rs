//! The journal as [`History`]: every accepted report without its bytes, names held once.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{
    Array as _, ArrayRef, AsArray as _, ListArray, PrimitiveArray, RecordBatch, StringArray,
};
use arrow::datatypes::{Decimal128Type, Int32Type, Int64Type};
use datafusion::prelude::{col, lit};
use futures::StreamExt as _;
use lake::Table;
use schemas::disposition::Reason;
use schemas::journal;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::collect::Measurements;
use super::{Result, instant, is, register, seconds_of, session, text, text_at};
use crate::core::history::{Heard, History, Member, SubDeviceChange, Use, Via};

const COLUMNS: [&str; 20] = [
    "udi_pid",
    "udi_serial",
    "report_id",
    "received_at",
    "entitlement_tag",
    "software_version",
    "layout",
    "utility",
    "collector",
    "collector_version",
    "collection",
    "transport",
    "smart_account",
    "virtual_account",
    "ha_udi",
    "ha_roles",
    "measurements",
    "sub_devices",
    "clock_changes",
    "subscription_id",
];

/// Reads what was received up to an instant.
///
/// # Errors
/// If the journal cannot be read.
pub async fn read_history(journal: Option<&Table>, at: EpochSeconds) -> Result<History> {
    let mut history = History::default();
    let Some(journal) = journal else { return Ok(history) };
    let session = session()?;
    register(&session, journal::TABLE, Some(journal), &journal::SCHEMA).await?;
    let received = || col("received_at").lt_eq(instant(at));
    let rows = session.table(journal::TABLE).await?.filter(is("accepted").and(received()))?;
    let mut rows = rows.select_columns(&COLUMNS)?.execute_stream().await?;
    let mut names = Names::default();
    while let Some(batch) = rows.next().await {
        take(&batch?, &mut names, &mut history)?;
    }
    let suspended = is("suspended").and(col("report_id").is_not_null());
    let rows = session.table(journal::TABLE).await?.filter(suspended.and(received()))?;
    let columns = ["udi_pid", "udi_serial", "report_id", "reason", "collector", "received_at"];
    let mut rows = rows
        .filter(col("udi_pid").is_not_null().and(col("udi_serial").not_eq(lit(""))))?
        .select_columns(&columns)?
        .execute_stream()
        .await?;
    while let Some(batch) = rows.next().await {
        take_suspended(&batch?, &mut history)?;
    }
    history.sort();
    Ok(history)
}

/// Names that many reports share.
#[derive(Default)]
struct Names {
    texts: HashSet<Arc<str>>,
    vias: HashMap<Via, Arc<Via>>,
    /// By the members as they are written.
    groups: HashMap<String, Arc<[Member]>>,
    nobody: Arc<[Member]>,
}

impl Names {
    fn text(&mut self, text: &str) -> Arc<str> {
        if let Some(held) = self.texts.get(text) {
            return Arc::clone(held);
        }
        let held: Arc<str> = Arc::from(text);
        self.texts.insert(Arc::clone(&held));
        held
    }

    fn via(&mut self, via: Via) -> Arc<Via> {
        if let Some(held) = self.vias.get(&via) {
            return Arc::clone(held);
        }
        let held = Arc::new(via.clone());
        self.vias.insert(via, Arc::clone(&held));
        held
    }

    fn group(&mut self, members: Vec<Member>) -> Arc<[Member]> {
        if members.is_empty() {
            return Arc::clone(&self.nobody);
        }
        let written = members.iter().map(|m| format!("{}={}\n", m.udi, m.role)).collect();
        Arc::clone(self.groups.entry(written).or_insert_with(|| members.into()))
    }
}

/// A list column, and the texts or numbers of its elements' fields.
struct Lists<'a> {
    lists: &'a ListArray,
    fields: Vec<ArrayRef>,
}

impl<'a> Lists<'a> {
    fn new(column: &'a ArrayRef) -> Lists<'a> {
        let lists: &ListArray = column.as_list();
        let fields = match lists.values().as_struct_opt() {
            Some(fields) => fields.columns().to_vec(),
            None => vec![Arc::clone(lists.values())],
        };
        Lists { lists, fields }
    }

    fn text(&self, field: usize) -> Result<StringArray> {
        text(&self.fields[field])
    }

    /// Places of the elements of a row.
    fn of(&self, row: usize) -> std::ops::Range<usize> {
        if self.lists.is_null(row) {
            return 0..0;
        }
        let place = |i: i32| usize::try_from(i).unwrap_or(0);
        let offsets = self.lists.value_offsets();
        place(offsets[row])..place(offsets[row + 1])
    }
}

fn take(batch: &RecordBatch, names: &mut Names, history: &mut History) -> Result<()> {
    let texts = |i: usize| text(batch.column(i));
    let (pids, serials) = (texts(0)?, texts(1)?);
    let ids: &PrimitiveArray<Decimal128Type> = batch.column(2).as_primitive();
    let received = seconds_of(batch.column(3))?;
    let (tags, versions, subscriptions) = (texts(4)?, texts(5)?, texts(19)?);
    let layouts: &PrimitiveArray<Int32Type> = batch.column(6).as_primitive();
    let utility = batch.column(7).as_boolean();
    let via: Vec<StringArray> = (8..14).map(texts).collect::<Result<_>>()?;
    let (ha, roles) = (Lists::new(batch.column(14)), Lists::new(batch.column(15)));
    let (ha_pids, ha_serials, role_texts) = (ha.text(0)?, ha.text(1)?, roles.text(0)?);
    let measurements = Measurements::new(batch.column(16).as_list())?;
    let (subs, clocks) = (Lists::new(batch.column(17)), Lists::new(batch.column(18)));
    let sub_numbers: &PrimitiveArray<Int32Type> = subs.fields[0].as_primitive();
    let (changes, sub_pids, sub_serials) = (subs.text(1)?, subs.text(2)?, subs.text(3)?);
    let clock_numbers: &PrimitiveArray<Int32Type> = clocks.fields[0].as_primitive();
    let clock_seconds: &PrimitiveArray<Int64Type> = clocks.fields[1].as_primitive();
    for (i, received_at) in received.iter().copied().enumerate() {
        let word = |column: usize| text_at(&via[column], i).unwrap_or_default().to_owned();
        let account = text_at(&via[4], i).zip(text_at(&via[5], i));
        let roles = roles.of(i);
        let members: Vec<Member> = ha
            .of(i)
            .enumerate()
            .map(|(k, j)| Member {
                udi: Udi::new(ha_pids.value(j), ha_serials.value(j)),
                role: roles.clone().nth(k).map_or("", |r| role_texts.value(r)).to_owned(),
            })
            .collect();
        let (uses, numbers) = measurements.of_usage(i);
        // Measurements are counted in the report; here in those that are usage.
        let place = |number: i32| numbers.iter().position(|n| i32::try_from(*n) == Ok(number));
        let heard = Heard {
            report_id: u64::try_from(ids.value(i)).unwrap_or(u64::MAX),
            received_at,
            tag: names.text(text_at(&tags, i).unwrap_or_default()),
            software_version: names.text(text_at(&versions, i).unwrap_or_default()),
            subscription: names.text(text_at(&subscriptions, i).unwrap_or_default()),
            layout: layouts.value(i),
            utility: utility.is_valid(i) && utility.value(i),
            via: names.via(Via {
                collector: word(0),
                collector_version: word(1),
                collection: word(2),
                transport: word(3),
                account: account.map(|(s, v)| (s.to_owned(), v.to_owned())),
            }),
            ha: names.group(members),
            uses,
            sub_devices: subs
                .of(i)
                .filter_map(|j| {
                    Some(SubDeviceChange {
                        measurement: place(sub_numbers.value(j))?,
                        is_added: changes.value(j) == "added",
                        udi: Udi::new(sub_pids.value(j), sub_serials.value(j)),
                    })
                })
                .collect(),
            clock_changes: clocks
                .of(i)
                .map(|j| {
                    let number = place(clock_numbers.value(j)).unwrap_or(usize::MAX);
                    (number, clock_seconds.value(j))
                })
                .collect(),
        };
        let (pid, serial) = (pids.value(i), serials.value(i));
        history.heard.entry(Udi::new(pid, serial)).or_default().push(heard);
    }
    Ok(())
}

fn take_suspended(batch: &RecordBatch, history: &mut History) -> Result<()> {
    let texts = |i: usize| text(batch.column(i));
    let (pids, serials, reasons, collectors) = (texts(0)?, texts(1)?, texts(3)?, texts(4)?);
    let ids: &PrimitiveArray<Decimal128Type> = batch.column(2).as_primitive();
    let received = seconds_of(batch.column(5))?;
    for (i, received_at) in received.iter().copied().enumerate() {
        let udi = Udi::new(pids.value(i), serials.value(i));
        let id = u64::try_from(ids.value(i)).unwrap_or(u64::MAX);
        if text_at(&reasons, i) == Some(Reason::SourceNotAllowed.as_str()) {
            let source = text_at(&collectors, i).unwrap_or_default().to_owned();
            history.refused.entry(udi.clone()).or_default().push((id, received_at, source));
        }
        // What is forged may carry any id; one more that is known loses nothing.
        history.suspended_ids.entry(udi).or_default().push(id);
    }
    Ok(())
}

impl Measurements {
    /// The measurements of usage of a report, and which of its measurements they are.
    fn of_usage(&self, report: usize) -> (Box<[Use]>, Vec<usize>) {
        let places = self.of(report);
        let first = places.start;
        let (uses, numbers): (Vec<Use>, Vec<usize>) = places
            .filter(|&i| self.metric.value(i) == journal::ENTITLEMENT_METRIC)
            .map(|i| {
                let of = Use { start: self.start[i], end: self.end[i], value: self.value.value(i) };
                (of, i - first)
            })
            .unzip();
        (uses.into_boxed_slice(), numbers)
    }
}
