//! A report on its way through mediation: each stage takes the type that the stage before made.

use std::ops::{Deref, Range};
use std::sync::Arc;

use bytes::Bytes;
use schemas::disposition::{Disposition, Reason, SignatureStatus};
use schemas::journal::ENTITLEMENT_METRIC;
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

/// Where a report was found: the input, and its place in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Position {
    /// A path, or a path and the archive member (`a.tar.gz!b.tar.gz!dev_1.txt`).
    pub source: Arc<str>,
    /// Number of the report in its input, from 0; of a Kafka record, its offset.
    pub offset: u64,
}

/// A report's bytes: a part of a block that holds those of many, one behind the other, so that the
/// journal can take all of them as they lie there.
#[derive(Clone)]
pub struct Text {
    block: Bytes,
    part: Range<usize>,
}

impl Text {
    /// # Panics
    /// If the part is not within the block.
    #[must_use]
    pub fn new(block: Bytes, part: Range<usize>) -> Text {
        assert!(part.start <= part.end && part.end <= block.len(), "a part of its block");
        Text { block, part }
    }

    /// Takes in what stands right behind it in its block; false if the other does not.
    pub fn join(&mut self, next: &Text) -> bool {
        // Both are alive: where they start and end in the same places, they are the same memory.
        let same =
            self.block.as_ptr() == next.block.as_ptr() && self.block.len() == next.block.len();
        let joins = same && self.part.end == next.part.start;
        if joins {
            self.part.end = next.part.end;
        }
        joins
    }

    /// The bytes without a copy, for as long as the block is needed.
    #[must_use]
    pub fn shared(&self) -> Bytes {
        self.block.slice(self.part.clone())
    }
}

impl Deref for Text {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.block[self.part.clone()]
    }
}

impl From<Vec<u8>> for Text {
    fn from(bytes: Vec<u8>) -> Text {
        let part = 0..bytes.len();
        Text { block: bytes.into(), part }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        **self == **other
    }
}

impl Eq for Text {}

impl std::fmt::Debug for Text {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", String::from_utf8_lossy(self))
    }
}

/// What the carrier gave: the JSON text of one report, or bytes in which none could be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RawReport {
    pub position: Position,
    /// The report's JSON text; of a refused one, the bytes as they came.
    pub text: Text,
    /// Set where the carrier itself was broken, or was not followed to its end.
    pub refused: Option<(Reason, String)>,
    /// Elements beside the report in its document, kept as evidence.
    pub context: Vec<u8>,
}

/// What the collector said of the reports of a delivery.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Delivery {
    /// `None` where the producer did not say.
    pub collector: Option<String>,
    pub smart_account: Option<String>,
    pub virtual_account: Option<String>,
    pub collector_version: Option<String>,
    /// `push`, `pull` or `file`, as the producer says.
    pub collection: Option<String>,
    /// `smart`, `callhome`, `cslu` or `off`, as the producer says.
    pub transport: Option<String>,
}

/// A report as it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Arrival {
    pub raw: RawReport,
    pub delivery: Arc<Delivery>,
    /// Of a Kafka record; its offset is the position's.
    pub partition: Option<i32>,
    pub received_at: EpochSeconds,
}

/// What a measurement is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Metric {
    /// The only one that counts as usage (contract 1.2).
    Entitlement,
    Other(String),
}

impl Metric {
    #[must_use]
    pub fn new(name: &str) -> Metric {
        if name == ENTITLEMENT_METRIC {
            Metric::Entitlement
        } else {
            Metric::Other(name.to_owned())
        }
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Metric::Entitlement => ENTITLEMENT_METRIC,
            Metric::Other(name) => name,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Measurement {
    pub metric: Metric,
    pub start: EpochSeconds,
    pub end: EpochSeconds,
    pub value: i64,
}

/// What could be read of a report. Of one that is decoded without fault, every required field.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Readings {
    pub layout: Option<i32>,
    pub udi: Option<Udi>,
    pub report_id: Option<u64>,
    pub payload_sha256: Option<[u8; 32]>,
    pub tag: Option<String>,
    pub utility: bool,
    pub software_version: Option<String>,
    pub subscription_id: Option<String>,
    pub ha_udi: Vec<Udi>,
    pub measurements: Vec<Measurement>,
    pub asides: Asides,
}

/// What a report says beside its usage: nothing of it is billed or judged, the rules of the programme ask
/// for it. What cannot be read of it is left out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Asides {
    /// Of each element of `ha_udi`, blank where it has none.
    pub ha_roles: Vec<String>,
    pub sub_devices: Vec<SubDevice>,
    pub clock_changes: Vec<ClockChange>,
}

/// A UDI that a measurement adds to those under the PI, or removes (contract 1.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubDevice {
    /// Number of the measurement in its report, from 0.
    pub measurement: i32,
    pub is_added: bool,
    pub udi: Udi,
}

/// By how many seconds the PI's clock was set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockChange {
    pub measurement: i32,
    pub seconds: i64,
}

impl Readings {
    /// The first start and the last end of the measurements that count as usage.
    #[must_use]
    pub fn usage_span(&self) -> Option<(EpochSeconds, EpochSeconds)> {
        let usage = || self.measurements.iter().filter(|m| m.metric == Metric::Entitlement);
        Some((usage().map(|m| m.start).min()?, usage().map(|m| m.end).max()?))
    }
}

/// The outer signature, complete enough to be looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OuterSignature {
    pub signing_type: String,
    pub value: String,
}

/// Who signed, as the outer signature names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signer {
    /// No `sudi`: the reporting PI.
    Reporter,
    Named(Udi),
    /// A `sudi` that names nobody.
    Unreadable,
}

/// A report whose fields are all there and well-formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DecodedReport {
    pub readings: Readings,
    pub report_id: u64,
    pub payload_sha256: [u8; 32],
    /// The signed bytes; `None` for an object payload, which cannot be checked.
    pub signed_payload: Option<Vec<u8>>,
    pub signer: Signer,
    pub signature: Option<OuterSignature>,
    pub last_end: EpochSeconds,
}

impl DecodedReport {
    /// The reporting PI.
    #[must_use]
    pub fn udi(&self) -> &Udi {
        self.readings.udi.as_ref().unwrap_or_else(|| unreachable!("decoded without its PI"))
    }
}

/// A report that cannot be taken further, with what could be read of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RefusedReport {
    pub reason: Reason,
    /// What exactly is wrong, and where.
    pub detail: String,
    pub readings: Readings,
}

/// The end of a report's way: one disposition, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judged {
    pub disposition: Disposition,
    pub reason: Option<Reason>,
    pub detail: Option<String>,
    /// Only of an accepted report.
    pub signature: Option<SignatureStatus>,
}
