//! Trust codes over their topic, and reports that waited for them (R7.4).

use std::time::Duration;

use rdkafka::admin::{AdminOptions, NewTopic, TopicReplication};
use rdkafka::config::ClientConfig;
use rdkafka::producer::{BaseRecord, Producer as _, ThreadedProducer};

use crate::order::{admin, block};
use crate::stand::{Stand, until};
use crate::support::counts;

/// Sends the rows of a book's trust_codes.csv to the topic, some of them broken.
fn send_codes(stand: &Stand) -> usize {
    let codes = std::fs::read_to_string(stand.place.path("codes.csv")).unwrap();
    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", &stand.brokers).create().unwrap();
    let mut lines = codes.lines();
    let columns: Vec<&str> = lines.next().unwrap().split(',').collect();
    let mut sent = 0;
    for line in lines {
        let cells: Vec<&str> = line.split(',').collect();
        let object: serde_json::Map<String, serde_json::Value> = columns
            .iter()
            .zip(&cells)
            .map(|(c, v)| ((*c).to_owned(), serde_json::Value::from(*v)))
            .collect();
        let key = format!("{}:{}", cells[0], cells[1]);
        let value = serde_json::Value::Object(object).to_string();
        producer
            .send(BaseRecord::to(&stand.trust).key(&key).payload(&value))
            .map_err(|e| e.0)
            .unwrap();
        sent += 1;
    }
    // Neither stops the worker, both are kept.
    for broken in ["{\"udi_pid\":\"X\"}", "no json"] {
        producer
            .send(BaseRecord::to(&stand.trust).key("X:Y").payload(broken))
            .map_err(|e| e.0)
            .unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    sent
}

/// A stand whose book lacks all trust codes; they stand in codes.csv.
fn without_codes() -> Stand {
    let stand = Stand::new();
    stand.produce(&["--reports", "1500", "--devices", "60", "--duplicates", "0", "--broken", "0"]);
    let codes = stand.place.path("fleet/book/trust_codes.csv");
    std::fs::rename(&codes, stand.place.path("codes.csv")).unwrap();
    stand.place.ok(0, &["-q", "book", "import", "fleet/book"]);
    stand
}

#[test]
fn suspended_reports_are_taken_up_when_their_trust_code_comes() {
    let stand = without_codes();
    make_topic(&stand);
    let before = counts(&stand.drain().stdout);
    assert!(before["trust-unknown"] > 1000, "{before:?}");
    let mut worker = stand.spawn(&[], &[]);
    until("the worker reads", Duration::from_secs(30), || {
        worker.log().contains("partitions assigned")
    });
    let codes = send_codes(&stand);
    until("all are taken up", Duration::from_secs(60), || {
        !stand.dispositions().contains_key("suspended")
    });
    assert_eq!(worker.stop(), Some(0), "{}", worker.log());
    assert_eq!(stand.dispositions()["accepted"], 1500);
    let verified = stand.place.sql("SELECT count(*) FROM journal WHERE signature = 'verified'");
    assert_eq!(verified, [before["trust-unknown"].to_string()]);
    stand.journal_is(&stand.read_topic(&stand.topic));
    // Their senders were told first that they wait, then that they are accepted.
    let receipts = stand.read_topic(&stand.receipts);
    let said = |what: &str| {
        let what = format!("\"disposition\":\"{what}\"");
        receipts.values().filter(|r| String::from_utf8_lossy(r).contains(&what)).count() as u64
    };
    assert_eq!(said("suspended"), before["trust-unknown"]);
    assert_eq!(said("accepted"), 1500);
    let kept = stand.place.sql("SELECT count(*), count(fault) FROM trust_codes");
    assert_eq!(kept, [format!("{},2", codes + 2)]);
    // A worker that starts later has them too, and takes nothing twice.
    let again = counts(&stand.drain().stdout);
    assert_eq!(again["received"], 0);
}

/// A worker that is killed between taking reports up and their receipts owes them; who comes next sends them, once.
#[test]
fn receipts_of_reports_taken_up_outlive_a_kill() {
    let stand = without_codes();
    make_topic(&stand);
    let waiting = counts(&stand.drain().stdout)["trust-unknown"];
    send_codes(&stand);
    let point = [("RUMLEDGER_FAILPOINT", "before-receipts-of-taken-up")];
    let mut killed = stand.spawn(&[], &point);
    assert_eq!(killed.wait(Duration::from_secs(90)), None, "{}", killed.log());
    let taken_up =
        "SELECT count(*) FROM journal WHERE disposition = 'accepted' AND acts IS NOT NULL";
    let of_killed: u64 = stand.place.sql(taken_up)[0].parse().unwrap();
    assert!(of_killed > 0, "nothing was exchanged before the kill");
    let said = || {
        let receipts = stand.read_topic(&stand.receipts);
        let accepted = |r: &&Vec<u8>| String::from_utf8_lossy(r).contains("\"accepted\"");
        receipts.values().filter(accepted).count() as u64
    };
    assert_eq!(said(), 1500 - waiting);
    stand.drain();
    assert_eq!(stand.dispositions()["accepted"], 1500);
    assert_eq!(said(), 1500);
    // It is said that nothing is owed any more: the next worker sends nothing.
    stand.drain();
    assert_eq!(said(), 1500);
}

#[test]
fn suspense_retry_takes_up_what_the_book_brought() {
    let stand = without_codes();
    let before = counts(&stand.drain().stdout);
    let waiting = before["trust-unknown"];
    let none = counts(&stand.place.ok(3, &["suspense", "retry", "--format", "csv"]));
    assert_eq!((none["judged again"], none["accepted"]), (waiting, 0));
    std::fs::rename(stand.place.path("codes.csv"), stand.place.path("fleet/book/trust_codes.csv"))
        .unwrap();
    stand.place.ok(0, &["-q", "book", "import", "fleet/book"]);
    let wrong = stand.place.run(&["suspense", "retry", "--reason", "no-such"]);
    assert_eq!(wrong.status, 2);
    let retry = ["suspense", "retry", "--reason", "trust-unknown", "--format", "csv"];
    let done = counts(&stand.place.ok(0, &retry));
    assert_eq!((done["judged again"], done["accepted"]), (waiting, waiting));
    assert_eq!(stand.dispositions()["accepted"], 1500);
    stand.journal_is(&stand.read_topic(&stand.topic));
}

/// What stands at the same offsets of another topic under the same name was not read yet.
#[test]
fn a_trust_topic_made_anew_is_read_from_its_start() {
    let stand = without_codes();
    make_topic(&stand);
    stand.drain();
    let mut worker = stand.spawn(&[], &[]);
    until("the worker reads", Duration::from_secs(30), || {
        worker.log().contains("partitions assigned")
    });
    let producer: ThreadedProducer<_> =
        ClientConfig::new().set("bootstrap.servers", &stand.brokers).create().unwrap();
    for n in 0..200 {
        let key = format!("C8000V:{n}");
        let broken = BaseRecord::to(&stand.trust).key(&key).payload("no trust code");
        producer.send(broken).map_err(|e| e.0).unwrap();
    }
    producer.flush(Duration::from_secs(20)).unwrap();
    until("the first topic is read", Duration::from_secs(30), || {
        stand.place.sql("SELECT count(fault) FROM trust_codes") == ["200"]
    });
    block(admin(&stand.brokers).delete_topics(&[&stand.trust], &AdminOptions::new())).unwrap();
    std::thread::sleep(Duration::from_secs(2));
    make_topic(&stand);
    send_codes(&stand);
    until("all are taken up", Duration::from_secs(90), || {
        !stand.dispositions().contains_key("suspended")
    });
    assert_eq!(worker.stop(), Some(0), "{}", worker.log());
    assert_eq!(stand.dispositions()["accepted"], 1500);
}

fn make_topic(stand: &Stand) {
    let new =
        NewTopic::new(&stand.trust, 2, TopicReplication::Fixed(1)).set("cleanup.policy", "compact");
    let made = block(admin(&stand.brokers).create_topics([&new], &AdminOptions::new())).unwrap();
    assert!(made.iter().all(Result::is_ok), "{made:?}");
}
