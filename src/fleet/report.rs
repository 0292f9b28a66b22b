//! One made-up report, as a function of its number.

use jiff::tz::TimeZone;
use schemas::disposition::Reason;
use schemas::key::Algorithm;
use schemas::period::{EARLIEST, EpochSeconds, Period};
use serde_json::{Value, json};

use super::keys::Keys;
use super::rng::Rng;
use crate::cli::{FleetAlgorithm, FleetArgs};

pub const ADVANTAGE: &str =
    "regid.2019-06.com.cisco.C8K_NW_ADV_T1,1.0_8f2c6d1e-0b1f-4c1a-9b43-5e1c3a7d2f01";
pub const ESSENTIALS: &str =
    "regid.2019-06.com.cisco.C8K_NW_ESS_T0,1.0_3a9d7c52-6e4b-4f0e-8d17-92b1c0e4a602";
pub const NETWORK_PLUS: &str =
    "regid.2017-03.com.cisco.NETWORK_PLUS,1.0_5d0e8b36-7a2c-4e59-b6f4-1c8a9d3e7f03";
pub const DNA_HSEC: &str =
    "regid.2020-11.com.cisco.DNA_HSEC,1.0_7b6f1a94-2d3c-4b58-a0e7-6f9c5d8b1e04";
pub const ISR_HSEC: &str =
    "regid.2019-03.com.cisco.ISR_4331_Hsec,1.0_9c4e2f70-8b1d-4a36-92d5-0e7b3c6a8f05";
pub(super) const SOFTWARE_TAG: &str =
    "regid.2018-05.com.cisco.IOS_XE,1.0_52d7b0c4-91e8-4f3a-8c6d-2b5f7a9e1d06";
/// As a vendor's own signature looks: 32 bytes that only the vendor can check.
const BUILTIN: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

/// Devices come in tens, each ten of one account.
pub const TEN: u64 = 10;

/// What a device is, by its place in its ten.
pub struct Device {
    pub number: u64,
    pub pid: &'static str,
    pub serial: String,
    pub tag: &'static str,
    pub utility: bool,
    pub layout: u8,
    /// `None`: its reports carry the vendor's signature only.
    pub algorithm: Option<Algorithm>,
    /// The other half of an HA pair.
    pub partner: Option<u64>,
    /// False: `devices.csv` does not know it.
    pub in_book: bool,
}

/// What becomes of a report, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Good,
    /// A copy of an earlier good report.
    Duplicate(u64),
    Broken(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    PayloadCut,
    Forged,
    Unsigned,
    NoTrustCode,
    BackwardsInterval,
    FractionalCount,
    NoTag,
    ClockAhead,
    OtherSigner,
    BuiltinUtility,
    Deep,
    /// The id of an earlier good report with other usage.
    Conflict(u64),
}

impl Fault {
    pub fn reason(self) -> Reason {
        match self {
            Fault::PayloadCut => Reason::Malformed,
            Fault::Forged => Reason::SignatureInvalid,
            Fault::Unsigned => Reason::SignatureMissing,
            Fault::NoTrustCode => Reason::TrustUnknown,
            Fault::BackwardsInterval => Reason::BadInterval,
            Fault::FractionalCount => Reason::BadValue,
            Fault::NoTag => Reason::MissingField,
            Fault::ClockAhead => Reason::ClockFuture,
            Fault::OtherSigner => Reason::UdiMismatch,
            Fault::BuiltinUtility => Reason::SignatureUnverifiable,
            Fault::Deep => Reason::TooDeep,
            Fault::Conflict(_) => Reason::ContentConflict,
        }
    }
}

pub struct Fleet {
    pub seed: u64,
    pub devices: u64,
    reports: u64,
    duplicates: u64,
    broken: u64,
    algorithm: FleetAlgorithm,
    pub keys: Keys,
    pub start: EpochSeconds,
    end: EpochSeconds,
    pub first_month: Period,
    /// Start and end of the last month, UTC.
    pub last_month: (EpochSeconds, EpochSeconds),
}

impl Fleet {
    pub fn new(args: &FleetArgs) -> anyhow::Result<Fleet> {
        let (_, end) = args.last_month.bounds(&TimeZone::UTC);
        let mut first_month = args.last_month;
        for _ in 1..args.months {
            let before = first_month.bounds(&TimeZone::UTC).0 - 1;
            first_month = Period::containing(before, &TimeZone::UTC).ok_or_else(|| {
                anyhow::anyhow!("{} months before {} is before 1970", args.months, args.last_month)
            })?;
        }
        let start = first_month.bounds(&TimeZone::UTC).0;
        anyhow::ensure!(
            start >= EARLIEST,
            "{} months up to {} begin before 2000, where no report may (bad-interval)",
            args.months,
            args.last_month
        );
        Ok(Fleet {
            seed: args.seed,
            devices: args.devices,
            reports: args.reports,
            duplicates: args.duplicates,
            broken: args.broken,
            algorithm: args.algorithm,
            keys: Keys::new(args.seed, args.rsa_bits)?,
            start,
            end,
            first_month,
            last_month: args.last_month.bounds(&TimeZone::UTC),
        })
    }

    pub fn device(&self, number: u64) -> Device {
        let (pid, tag, utility, layout) = match number % TEN {
            0..=2 => ("C8000V", ADVANTAGE, true, 2),
            3 => ("C8000V", ESSENTIALS, true, 2),
            4 | 9 => ("C8000V", ADVANTAGE, true, 2),
            5 => ("C8300-1N1S-6T", NETWORK_PLUS, false, 2),
            6 => ("C8300-1N1S-6T", DNA_HSEC, false, 2),
            7 => ("ISR4331/K9", ISR_HSEC, false, 1),
            _ => ("ASR1001-X", NETWORK_PLUS, false, 1),
        };
        let algorithm = match self.algorithm {
            FleetAlgorithm::Rs256 => Algorithm::Rs256,
            FleetAlgorithm::Es256 => Algorithm::Es256,
            FleetAlgorithm::EdDsa => Algorithm::EdDsa,
            FleetAlgorithm::Mixed => {
                [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa][(number % 3) as usize]
            }
        };
        Device {
            number,
            pid,
            serial: format!("9{:02X}{number:08}", self.seed % 256),
            tag,
            utility,
            layout,
            algorithm: (number % TEN != 8).then_some(algorithm),
            partner: match number % TEN {
                4 => Some(number + 5).filter(|n| *n < self.devices),
                9 => Some(number - 5),
                _ => None,
            },
            in_book: number % 50 != 37,
        }
    }

    pub fn role(&self, report: u64) -> Role {
        let mut rng = Rng::of(self.seed, "role", report);
        let draw = rng.below(100);
        let Some(earlier) =
            self.earlier_good(report, &mut rng).filter(|_| draw < self.duplicates + self.broken)
        else {
            return Role::Good;
        };
        if draw < self.duplicates {
            return Role::Duplicate(earlier);
        }
        let device = self.device(report % self.devices);
        Role::Broken(match rng.below(12) {
            0 => Fault::PayloadCut,
            1 if device.algorithm.is_some() => Fault::Forged,
            2 => Fault::Unsigned,
            3 => Fault::NoTrustCode,
            4 => Fault::BackwardsInterval,
            5 => Fault::FractionalCount,
            6 => Fault::NoTag,
            7 => Fault::ClockAhead,
            8 => Fault::OtherSigner,
            9 if device.utility => Fault::BuiltinUtility,
            10 => Fault::Deep,
            _ => Fault::Conflict(earlier),
        })
    }

    /// A good report among the thousand before, if there is one.
    fn earlier_good(&self, report: u64, rng: &mut Rng) -> Option<u64> {
        if report == 0 {
            return None;
        }
        let back = 1 + rng.below(report.min(1000));
        (0..=report - back).rev().take(200).find(|&n| self.draw(n) >= self.duplicates + self.broken)
    }

    fn draw(&self, report: u64) -> u64 {
        if report == 0 { 100 } else { Rng::of(self.seed, "role", report).below(100) }
    }

    /// The report whose device and id this one carries.
    fn subject(report: u64, role: Role) -> u64 {
        match role {
            Role::Duplicate(of) | Role::Broken(Fault::Conflict(of)) => of,
            _ => report,
        }
    }

    /// The device that a report is of.
    pub fn device_of(&self, report: u64, role: Role) -> Device {
        self.device(Self::subject(report, role) % self.devices)
    }

    /// The report's JSON text.
    pub fn envelope(&self, report: u64, role: Role) -> anyhow::Result<String> {
        let fault = match role {
            Role::Good => None,
            Role::Duplicate(of) => return self.envelope(of, Role::Good),
            Role::Broken(fault) => Some(fault),
        };
        let subject = Self::subject(report, role);
        let device = self.device(subject % self.devices);
        let mut payload = self.payload(subject, &device);
        if let Some(fault) = fault {
            break_payload(&mut payload, fault);
        }
        let mut payload = payload.to_string();
        let mut signature = self.signature(&device, &payload)?;
        let mut sudi = sudi(&device);
        match fault {
            Some(Fault::PayloadCut) => payload.truncate(payload.len() / 2),
            Some(Fault::Forged) => {
                payload = payload.replacen("\"COUNT\",\"value\":\"", "\"COUNT\",\"value\":\"9", 1)
            }
            Some(Fault::Unsigned) => signature = Value::Null,
            Some(Fault::OtherSigner) => {
                sudi = json!({"udi_pid": device.pid, "udi_serial_number": "SOMEBODY-ELSE"})
            }
            Some(Fault::BuiltinUtility) => signature = builtin(),
            Some(Fault::NoTrustCode) if device.algorithm.is_none() => {
                signature = json!({"signing_type": "EdDSA", "key": "0001", "value": BUILTIN});
            }
            _ => {}
        }
        if let (Value::Object(fields), true) = (&mut signature, fault != Some(Fault::NoTrustCode)) {
            fields.insert("sudi".to_owned(), sudi);
        }
        Ok(json!({"payload": payload, "signature": signature, "header": {"type": "rum"}})
            .to_string())
    }

    fn signature(&self, device: &Device, payload: &str) -> anyhow::Result<Value> {
        Ok(match device.algorithm {
            None => builtin(),
            Some(algorithm) => json!({
                "signing_type": algorithm.as_str(),
                "key": "0001",
                "value": self.keys.sign(algorithm, device.number, payload.as_bytes())?,
            }),
        })
    }

    fn payload(&self, report: u64, device: &Device) -> Value {
        let (round, rounds) = (report / self.devices, self.reports.div_ceil(self.devices));
        let span = (self.end - self.start) as u64;
        let bound =
            |k: u64| self.start + (u128::from(span) * u128::from(k) / u128::from(rounds)) as i64;
        let (from, to) = (bound(round), bound(round + 1).max(bound(round) + 1));
        let measurements = measurements(&mut Rng::of(self.seed, "usage", report), from, to);
        let mut meta = json!({"entitlement_tag": device.tag, "software_version": "17.12.04"});
        let mut asset = json!({
            "asset": {"name": SOFTWARE_TAG},
            "instance": {"sudi": sudi(device), "product_instance_identifier": ""},
        });
        let inner = json!({"signing_type": "builtin", "key": SOFTWARE_TAG, "value": BUILTIN});
        if let Some(partner) = device.partner {
            let partner = self.device(partner);
            meta["ha_udi"] = json!([
                {"role": "Active", "sudi": sudi(device)},
                {"role": "Standby", "sudi": sudi(&partner)},
            ]);
        }
        let report_id = round + 1;
        if device.layout == 1 {
            meta["report_id"] = report_id.into();
            asset["signature"] = inner;
            return json!({"asset_identification": asset, "meta": meta, "measurements": measurements});
        }
        asset["report_id"] = report_id.into();
        meta["utility_enabled"] = device.utility.into();
        json!({"version": "2.0", "asset_identification": asset, "meta": meta,
            "measurements": measurements, "signature": inner})
    }
}

pub(super) fn builtin() -> Value {
    json!({"signing_type": "builtin", "key": SOFTWARE_TAG, "value": BUILTIN})
}

fn sudi(device: &Device) -> Value {
    json!({"udi_pid": device.pid, "udi_serial_number": device.serial})
}

/// One to three measurements that tile an interval.
fn measurements(rng: &mut Rng, from: EpochSeconds, to: EpochSeconds) -> Value {
    let pieces = (1 + rng.below(3)).min((to - from) as u64) as i64;
    let bound = |k: i64| from + (to - from) * k / pieces;
    let all = (0..pieces).map(|k| {
        let (start, end) = (bound(k), bound(k + 1));
        json!({
            "log_time": end, "metric_name": "ENTITLEMENT", "start_time": start, "end_time": end,
            "sample_interval": end - start, "num_samples": (end - start) / 900 + 1,
            "value": {"type": "COUNT", "value": rng.below(6).to_string()},
        })
    });
    Value::Array(all.collect())
}

fn break_payload(payload: &mut Value, fault: Fault) {
    let measurement = &mut payload["measurements"][0];
    match fault {
        Fault::BackwardsInterval => measurement["end_time"] = measurement["start_time"].clone(),
        Fault::FractionalCount => measurement["value"]["value"] = "1.5".into(),
        Fault::ClockAhead => measurement["end_time"] = 3_800_000_000i64.into(),
        Fault::Conflict(_) => measurement["value"]["value"] = "77".into(),
        Fault::NoTag => {
            if let Some(meta) = payload["meta"].as_object_mut() {
                meta.remove("entitlement_tag");
            }
        }
        Fault::NoTrustCode => {
            payload["asset_identification"]["instance"]["sudi"]["udi_serial_number"] =
                "GHOST".into();
        }
        Fault::Deep => {
            let mut deep = json!([]);
            for _ in 0..70 {
                deep = json!([deep]);
            }
            payload["meta"]["x_deep"] = deep;
        }
        _ => {}
    }
}
