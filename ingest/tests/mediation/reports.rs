//! Every reason and every bound of one report.

use schemas::disposition::{Reason, SignaturePolicy};
use serde_json::{Value, json};

use crate::desk::*;

/// R1, R7.4, R10.9.
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

/// R7.1.
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

/// R7.2.
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

/// R2.2, R6.1: one report, however often and by whatever way it comes.
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

/// R7.3: each member has a trust code of its own.
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
