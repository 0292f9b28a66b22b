//! From bytes to dispositions, without a lake: every reason, every carrier, every bound.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod simulation;

use std::collections::HashMap;
use std::io::{self, Read, Write as _};

use aws_lc_rs::encoding::AsDer as _;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256,
};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingest::core::carrier::{CarrierLimits, Item, Source, read_bytes, read_source};
use ingest::core::decode::decode;
use ingest::core::keyring::Keyring;
use ingest::core::mediate::{Probe, Rules, check_origin, check_signature, judge, suspend};
use ingest::core::report::{Judged, RawReport};
use proptest::prelude::*;
use schemas::book::{Book, TABLES, parse_csv};
use schemas::disposition::{Disposition, Reason, SignaturePolicy, SignatureStatus};
use serde_json::{Value, json};

/// 2026-11-01T00:00:00Z.
const NOW: i64 = 1_793_491_200;
const START: i64 = 1_790_000_000;

// ---- devices and their keys --------------------------------------------------------------------

struct Keys {
    ed25519: Ed25519KeyPair,
    other: Ed25519KeyPair,
    rsa: RsaKeyPair,
    p256: EcdsaKeyPair,
}

impl Keys {
    fn new() -> Keys {
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

    fn sign(&self, algorithm: &str, message: &[u8]) -> String {
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
    fn keyring(&self) -> Keyring {
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

fn hex(text: &str) -> Vec<u8> {
    (0..text.len()).step_by(2).map(|i| u8::from_str_radix(&text[i..i + 2], 16).unwrap()).collect()
}

// ---- mediation as the runner does it, with an index in memory -----------------------------------

struct Mediation {
    keys: Keys,
    keyring: Keyring,
    rules: Rules,
    collector: String,
    limits: CarrierLimits,
    known: HashMap<(String, u64), [u8; 32]>,
}

impl Mediation {
    fn new() -> Mediation {
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

    fn judge(&mut self, raw: &RawReport) -> Judged {
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
        let key = (report.udi.to_string(), report.report_id);
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
    fn take(&mut self, bytes: &[u8]) -> Vec<String> {
        items(bytes, &self.limits)
            .into_iter()
            .map(|item| match item {
                Item::Ignored { .. } => "ignored".to_owned(),
                Item::Report(raw) => word(&self.judge(&raw)),
            })
            .collect()
    }

    /// What becomes of one report, given as its envelope.
    fn one(&mut self, envelope: &Value) -> String {
        let words = self.take(envelope.to_string().as_bytes());
        assert_eq!(words.len(), 1, "{words:?}");
        words.into_iter().next().unwrap()
    }

    fn envelope(&self, payload: &Value) -> Value {
        self.signed("EdDSA", payload)
    }

    fn signed(&self, algorithm: &str, payload: &Value) -> Value {
        let text = payload.to_string();
        let token = if algorithm == "other" { "EdDSA" } else { algorithm };
        let value = self.keys.sign(algorithm, text.as_bytes());
        json!({"payload": text, "signature": {"signing_type": token, "key": "1", "value": value}})
    }
}

fn items(bytes: &[u8], limits: &CarrierLimits) -> Vec<Item> {
    let mut items = Vec::new();
    read_bytes("input", bytes, limits, &mut |item| {
        items.push(item);
        true
    })
    .unwrap();
    items
}

fn word(judged: &Judged) -> String {
    match (judged.disposition, judged.reason, judged.signature) {
        (Disposition::Accepted, None, Some(SignatureStatus::Verified)) => "verified".to_owned(),
        (Disposition::Accepted, None, Some(SignatureStatus::Unverifiable)) => {
            "unverifiable".to_owned()
        }
        (Disposition::Duplicate, None, None) => "duplicate".to_owned(),
        (Disposition::Suspended, Some(reason), None) => reason.to_string(),
        other => panic!("no disposition: {other:?}"),
    }
}

/// A good payload of device D, layout 2.
fn payload(report_id: u64) -> Value {
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

fn measurement(start: i64, end: i64, count: &str) -> Value {
    json!({"log_time": end, "metric_name": "ENTITLEMENT", "start_time": start, "end_time": end,
        "sample_interval": 900, "num_samples": 4, "value": {"type": "COUNT", "value": count}})
}

/// A payload with one place changed.
fn with(pointer: &str, value: impl Into<Value>) -> Value {
    let mut payload = payload(1);
    *payload.pointer_mut(pointer).unwrap() = value.into();
    payload
}

/// A payload with one place removed.
fn without(parent: &str, key: &str) -> Value {
    let mut payload = payload(1);
    payload.pointer_mut(parent).unwrap().as_object_mut().unwrap().remove(key).unwrap();
    payload
}

const SERIAL: &str = "/asset_identification/instance/sudi/udi_serial_number";

// ---- reasons -----------------------------------------------------------------------------------

#[test]
fn every_reason_has_a_report_that_meets_it() {
    let mut met: Vec<Reason> = Vec::new();
    let mut check = |expected: Reason, make: &dyn Fn(&mut Mediation) -> Value| {
        let mut m = Mediation::new();
        let envelope = make(&mut m);
        assert_eq!(m.one(&envelope), expected.as_str(), "{envelope}");
        met.push(expected);
    };
    check(Reason::Malformed, &|_| json!({"payload": "{\"meta\":", "signature": null}));
    check(Reason::TooLarge, &|m| {
        let mut many = payload(1);
        many["measurements"] =
            (0..10_001).map(|i| measurement(START + i, START + i + 1, "1")).collect();
        m.envelope(&many)
    });
    check(Reason::TooDeep, &|m| m.envelope(&with("/meta/software_version", nested(64))));
    check(Reason::MissingField, &|m| m.envelope(&without("/meta", "entitlement_tag")));
    check(Reason::BadValue, &|m| m.envelope(&with("/measurements/0/value/value", "1.5")));
    check(Reason::BadInterval, &|m| m.envelope(&with("/measurements/0/end_time", START)));
    check(Reason::ClockFuture, &|m| m.envelope(&with("/measurements/0/end_time", NOW + 86_401)));
    check(Reason::SourceNotAllowed, &|m| {
        m.collector = "third-party".to_owned();
        m.envelope(&payload(1))
    });
    check(Reason::UdiMismatch, &|m| {
        let mut envelope = m.envelope(&payload(1));
        envelope["signature"]["sudi"] = json!({"udi_pid": "P", "udi_serial_number": "ELSE"});
        envelope
    });
    check(
        Reason::SignatureMissing,
        &|_| json!({"payload": payload(1).to_string(), "signature": null}),
    );
    check(Reason::TrustUnknown, &|m| m.envelope(&with(SERIAL, "NEW")));
    check(Reason::SignatureInvalid, &|m| m.signed("other", &payload(1)));
    check(Reason::TrustNotValidThen, &|m| m.envelope(&with(SERIAL, "LATE")));
    check(
        Reason::SignatureUnverifiable,
        &|_| json!({"payload": payload(1).to_string(), "signature": {"signing_type": "builtin", "value": "AAAA"}}),
    );
    check(Reason::ContentConflict, &|m| {
        let first = m.envelope(&payload(1));
        assert_eq!(m.one(&first), "verified");
        m.envelope(&with("/measurements/0/value/value", "4"))
    });
    assert_eq!(met, Reason::ALL);
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!([inner]))
}

#[test]
fn fields_are_read_as_the_contract_says() {
    let long = "x".repeat(257);
    let table: Vec<(&str, Value)> = vec![
        ("verified", with("/asset_identification/report_id", "18446744073709551615")),
        ("bad-value", with("/asset_identification/report_id", "18446744073709551616")),
        ("bad-value", with("/asset_identification/report_id", 1.0)),
        ("bad-value", with("/asset_identification/report_id", "+1")),
        ("bad-value", with("/asset_identification/report_id", Value::Null)),
        ("missing-field", without("/asset_identification", "report_id")),
        ("missing-field", without("/asset_identification", "instance")),
        ("bad-value", with("/asset_identification/instance", 5)),
        ("bad-value", with(SERIAL, "")),
        ("bad-value", with(SERIAL, long.as_str())),
        ("trust-unknown", with(SERIAL, &long[1..])),
        ("bad-value", with("/meta/entitlement_tag", "")),
        ("bad-value", with("/meta/entitlement_tag", long.as_str())),
        ("bad-value", with("/meta/entitlement_tag", 7)),
        ("bad-value", with("/meta/utility_enabled", "true")),
        ("bad-value", with("/version", "1.0")),
        ("bad-value", with("/version", 2)),
        ("verified", with("/version", "2.7.1")),
        ("missing-field", without("", "measurements")),
        ("missing-field", with("/measurements", json!([]))),
        ("bad-value", with("/measurements", json!({}))),
        ("bad-value", with("/measurements/0", 1)),
        ("bad-value", with("/measurements/0/start_time", START.to_string())),
        ("bad-value", with("/measurements/0/start_time", 1.5e9)),
        ("missing-field", without("/measurements/0", "end_time")),
        ("missing-field", without("/measurements/0/value", "value")),
        ("bad-value", with("/measurements/0/value", "3")),
        ("bad-value", with("/measurements/0/value/value", 3)),
        ("bad-value", with("/measurements/0/value/value", "-1")),
        ("bad-value", with("/measurements/0/value/value", "1e3")),
        ("bad-value", with("/measurements/0/value/value", "")),
        ("verified", with("/measurements/0/value/value", "9007199254740992")),
        ("bad-value", with("/measurements/0/value/value", "9007199254740993")),
        ("bad-interval", with("/measurements/0/start_time", 946_684_799)),
        ("verified", with("/measurements/0/start_time", 946_684_800)),
        ("verified", with("/measurements/0/end_time", NOW + 86_400)),
        // A missing field goes before a bad value, wherever it stands.
        ("missing-field", {
            let mut payload = with("/version", 2);
            payload["measurements"][0].as_object_mut().unwrap().remove("metric_name");
            payload
        }),
    ];
    for (expected, payload) in table {
        let mut m = Mediation::new();
        let envelope = m.envelope(&payload);
        assert_eq!(m.one(&envelope), expected, "{payload}");
    }
}

#[test]
fn telemetry_needs_no_tag() {
    let mut m = Mediation::new();
    let mut telemetry = with("/measurements/0/metric_name", "TELEMETRY");
    telemetry["meta"].as_object_mut().unwrap().remove("entitlement_tag");
    let envelope = m.envelope(&telemetry);
    assert_eq!(m.one(&envelope), "verified");
}

#[test]
fn layout_1_has_no_utility_mode() {
    let mut m = Mediation::new();
    let mut payload = without("", "version");
    payload["asset_identification"].as_object_mut().unwrap().remove("report_id");
    payload["meta"]["report_id"] = 7.into();
    let unsigned = json!({"payload": payload.to_string(), "signature": {"signing_type": "builtin", "value": "AAAA"}});
    assert_eq!(m.one(&unsigned), "unverifiable");
    payload["meta"]["report_id"] = 8.into();
    let envelope = m.envelope(&payload);
    assert_eq!(m.one(&envelope), "verified");
}

#[test]
fn a_key_that_is_read_comes_once_an_unknown_one_may_come_twice() {
    let m = Mediation::new();
    let good = payload(1).to_string();
    for (expected, text) in [
        ("malformed", good.replacen("\"report_id\":1", "\"report_id\":1,\"report_id\":1", 1)),
        ("malformed", good.replacen("\"start_time\"", "\"start_time\":5,\"start_time\"", 1)),
        ("malformed", good.replacen("\"meta\"", "\"meta\":{},\"meta\"", 1)),
        ("malformed", good.replacen("\"meta\"", "\"meta\":{},\"\\u006deta\"", 1)),
        ("verified", good.replacen("\"meta\":{", "\"meta\":{\"x\":1,\"x\":2,", 1)),
        ("verified", good.replacen("\"log_time\"", "\"log_time\":1,\"log_time\"", 1)),
    ] {
        let value = m.keys.sign("EdDSA", text.as_bytes());
        let envelope =
            json!({"payload": text, "signature": {"signing_type": "EdDSA", "value": value}});
        assert_eq!(
            Mediation { keyring: m.keys.keyring(), keys: Keys::new(), ..Mediation::new() }
                .one(&envelope),
            expected,
            "{text}"
        );
    }
    let twice = format!("{{\"payload\":1,{}", &m.envelope(&payload(1)).to_string()[1..]);
    assert_eq!(Mediation::new().take(twice.as_bytes()), ["malformed"]);
}

#[test]
fn the_three_algorithms_and_what_is_none_of_them() {
    let mut m = Mediation::new();
    for (id, algorithm) in [(1, "RS256"), (2, "ES256"), (3, "EdDSA")] {
        let envelope = m.signed(algorithm, &payload(id));
        assert_eq!(m.one(&envelope), "verified", "{algorithm}");
    }
    // Right key, wrong name: held against the codes of the named algorithm only.
    let mut wrong = m.signed("EdDSA", &payload(4));
    wrong["signature"]["signing_type"] = "RS256".into();
    assert_eq!(m.one(&wrong), "signature-invalid");
    // A token that nobody mapped; then mapped.
    let mut own = m.signed("EdDSA", &payload(5));
    own["signature"]["signing_type"] = "vendor-7".into();
    assert_eq!(m.one(&own), "signature-unverifiable");
    m.rules.signing_types.insert("vendor-7".to_owned(), schemas::key::Algorithm::EdDsa);
    assert_eq!(m.one(&own), "verified");
    // Base64 may hold line breaks; what is no base64 is no signature.
    let mut broken = m.signed("EdDSA", &payload(6));
    let value = broken["signature"]["value"].as_str().unwrap().to_owned();
    broken["signature"]["value"] = format!("{}\r\n {}\n", &value[..40], &value[40..]).into();
    assert_eq!(m.one(&broken), "verified");
    broken["payload"] = payload(7).to_string().into();
    broken["signature"]["value"] = "***".into();
    assert_eq!(m.one(&broken), "signature-invalid");
}

#[test]
fn a_later_trust_code_overwrites_an_earlier_one_from_then_on() {
    let mut m = Mediation::new();
    let report = |id: u64, end: i64| {
        let mut payload = payload(id);
        *payload.pointer_mut(SERIAL).unwrap() = "OLD".into();
        payload["measurements"][0] = measurement(end - 3600, end, "1");
        payload
    };
    let september = 1_788_220_800;
    for (id, key, end, expected) in [
        (1, "EdDSA", september - 1, "verified"),
        (2, "EdDSA", september, "trust-not-valid-then"),
        (3, "other", september, "verified"),
        (4, "other", september - 1, "trust-not-valid-then"),
    ] {
        let envelope = m.signed(key, &report(id, end));
        assert_eq!(m.one(&envelope), expected, "{id}");
    }
}

#[test]
fn policies_decide_what_may_be_unverifiable() {
    for (policy, utility, expected) in [
        (SignaturePolicy::AcceptPrepaid, true, "signature-unverifiable"),
        (SignaturePolicy::AcceptPrepaid, false, "unverifiable"),
        (SignaturePolicy::Accept, true, "unverifiable"),
        (SignaturePolicy::Suspend, false, "signature-unverifiable"),
    ] {
        let mut m = Mediation::new();
        m.rules.policy = policy;
        let payload = with("/meta/utility_enabled", utility);
        // An object payload is never held against trust codes, whatever the token.
        let object =
            json!({"payload": payload, "signature": {"signing_type": "EdDSA", "value": "AAAA"}});
        assert_eq!(m.one(&object), expected, "{policy:?} {utility}");
    }
}

#[test]
fn a_duplicate_is_found_before_the_signature_a_conflict_after() {
    let mut m = Mediation::new();
    let good = m.envelope(&payload(1));
    assert_eq!(m.one(&good), "verified");
    let unsigned = json!({"payload": payload(1).to_string()});
    assert_eq!(m.one(&unsigned), "duplicate");
    let mut forged = good.clone();
    forged["payload"] = with("/measurements/0/value/value", "4").to_string().into();
    assert_eq!(m.one(&forged), "signature-invalid");
    let other = m.envelope(&with("/measurements/0/value/value", "4"));
    assert_eq!(m.one(&other), "content-conflict");
    // Suspended reports are not known: sent again, they are judged again.
    let unknown = m.envelope(&with(SERIAL, "NEW"));
    assert_eq!([m.one(&unknown), m.one(&unknown)], ["trust-unknown", "trust-unknown"]);
}

#[test]
fn an_ha_member_may_sign() {
    let mut m = Mediation::new();
    let mut payload = with(SERIAL, "STANDBY");
    payload["meta"]["ha_udi"] =
        json!([{"role": "Active", "sudi": {"udi_pid": "P", "udi_serial_number": "D"}}]);
    let mut envelope = m.envelope(&payload);
    envelope["signature"]["sudi"] = json!({"udi_pid": "P", "udi_serial_number": "D"});
    assert_eq!(m.one(&envelope), "verified");
}

// ---- bounds ------------------------------------------------------------------------------------

#[test]
fn bounds_are_inclusive() {
    let mut m = Mediation::new();
    let padded = |m: &Mediation, id: u64, bytes: usize| {
        let text = m.envelope(&payload(id)).to_string();
        let padding = bytes - text.len() - "\"x\":\"\",".len();
        format!("{{\"x\":\"{}\",{}", "y".repeat(padding), &text[1..])
    };
    for (id, bytes, expected) in
        [(1, 1 << 20, "verified"), (2, (1 << 20) + 1, "too-large"), (3, 20 << 20, "too-large")]
    {
        let text = padded(&m, id, bytes);
        assert_eq!(text.len(), bytes);
        assert_eq!(m.take(text.as_bytes()), [expected], "JSON {bytes}");
        let next = m.envelope(&payload(id + 10)).to_string();
        let xml = format!(
            "<smartLicense><RUMReport><![CDATA[{text}]]></RUMReport><RUMReport><![CDATA[{next}]]></RUMReport></smartLicense>"
        );
        let known = if expected == "verified" { "duplicate" } else { expected };
        assert_eq!(m.take(xml.as_bytes()), [known, "verified"], "XML {bytes}");
        let list = format!("{{\"usage\":[{text},{next}]}}");
        assert_eq!(m.take(list.as_bytes()), [known, "duplicate"], "list {bytes}");
    }
    // Depth is counted in the envelope and in the payload, each on its own.
    for (levels, expected) in [(61, "verified"), (62, "too-deep")] {
        // The payload's object and meta's are two, the innermost is level 2 + levels + 1.
        let payload = with("/meta/software_version", nested(levels + 1));
        let envelope = Mediation::new().envelope(&payload);
        let mut m = Mediation::new();
        assert_eq!(m.one(&envelope), expected, "{levels}");
        let object = json!({"payload": payload, "signature": {"signing_type": "x", "value": "y"}});
        m.rules.policy = SignaturePolicy::Accept;
        let expected = if expected == "verified" { "duplicate" } else { expected };
        let object = m.one(&object);
        assert!(object == expected || object == "content-conflict", "{levels} {object}");
    }
}

#[test]
fn the_fault_met_first_wins() {
    let mut m = Mediation::new();
    let large = "y".repeat(2 << 20);
    for (expected, text) in [
        ("malformed", format!("{{\"a\" 1,\"x\":\"{large}\"}}")),
        ("too-deep", format!("{{\"x\":{}1{}, \"y\":\"{large}\"}}", "[".repeat(70), "]".repeat(70))),
        ("too-large", format!("{{\"y\":\"{large}\",\"x\":{}", "[".repeat(70))),
        ("too-deep", "[".repeat(400_000)),
        (
            "too-deep",
            "{\"payload\":".to_owned() + &"[".repeat(200_000) + &"]".repeat(200_000) + "}",
        ),
    ] {
        assert_eq!(m.take(text.as_bytes()), [expected], "{}", &text[..40]);
        let xml = format!("<RUMReport><![CDATA[{text}]]></RUMReport>");
        assert_eq!(m.take(xml.as_bytes()), [expected], "XML {}", &text[..40]);
    }
}

// ---- carriers ----------------------------------------------------------------------------------

#[test]
fn carriers_are_told_apart_by_content() {
    let m = Mediation::new();
    let text = |id: u64| m.envelope(&payload(id)).to_string();
    let cdata = |id: u64| format!("<RUMReport><![CDATA[{}]]></RUMReport>", text(id));
    let escaped = text(1).replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let halves = text(1);
    let (one, two) = halves.split_at(halves.len() / 2);
    let document = |inner: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<smartLicense>{inner}</smartLicense>\n"
        )
    };
    let (a, b) = (cdata(1), cdata(2));
    let good = ["verified", "verified"];
    let table: Vec<(Vec<&str>, String)> = vec![
        (good.to_vec(), document(&(a.clone() + &b))),
        (
            good.to_vec(),
            format!("\u{feff}{}", document(&(a.clone() + "\n<!-- x --> <?pi y?>\n" + &b))),
        ),
        (vec!["verified"], a.clone()),
        (vec!["verified"], format!("<RUMReport>{escaped}</RUMReport>")),
        (vec!["verified"], format!("<RUMReport><![CDATA[{one}]]><![CDATA[{two}]]></RUMReport>")),
        (
            vec!["verified"],
            document(&format!(
                "<smartLicensePolicy><a b='1'>x</a></smartLicensePolicy>{a}<smartLicenseAck/>"
            )),
        ),
        (vec!["ignored"], document("<smartLicenseRumAck>x</smartLicenseRumAck>")),
        (vec!["ignored"], "<smartLicenseRumAck><y/></smartLicenseRumAck>".to_owned()),
        (good.to_vec(), format!("{{\"usage\":[{},\n{}],\"more\":[1]}}", text(1), text(2))),
        (good.to_vec(), format!(" {{\"x\":{{}},\"\\u0075sage\":[{},{}]}} \n", text(1), text(2))),
        (vec!["verified"], format!("\n{}\n", text(1))),
        (vec!["ignored"], "{\"usage\":[]}".to_owned()),
        (vec!["ignored"], "{\"ack\":1}".to_owned()),
        (vec!["ignored"], "[]".to_owned()),
        // Broken half-way: what stands before is taken, the rest is one.
        (
            vec!["verified", "malformed"],
            document(&a)
                .replace("</smartLicense>", "<RUMReport>&undeclared;</RUMReport></smartLicense>"),
        ),
        (
            vec!["verified", "malformed"],
            document(&(a.clone() + "<RUMReport><![CDATA[{")).replace("</smartLicense>", ""),
        ),
        (vec!["verified", "malformed"], document(&a) + "trailing"),
        (vec!["verified", "malformed"], document(&a) + "<smartLicense/>"),
        (vec!["verified", "malformed"], document(&(a.clone() + "</x>"))),
        (vec!["verified", "malformed"], document(&a).replace("</smartLicense>", "")),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{},{{\"payload\":", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}] trailing", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}]}} {{}}", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}],\"usage\":[]}}", text(1))),
        // A report's own faults are its own: the next one is read.
        (
            vec!["malformed", "verified"],
            document(&format!("<RUMReport><![CDATA[no json]]></RUMReport>{a}")),
        ),
        (vec!["malformed", "verified"], document(&format!("<RUMReport/>{a}"))),
        (vec!["malformed", "verified"], document(&format!("<RUMReport><b>x</b></RUMReport>{a}"))),
        (
            vec!["too-deep", "verified"],
            format!("{{\"usage\":[{}{},{}]}}", "[".repeat(90), "]".repeat(90), text(1)),
        ),
        (
            vec!["malformed", "missing-field", "verified"],
            format!("{{\"usage\":[5,{{}},{}]}}", text(1)),
        ),
        // Whole inputs that are no carrier.
        (vec!["malformed"], String::new()),
        (vec!["malformed"], "  \n ".to_owned()),
        (vec!["malformed"], "hello".to_owned()),
        (vec!["malformed"], "<smartLicense>".to_owned()),
        (vec!["malformed"], "<!DOCTYPE x []>".to_owned() + &a),
        (vec!["malformed"], document(&a).replace("UTF-8", "ISO-8859-1")),
        (vec!["malformed"], "<a b='1' b='2'/>".to_owned()),
        (vec!["malformed"], "<a>\u{1}</a>".to_owned()),
    ];
    for (expected, text) in table {
        assert_eq!(
            Mediation { keyring: m.keys.keyring(), ..Mediation::new() }.take(text.as_bytes()),
            expected,
            "{text}"
        );
    }
}

#[test]
fn invalid_utf8_makes_the_rest_malformed() {
    let mut m = Mediation::new();
    let text = m.envelope(&payload(1)).to_string();
    let xml = format!(
        "<smartLicense><RUMReport><![CDATA[{text}]]></RUMReport><RUMReport><![CDATA[#]]></RUMReport></smartLicense>"
    );
    let broken: Vec<u8> = xml.bytes().map(|b| if b == b'#' { 0xff } else { b }).collect();
    assert_eq!(m.take(&broken), ["verified", "malformed"]);
    let list = format!("{{\"usage\":[{text},\"#\"]}}");
    let broken: Vec<u8> = list.bytes().map(|b| if b == b'#' { 0xff } else { b }).collect();
    assert_eq!(m.take(&broken), ["duplicate", "malformed"]);
    assert_eq!(m.take(b"\xff\xfe<\0a\0"), ["malformed"]);
}

#[test]
fn what_stands_beside_a_report_is_kept_with_it() {
    let xml = "<smartLicense><a>1</a><RUMReport>x</RUMReport><b/><RUMReport>y</RUMReport><c/></smartLicense>";
    let kept: Vec<(String, String)> = items(xml.as_bytes(), &CarrierLimits::default())
        .into_iter()
        .map(|item| match item {
            Item::Report(r) => {
                (String::from_utf8(r.text).unwrap(), String::from_utf8(r.context).unwrap())
            }
            Item::Ignored { .. } => panic!("nothing is ignored"),
        })
        .collect();
    let expected =
        [("x", "<a>1</a><b/>"), ("y", "<c/>")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(kept, expected);
}

// ---- bundles -----------------------------------------------------------------------------------

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Names as an attacker writes them: the builder would refuse some.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        out.append(&header, *bytes).unwrap();
    }
    out.into_inner().unwrap()
}

#[test]
fn bundles_are_read_whole_or_not_at_all() {
    let m = Mediation::new();
    let xml = |id: u64| {
        format!("<RUMReport><![CDATA[{}]]></RUMReport>", m.envelope(&payload(id))).into_bytes()
    };
    let (a, b) = (xml(1), xml(2));
    let va = gzip(&tar(&[("dev_1.txt", &a), ("dev_2.txt", &b)]));
    let sa = gzip(&tar(&[("manifest.mf", b"wrong names"), ("UD_VA_1.tar.gz", &va)]));
    let good = vec!["verified", "verified"];
    let mut table: Vec<(&str, Vec<&str>, Vec<u8>)> = vec![
        ("bundle", good.clone(), sa.clone()),
        ("its inner archive alone", good.clone(), va.clone()),
        ("a tar that is not packed", good.clone(), tar(&[("x", &a), ("y", &b)])),
        ("one packed file", vec!["verified"], gzip(&a)),
        (
            "names that leave the archive",
            good,
            gzip(&tar(&[("../../etc/passwd", &a), ("/tmp/x", &b)])),
        ),
        ("only a manifest", vec![], gzip(&tar(&[("manifest.mf", b"x")]))),
        ("an empty member", vec!["malformed", "verified"], gzip(&tar(&[("x", b""), ("y", &a)]))),
        ("cut", vec!["malformed"], sa[..sa.len() / 2].to_vec()),
        ("cut by a byte", vec!["malformed"], sa[..sa.len() - 1].to_vec()),
        (
            "cut inner archive",
            vec!["malformed", "verified"],
            gzip(&tar(&[("v", &va[..va.len() / 2]), ("x", &a)])),
        ),
        ("damaged", vec!["malformed"], {
            let mut damaged = sa.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            damaged
        }),
        ("a cut tar, packed whole", vec!["malformed"], gzip(&tar(&[("x", &a), ("y", &b)])[..700])),
    ];
    let deep = (0..6).fold(va, |inner, _| gzip(&tar(&[("v.tar.gz", &inner)])));
    table.push(("nested too deeply", vec!["too-large"], deep));
    for (what, expected, bytes) in table {
        assert_eq!(
            Mediation { keyring: m.keys.keyring(), ..Mediation::new() }.take(&bytes),
            expected,
            "{what}"
        );
    }
}

#[test]
fn an_archive_over_a_limit_is_one_too_large() {
    let good = b"<smartLicense/>";
    let small = CarrierLimits {
        archive_members_max: 3,
        archive_bytes_max: 100_000,
        ..CarrierLimits::default()
    };
    let take = |bytes: &[u8]| Mediation { limits: small, ..Mediation::new() }.take(bytes);
    let members = |n: usize| gzip(&tar(&vec![("x", &good[..]); n]));
    assert_eq!(take(&members(3)), ["ignored"; 3]);
    assert_eq!(take(&members(4)), ["too-large"]);
    assert_eq!(take(&gzip(&tar(&[("a", good), ("x", &vec![b' '; 120_000])]))), ["too-large"]);
    // Spread over two levels, the sum counts.
    let inner = gzip(&tar(&[("x", &vec![b' '; 60_000])]));
    assert_eq!(take(&gzip(&tar(&[("1", &inner), ("2", &inner)]))), ["too-large"]);
    // A bomb: 300 MB of nothing in 300 KB, far beyond any honest ratio.
    let bomb = gzip(&tar(&[("x", &vec![b'\n'; 300 << 20])]));
    assert_eq!(Mediation::new().take(&bomb), ["too-large"]);
}

// ---- properties --------------------------------------------------------------------------------

/// Gives its bytes in pieces, so that every state of the window is met.
struct InPieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(self.1).min(out.len());
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

impl Source for InPieces<'_> {
    fn name(&self) -> &str {
        "input"
    }
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Pieces(self.bytes, self.piece)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make reading panic; every input says something, and what is kept is bounded.
    #[test]
    fn any_bytes_have_a_disposition(bytes in prop::collection::vec(any::<u8>(), 0..400), prefix in 0usize..6) {
        let prefixes: [&[u8]; 6] = [b"", b"<smartLicense>", b"{\"usage\":[", b"{\"payload\":\"", b"\x1f\x8b\x08\x00", b"<RUMReport><![CDATA["];
        let input = [prefixes[prefix], &bytes].concat();
        prop_assert!(!Mediation::new().take(&input).is_empty());
    }

    /// Text that looks like the carriers' own.
    #[test]
    fn any_markup_has_a_disposition(parts in prop::collection::vec(prop::sample::select(vec![
        "<smartLicense>", "</smartLicense>", "<RUMReport>", "</RUMReport>", "<![CDATA[", "]]>", "<a/>", "<!--", "-->",
        "&amp;", "&#65;", "&x;", "{", "}", "[", "]", "\"usage\":", "\"payload\":", "\"\"", ",", "1", "<?xml version='1.0'?>", "x", "\u{e9}",
    ]), 0..12)) {
        prop_assert!(!Mediation::new().take(parts.concat().as_bytes()).is_empty());
    }

    /// However the input comes, it is read the same; cut anywhere, what stands before the cut is read
    /// and the rest is one.
    #[test]
    fn reading_does_not_depend_on_the_window(piece in 1usize..5000, cut in 0usize..100, list: bool) {
        let m = Mediation::new();
        let (open, close, end) =
            if list { ("", " , ", "]}") } else { ("<RUMReport><![CDATA[", "]]></RUMReport>\n", "</smartLicense>") };
        let mut whole = (if list { "{\"usage\":[" } else { "<smartLicense>" }).to_owned();
        // Where each report is complete: in a list by its brace, in XML by its end tag.
        let mut ends = Vec::new();
        for id in 1..4 {
            whole += &format!("{open}{}", m.envelope(&payload(id)));
            ends.push(whole.len() + if list { 0 } else { close.len() - 1 });
            whole += close;
        }
        whole.truncate(whole.len() - if list { close.len() } else { 0 });
        whole += end;
        let cut = whole.len() * cut / 100;
        for bytes in [whole.as_bytes(), &whole.as_bytes()[..cut]] {
            let mut pieced = Vec::new();
            read_source(&InPieces { bytes, piece }, &CarrierLimits::default(), &mut |item| { pieced.push(item); true }).unwrap();
            prop_assert_eq!(&pieced, &items(bytes, &CarrierLimits::default()));
        }
        let complete = ends.iter().filter(|end| **end <= cut).count();
        let words = Mediation { keyring: m.keys.keyring(), ..Mediation::new() }.take(&whole.as_bytes()[..cut]);
        let mut expected = vec!["verified"; complete];
        expected.push("malformed");
        prop_assert_eq!(words, expected);
    }

    /// One byte changed in a signed report never becomes usage.
    #[test]
    fn a_changed_payload_is_never_accepted(at in 0usize..500, to in 1u8..127) {
        let mut m = Mediation::new();
        let mut envelope = m.envelope(&payload(1));
        let mut text = envelope["payload"].as_str().unwrap().as_bytes().to_vec();
        let at = at % text.len();
        prop_assume!(text[at] != to);
        text[at] = to;
        envelope["payload"] = String::from_utf8(text).unwrap().into();
        let word = m.one(&envelope);
        prop_assert!(word != "verified" && word != "unverifiable", "{}", word);
    }
}
