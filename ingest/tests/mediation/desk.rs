//! Devices, their keys, and mediation without a lake.

use std::collections::HashMap;

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingest::core::carrier::{CarrierLimits, Item, read_bytes};
use ingest::core::decode::decode;
use ingest::core::keyring::Keyring;
use ingest::core::mediate::{Probe, Rules, check_origin, check_signature, judge, suspend};
use ingest::core::report::{Judged, RawReport};
use schemas::book::{Book, TABLES, parse_csv};
use schemas::disposition::{Disposition, Reason, SignatureStatus};
use serde_json::{Value, json};

/// 2026-11-01T00:00:00Z.
pub(crate) const NOW: i64 = 1_793_491_200;
pub(crate) const START: i64 = 1_790_000_000;

pub(crate) struct Keys {
    pub(crate) ed25519: Ed25519KeyPair,
    pub(crate) other: Ed25519KeyPair,
    pub(crate) rsa: RsaKeyPair,
    pub(crate) p256: EcdsaKeyPair,
}

impl Keys {
    pub(crate) fn new() -> Keys {
        let p256 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &SystemRandom::new())
                .unwrap();
        Keys {
            ed25519: Ed25519KeyPair::from_seed_unchecked(&[1; 32]).unwrap(),
            other: Ed25519KeyPair::from_seed_unchecked(&[2; 32]).unwrap(),
            rsa: RsaKeyPair::from_pkcs8(include_bytes!("../../../src/fleet/demo-rsa-1.der"))
                .unwrap(),
            p256: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, p256.as_ref()).unwrap(),
        }
    }

    pub(crate) fn sign(&self, algorithm: &str, message: &[u8]) -> String {
        STANDARD.encode(match algorithm {
            "RS256" => {
                let mut out = vec![0; self.rsa.public_modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut out).unwrap();
                out
            }
            "ES256" => self.p256.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec(),
            "other" => self.other.sign(message).as_ref().to_vec(),
            _ => self.ed25519.sign(message).as_ref().to_vec(),
        })
    }

    /// Trust codes: D has all three; OLD's first key was overwritten; LATE's is not in force yet.
    pub(crate) fn keyring(&self) -> Keyring {
        let ed25519 = |key: &Ed25519KeyPair| {
            let spki = hex("302a300506032b6570032100");
            STANDARD.encode([&spki[..], key.public_key().as_ref()].concat())
        };
        let rsa: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            self.rsa.public_key().as_der().unwrap();
        let p256: aws_lc_rs::encoding::PublicKeyX509Der<'_> =
            self.p256.public_key().as_der().unwrap();
        let mut csv =
            "udi_pid,udi_serial,origin,algorithm,public_key,valid_from,valid_to\n".to_owned();
        for (serial, algorithm, key, from) in [
            ("D", "EdDSA", ed25519(&self.ed25519), "2020-01-01"),
            ("D", "RS256", STANDARD.encode(rsa.as_ref()), "2020-01-01"),
            ("D", "ES256", STANDARD.encode(p256.as_ref()), "2020-01-01"),
            ("OLD", "EdDSA", ed25519(&self.ed25519), "2020-01-01"),
            ("OLD", "EdDSA", ed25519(&self.other), "2026-09-01"),
            ("LATE", "EdDSA", ed25519(&self.ed25519), "2026-10-30"),
        ] {
            csv.push_str(&format!("P,{serial},ack,{algorithm},{key},{from},\n"));
        }
        let mut errors = Vec::new();
        let spec = TABLES.iter().find(|t| t.name == "trust_codes").unwrap();
        let cells = [("trust_codes".to_owned(), parse_csv(spec, csv.as_bytes(), &mut errors))];
        assert_eq!(errors, []);
        Keyring::new(&Book::read(&cells.into()).unwrap().trust_codes)
    }
}

pub(crate) fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

/// Mediation as the runner does it, with an index in memory.
pub(crate) struct Mediation {
    pub(crate) keys: Keys,
    pub(crate) keyring: Keyring,
    pub(crate) rules: Rules,
    pub(crate) collector: String,
    pub(crate) limits: CarrierLimits,
    pub(crate) known: HashMap<(String, u64), [u8; 32]>,
}

impl Mediation {
    pub(crate) fn new() -> Mediation {
        let keys = Keys::new();
        let keyring = keys.keyring();
        let known = HashMap::new();
        Mediation {
            keys,
            keyring,
            rules: Rules::default(),
            collector: "file".to_owned(),
            limits: CarrierLimits::default(),
            known,
        }
    }

    pub(crate) fn judge(&mut self, raw: &RawReport) -> Judged {
        if let Some((reason, detail)) = &raw.refused {
            assert!(!detail.is_empty());
            return Judged {
                disposition: Disposition::Suspended,
                reason: Some(*reason),
                detail: None,
                signature: None,
            };
        }
        let report = match decode(&raw.text, &self.limits.report, NOW) {
            Ok(report) => report,
            Err(refused) => {
                assert!(!refused.detail.is_empty());
                return suspend(&refused);
            }
        };
        if let Some((reason, _)) = check_origin(&report, Some(&self.collector), &self.rules) {
            return Judged {
                disposition: Disposition::Suspended,
                reason: Some(reason),
                detail: None,
                signature: None,
            };
        }
        let key = (report.udi().to_string(), report.report_id);
        let probe = match self.known.get(&key) {
            None => Probe::New,
            Some(held) if *held == report.payload_sha256 => Probe::Duplicate,
            Some(_) => Probe::Conflict,
        };
        let checked = (probe != Probe::Duplicate)
            .then(|| check_signature(&report, &self.keyring, &self.rules));
        let judged = judge(probe, checked);
        if judged.disposition == Disposition::Accepted {
            self.known.insert(key, report.payload_sha256);
        }
        judged
    }

    /// What becomes of everything in an input, in words; `ignored` for a document without a report.
    pub(crate) fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        items(bytes, &self.limits)
            .into_iter()
            .map(|item| match item {
                Item::Ignored { .. } => "ignored".to_owned(),
                Item::Report(raw) => word(&self.judge(&raw)),
            })
            .collect()
    }

    /// What becomes of one report, given as its envelope.
    pub(crate) fn one(&mut self, envelope: &Value) -> String {
        let words = self.take(envelope.to_string().as_bytes());
        assert_eq!(words.len(), 1, "{words:?}");
        words.into_iter().next().unwrap()
    }

    pub(crate) fn envelope(&self, payload: &Value) -> Value {
        self.signed("EdDSA", payload)
    }

    pub(crate) fn signed(&self, algorithm: &str, payload: &Value) -> Value {
        let text = payload.to_string();
        let token = if algorithm == "other" { "EdDSA" } else { algorithm };
        let value = self.keys.sign(algorithm, text.as_bytes());
        json!({"payload": text, "signature": {"signing_type": token, "key": "1", "value": value}})
    }
}

pub(crate) fn items(bytes: &[u8], limits: &CarrierLimits) -> Vec<Item> {
    let mut items = Vec::new();
    read_bytes("input", bytes, limits, &mut |item| {
        items.push(item);
        true
    })
    .unwrap();
    items
}

pub(crate) fn word(judged: &Judged) -> String {
    match (judged.disposition, judged.reason, judged.signature) {
        (Disposition::Accepted, None, Some(SignatureStatus::Verified)) => "verified".to_owned(),
        (Disposition::Accepted, None, Some(SignatureStatus::Unverifiable)) => {
            "unverifiable".to_owned()
        }
        (Disposition::Duplicate, None, None) => "duplicate".to_owned(),
        // What was looked at is told, and nothing else (contract 5).
        (Disposition::Suspended, Some(reason), status) => {
            match reason {
                Reason::ContentConflict => assert!(status.is_some()),
                Reason::TrustNotValidThen => assert_eq!(status, Some(SignatureStatus::Verified)),
                Reason::SignatureUnverifiable => {
                    assert_eq!(status, Some(SignatureStatus::Unverifiable));
                }
                _ => assert_eq!(status, None),
            }
            reason.to_string()
        }
        other => panic!("no disposition: {other:?}"),
    }
}

/// A good payload of device D, layout 2.
pub(crate) fn payload(report_id: u64) -> Value {
    json!({
        "version": "2.0",
        "asset_identification": {
            "report_id": report_id,
            "asset": {"name": "software"},
            "instance": {"sudi": {"udi_pid": "P", "udi_serial_number": "D"}},
        },
        "meta": {"entitlement_tag": "tag", "utility_enabled": true, "software_version": "17.09.02"},
        "measurements": [measurement(START, START + 3600, "3")],
        "signature": {"signing_type": "builtin", "key": "k", "value": "AAAA"},
    })
}

pub(crate) fn measurement(start: i64, end: i64, count: &str) -> Value {
    json!({"log_time": end, "metric_name": "ENTITLEMENT", "start_time": start, "end_time": end,
        "sample_interval": 900, "num_samples": 4, "value": {"type": "COUNT", "value": count}})
}

/// A payload with one place changed.
pub(crate) fn with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut payload = payload(1);
    *payload.pointer_mut(pointer).unwrap() = value.into();
    payload
}

/// A payload with one place removed.
pub(crate) fn without(parent: &str, key: &str) -> Value {
    let mut payload = payload(1);
    payload.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    payload
}

pub(crate) const SERIAL: &str = "/asset_identification/instance/sudi/udi_serial_number";
