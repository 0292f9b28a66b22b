//! What comes beside reports: headers of the collector, ACKs.

use std::time::Duration;

use rdkafka::config::ClientConfig;
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use crate::stand::Stand;

/// R2.4, R6.5, R10.3: what the rules ask of a collector comes with its headers; a document without a report is
/// kept as evidence, once.
#[test]
fn headers_and_acks_reach_the_lake() {
    let stand = Stand::new();
    stand.produce(&["--reports", "20", "--devices", "10", "--duplicates", "0", "--broken", "0"]);
    stand.place.ok(0, &["-q", "book", "import", "fleet/book"]);
    let report = r#"{"payload":"{\"version\":\"2.0\",\"asset_identification\":{\"report_id\":1,\"instance\":{\"sudi\":{\"udi_pid\":\"C8000V\",\"udi_serial_number\":\"H1\"}}},\"meta\":{\"entitlement_tag\":\"T\",\"software_version\":\"17.12.04\"},\"measurements\":[{\"metric_name\":\"ENTITLEMENT\",\"start_time\":1760000000,\"end_time\":1760003600,\"value\":{\"type\":\"COUNT\",\"value\":\"1\"}}]}","signature":{"signing_type":"builtin","value":"AAAA"}}"#;
    let ack = "<smartLicenseRumAck><id>7</id></smartLicenseRumAck>";
    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", &stand.brokers).create().unwrap();
    let headers = [
        ("slp-collector", "ssm-on-prem"),
        ("slp-collector-version", "8-202012"),
        ("slp-collection", "push"),
        ("slp-transport", "callhome"),
    ]
    .into_iter()
    .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(value) }));
    for (payload, headers) in [(report, headers.clone()), (ack, headers.clone()), (ack, headers)] {
        producer
            .send(BaseRecord::to(&stand.topic).key("C8000V:H1").payload(payload).headers(headers))
            .map_err(|e| e.0)
            .unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    stand.drain();
    let kept = stand.place.sql(
        "SELECT disposition, collector, collector_version, collection, transport FROM journal WHERE udi_serial = 'H1'",
    );
    assert_eq!(kept, ["accepted,ssm-on-prem,8-202012,push,callhome"]);
    let documents = stand.place.sql("SELECT element, collector, source FROM documents");
    assert_eq!(documents, [format!("smartLicenseRumAck,ssm-on-prem,{}", stand.topic)]);
    let found = stand.place.run(&["findings", "--rule", "collector-too-old", "--format", "csv"]);
    assert_eq!((found.status, found.stdout.lines().count()), (3, 2), "{}", found.stdout);
}
