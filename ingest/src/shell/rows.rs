//! Judged reports as rows of the journal.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, BinaryArray, BinaryBuilder, BooleanBuilder, Decimal128Builder, Int32Builder,
    Int64Builder, ListArray, RecordBatch, StringArray, StringBuilder, StructArray,
    TimestampMicrosecondArray, new_null_array,
};
use arrow::buffer::{Buffer, NullBuffer, OffsetBuffer};
use arrow::datatypes::{DataType, Field};
use arrow::error::ArrowError;
use schemas::hex::hex;
use schemas::journal::{CLOCK_CHANGE, MEASUREMENT, SCHEMA, SUB_DEVICE, UDI, stored_id};
use schemas::period::EpochSeconds;

use crate::core::report::{Arrival, Asides, Judged, Measurement, Readings, Text};

/// What a row is made of.
pub struct Row<'a> {
    pub arrival: &'a Arrival,
    pub readings: &'a Readings,
    pub judged: &'a Judged,
}

/// Rows under construction. Columns stand in the order of [`SCHEMA`].
#[derive(Default)]
pub struct Rows {
    texts: [Words; 17],
    report_id: Decimal128Builder,
    layout: Int32Builder,
    utility: BooleanBuilder,
    received_at: Vec<i64>,
    usage_start: Vec<Option<i64>>,
    usage_end: Vec<Option<i64>>,
    partition: Int32Builder,
    offset: Int64Builder,
    ha: Lists,
    ha_pid: StringBuilder,
    ha_serial: StringBuilder,
    measurements: Lists,
    metric: StringBuilder,
    start: Vec<i64>,
    end: Vec<i64>,
    value: Int64Builder,
    raw: Texts,
    context: BinaryBuilder,
    roles: Lists,
    role: StringBuilder,
    sub_devices: Lists,
    sub_device: SubDevices,
    clock_changes: Lists,
    clock_measurement: Int32Builder,
    clock_seconds: Int64Builder,
    bytes: usize,
}

/// A column of texts. In most of them all rows are alike, and while they are, they are only counted.
#[derive(Default)]
struct Words {
    alike: Option<String>,
    rows: usize,
    differ: Option<StringBuilder>,
}

impl Words {
    fn push(&mut self, text: Option<&str>) {
        if let Some(texts) = &mut self.differ {
            texts.append_option(text);
            return;
        }
        if self.rows == 0 {
            self.alike = text.map(str::to_owned);
        } else if self.alike.as_deref() != text {
            let mut texts = StringBuilder::new();
            for _ in 0..self.rows {
                texts.append_option(self.alike.as_deref());
            }
            texts.append_option(text);
            self.differ = Some(texts);
        }
        self.rows += 1;
    }

    fn finish(self) -> Result<ArrayRef, ArrowError> {
        if let Some(mut texts) = self.differ {
            return Ok(Arc::new(texts.finish()));
        }
        let Some(text) = self.alike else {
            return Ok(new_null_array(&DataType::Utf8, self.rows));
        };
        next_offset(&[], text.len().saturating_mul(self.rows))?;
        let offsets = OffsetBuffer::from_repeated_length(text.len(), self.rows);
        let values = Buffer::from_vec(text.repeat(self.rows).into_bytes());
        Ok(Arc::new(StringArray::try_new(offsets, values, None)?))
    }
}

#[derive(Default)]
struct SubDevices {
    measurement: Int32Builder,
    change: StringBuilder,
    pid: StringBuilder,
    serial: StringBuilder,
}

/// A column of reports' bytes: as they lie in their blocks, one behind the other where they do.
struct Texts {
    pieces: Vec<Text>,
    offsets: Vec<i32>,
}

impl Default for Texts {
    fn default() -> Self {
        Texts { pieces: Vec::new(), offsets: vec![0] }
    }
}

impl Texts {
    fn push(&mut self, text: &Text) -> Result<(), ArrowError> {
        self.offsets.push(next_offset(&self.offsets, text.len())?);
        if !self.pieces.last_mut().is_some_and(|last| last.join(text)) {
            self.pieces.push(text.clone());
        }
        Ok(())
    }

    /// Only bytes of several pieces are copied.
    fn finish(self) -> Result<BinaryArray, ArrowError> {
        let values = match self.pieces.as_slice() {
            [whole] => Buffer::from(whole.shared()),
            pieces => {
                let parts: Vec<&[u8]> = pieces.iter().map(|piece| &**piece).collect();
                Buffer::from_vec(parts.concat())
            }
        };
        BinaryArray::try_new(OffsetBuffer::new(self.offsets.into()), values, None)
    }
}

/// The end of a value of that length behind the last one.
fn next_offset(offsets: &[i32], length: usize) -> Result<i32, ArrowError> {
    let last = offsets.last().copied().unwrap_or(0);
    let next = i32::try_from(length).ok().and_then(|n| last.checked_add(n));
    next.ok_or_else(|| ArrowError::OffsetOverflowError(length))
}

/// Offsets and validity of a list column.
struct Lists {
    offsets: Vec<i32>,
    valid: Vec<bool>,
}

impl Default for Lists {
    fn default() -> Self {
        Lists { offsets: vec![0], valid: Vec::new() }
    }
}

impl Lists {
    /// Ends a list of `length` elements; an empty one is null where `valid` is false.
    fn push(&mut self, length: usize, valid: bool) -> Result<(), ArrowError> {
        self.offsets.push(next_offset(&self.offsets, length)?);
        self.valid.push(valid);
        Ok(())
    }

    fn finish(self, values: impl Array + 'static) -> Result<ArrayRef, ArrowError> {
        let element = Arc::new(Field::new("element", values.data_type().clone(), true));
        let offsets = OffsetBuffer::new(self.offsets.into());
        let nulls = NullBuffer::from(self.valid);
        Ok(Arc::new(ListArray::try_new(element, offsets, Arc::new(values), Some(nulls))?))
    }
}

fn micros(seconds: EpochSeconds) -> i64 {
    seconds.saturating_mul(1_000_000)
}

impl Rows {
    #[must_use]
    pub fn len(&self) -> usize {
        self.received_at.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.received_at.is_empty()
    }

    /// Bytes of raw evidence held.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// Adds a row.
    ///
    /// # Errors
    /// If the rows hold more measurements, or more bytes, than a column can (2^31), long after a flush is due.
    pub fn push(&mut self, row: &Row<'_>) -> Result<(), ArrowError> {
        let Row { arrival, readings, judged } = row;
        let Arrival { raw, delivery, partition, received_at } = arrival;
        let digest = readings.payload_sha256.as_ref().map(|d| hex(d));
        let texts: [Option<&str>; 17] = [
            Some(judged.disposition.as_str()),
            judged.reason.map(|r| r.as_str()),
            judged.detail.as_deref(),
            readings.udi.as_ref().map(|u| u.pid.as_str()),
            readings.udi.as_ref().map(|u| u.serial.as_str()),
            digest.as_deref(),
            readings.tag.as_deref(),
            readings.software_version.as_deref(),
            readings.subscription_id.as_deref(),
            judged.signature.map(|s| s.as_str()),
            delivery.collector.as_deref(),
            delivery.smart_account.as_deref(),
            delivery.virtual_account.as_deref(),
            Some(&raw.position.source),
            delivery.collector_version.as_deref(),
            delivery.collection.as_deref(),
            delivery.transport.as_deref(),
        ];
        for (column, text) in self.texts.iter_mut().zip(texts) {
            column.push(text);
        }
        self.report_id.append_option(readings.report_id.map(i128::from));
        self.layout.append_option(readings.layout);
        self.utility.append_option(readings.layout.map(|_| readings.utility));
        self.received_at.push(micros(*received_at));
        let span = readings.usage_span();
        self.usage_start.push(span.map(|s| micros(s.0)));
        self.usage_end.push(span.map(|s| micros(s.1)));
        self.partition.append_option(*partition);
        self.offset.append_value(i64::try_from(raw.position.offset).unwrap_or(i64::MAX));
        for udi in &readings.ha_udi {
            self.ha_pid.append_value(&udi.pid);
            self.ha_serial.append_value(&udi.serial);
        }
        self.ha.push(readings.ha_udi.len(), !readings.ha_udi.is_empty())?;
        self.push_measurements(&readings.measurements)?;
        self.raw.push(&raw.text)?;
        next_offset(self.context.offsets_slice(), raw.context.len())?;
        self.context.append_option((!raw.context.is_empty()).then_some(&raw.context));
        self.push_asides(&readings.asides)?;
        self.bytes += raw.text.len() + raw.context.len() + 64 * readings.measurements.len();
        Ok(())
    }

    fn push_asides(&mut self, asides: &Asides) -> Result<(), ArrowError> {
        for role in &asides.ha_roles {
            self.role.append_value(role);
        }
        self.roles.push(asides.ha_roles.len(), !asides.ha_roles.is_empty())?;
        for sub_device in &asides.sub_devices {
            let change = if sub_device.is_added { "added" } else { "removed" };
            self.sub_device.measurement.append_value(sub_device.measurement);
            self.sub_device.change.append_value(change);
            self.sub_device.pid.append_value(&sub_device.udi.pid);
            self.sub_device.serial.append_value(&sub_device.udi.serial);
        }
        self.sub_devices.push(asides.sub_devices.len(), !asides.sub_devices.is_empty())?;
        for change in &asides.clock_changes {
            self.clock_measurement.append_value(change.measurement);
            self.clock_seconds.append_value(change.seconds);
        }
        self.clock_changes.push(asides.clock_changes.len(), !asides.clock_changes.is_empty())
    }

    fn push_measurements(&mut self, measurements: &[Measurement]) -> Result<(), ArrowError> {
        for m in measurements {
            self.metric.append_value(m.metric.as_str());
            self.start.push(micros(m.start));
            self.end.push(micros(m.end));
            self.value.append_value(m.value);
        }
        self.measurements.push(measurements.len(), !measurements.is_empty())
    }

    /// The rows as one batch.
    ///
    /// # Errors
    /// Only if the columns do not fit the schema, which would be a bug.
    pub fn finish(mut self) -> Result<RecordBatch, ArrowError> {
        let n = self.len();
        let mut texts = self.texts.map(Words::finish).into_iter();
        let mut text = || texts.next().unwrap_or_else(|| unreachable!("17 text columns"));
        let time = |values: Vec<Option<i64>>| {
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef
        };
        let known = |values: Vec<i64>| {
            Arc::new(TimestampMicrosecondArray::from(values).with_timezone("UTC")) as ArrayRef
        };
        let ids = self.report_id.finish().with_data_type(stored_id());
        debug_assert_eq!(ids.data_type(), &DataType::Decimal128(20, 0));
        let ha = StructArray::try_new(
            UDI.clone(),
            vec![Arc::new(self.ha_pid.finish()), Arc::new(self.ha_serial.finish())],
            None,
        )?;
        let measurements = StructArray::try_new(
            MEASUREMENT.clone(),
            vec![
                Arc::new(self.metric.finish()),
                known(self.start),
                known(self.end),
                Arc::new(self.value.finish()),
            ],
            None,
        )?;
        let sub_devices = StructArray::try_new(
            SUB_DEVICE.clone(),
            vec![
                Arc::new(self.sub_device.measurement.finish()),
                Arc::new(self.sub_device.change.finish()),
                Arc::new(self.sub_device.pid.finish()),
                Arc::new(self.sub_device.serial.finish()),
            ],
            None,
        )?;
        let clock_changes = StructArray::try_new(
            CLOCK_CHANGE.clone(),
            vec![Arc::new(self.clock_measurement.finish()), Arc::new(self.clock_seconds.finish())],
            None,
        )?;
        let acts = SCHEMA.field_with_name("acts")?.data_type();
        let columns: Vec<ArrayRef> = vec![
            text()?,
            text()?,
            text()?,
            text()?,
            text()?,
            Arc::new(ids),
            text()?,
            Arc::new(self.layout.finish()),
            text()?,
            Arc::new(self.utility.finish()),
            text()?,
            text()?,
            text()?,
            text()?,
            text()?,
            text()?,
            known(self.received_at),
            time(self.usage_start),
            time(self.usage_end),
            text()?,
            Arc::new(self.partition.finish()),
            Arc::new(self.offset.finish()),
            self.ha.finish(ha)?,
            self.measurements.finish(measurements)?,
            Arc::new(self.raw.finish()?),
            Arc::new(self.context.finish()),
            new_null_array(acts, n),
            text()?,
            text()?,
            text()?,
            self.roles.finish(self.role.finish())?,
            self.sub_devices.finish(sub_devices)?,
            self.clock_changes.finish(clock_changes)?,
        ];
        RecordBatch::try_new(SCHEMA.clone(), columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_come_out_as_they_went_in() {
        let tables: [&[Option<&str>]; 7] = [
            &[],
            &[None],
            &[None, None, None],
            &[Some("a"), Some("a"), Some("a")],
            &[Some(""), Some("")],
            &[None, None, Some("b"), None],
            &[Some("a"), Some("a"), Some("b"), Some("a"), None],
        ];
        for texts in tables {
            let mut words = Words::default();
            for text in texts {
                words.push(*text);
            }
            let column = words.finish().unwrap();
            assert_eq!(
                column.as_ref(),
                &StringArray::from(texts.to_vec()) as &dyn Array,
                "{texts:?}"
            );
        }
    }

    #[test]
    fn texts_that_no_column_can_hold_are_refused() {
        let mut words = Words::default();
        let text = "x".repeat(1 << 20);
        for _ in 0..1 << 11 {
            words.push(Some(&text));
        }
        assert!(words.finish().is_err());
    }
}
