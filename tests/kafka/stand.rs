//! A topic of its own, a lake of its own, and workers on them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rdkafka::config::ClientConfig;
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError;
use rdkafka::message::Message as _;
use rdkafka::{Offset, TopicPartitionList};

use crate::support::{Place, Ran, counts, ran};

/// True where the tests run at full length.
pub(crate) fn long() -> bool {
    std::env::var_os("RUMLEDGER_TEST_LONG").is_some()
}

pub(crate) fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("ci/kafka/broker.sh")
}

/// What `broker.sh env` says.
pub(crate) fn broker_env() -> BTreeMap<String, String> {
    let said = Command::new(script()).arg("env").output().unwrap();
    let said = String::from_utf8(said.stdout).unwrap();
    said.lines()
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

/// Address of the broker; ends the test with a clear line where none is up.
pub(crate) fn brokers() -> String {
    let brokers = broker_env()["RUMLEDGER_TEST_BROKERS"].clone();
    assert!(
        std::net::TcpStream::connect(&brokers).is_ok(),
        "no Kafka broker listens on {brokers}: run `ci/kafka/broker.sh up` (or `just kafka-up`) first"
    );
    brokers
}

/// A message as it was produced: partition and offset, then the value.
pub(crate) type Produced = BTreeMap<(i32, i64), Vec<u8>>;

pub(crate) struct Stand {
    pub(crate) place: Place,
    pub(crate) brokers: String,
    pub(crate) topic: String,
    pub(crate) receipts: String,
    pub(crate) trust: String,
}

static NEXT: AtomicU32 = AtomicU32::new(0);

impl Stand {
    pub(crate) fn new() -> Stand {
        Self::at(brokers())
    }

    pub(crate) fn at(brokers: String) -> Stand {
        let name = format!("t{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        Stand {
            place: Place::new(),
            brokers,
            topic: format!("{name}.reports"),
            receipts: format!("{name}.receipts"),
            trust: format!("{name}.trust"),
        }
    }

    /// Sends a fleet's reports, writes its book and imports it. Gives what must come of the reports.
    pub(crate) fn produce(&self, args: &[&str]) -> BTreeMap<String, u64> {
        let said = ran(self.generator(args).output().unwrap());
        assert_eq!(said.status, 0, "{}", said.stderr);
        self.place.ok(0, &["-q", "book", "import", "fleet/book"]);
        counts(&said.stdout)
    }

    /// The generator; keys keep the reports of a device in one partition of four.
    pub(crate) fn generator(&self, args: &[&str]) -> Command {
        let mut all = vec!["-q", "--format", "csv", "fleet", "generate", "--out", "fleet"];
        all.extend(["--brokers", &self.brokers, "--topic", &self.topic, "--partitions", "4"]);
        all.extend(args);
        self.place.command(&all)
    }

    pub(crate) fn worker(&self, args: &[&str]) -> Command {
        let mut all = vec!["-v", "--format", "csv", "ingest", "kafka", "--brokers", &self.brokers];
        all.extend(["--group", "g", "--topic", &self.topic, "--receipts-topic", &self.receipts]);
        all.extend(["--trust-topic", &self.trust, "--listen", "off"]);
        // A worker that was killed is missed soon: these are test machines.
        all.extend(["--set", "session.timeout.ms=6000", "--set", "heartbeat.interval.ms=500"]);
        all.extend(args);
        let mut command = self.place.command(&all);
        command.stdin(Stdio::null());
        command
    }

    /// Runs a worker until nothing came for some seconds.
    pub(crate) fn drain(&self) -> Ran {
        self.drain_as(&[])
    }

    pub(crate) fn drain_as(&self, args: &[&str]) -> Ran {
        let ran = ran(self.worker(&[&["--idle-exit", "4"], args].concat()).output().unwrap());
        assert!(matches!(ran.status, 0 | 3), "{}", ran.stderr);
        ran
    }

    pub(crate) fn spawn(&self, args: &[&str], environment: &[(&str, &str)]) -> Running {
        let mut command = self.worker(args);
        command.envs(environment.iter().copied()).stdout(Stdio::null());
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let log = self.place.path(&format!("worker-{number}.log"));
        command.stderr(std::fs::File::create(&log).unwrap());
        Running { child: command.spawn().unwrap(), log }
    }

    /// All committed messages of a topic, as another reader sees them.
    pub(crate) fn read_topic(&self, topic: &str) -> Produced {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.brokers)
            .set("group.id", "another-reader")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("enable.auto.commit", "false")
            .create()
            .unwrap();
        let metadata = consumer.fetch_metadata(Some(topic), Duration::from_secs(20)).unwrap();
        let mut list = TopicPartitionList::new();
        let partitions = metadata.topics()[0].partitions().len();
        for p in metadata.topics()[0].partitions() {
            list.add_partition_offset(topic, p.id(), Offset::Beginning).unwrap();
        }
        consumer.assign(&list).unwrap();
        let (mut all, mut ended) = (Produced::new(), 0);
        let started = Instant::now();
        while ended < partitions {
            assert!(started.elapsed() < Duration::from_secs(120), "{topic} cannot be read");
            match consumer.poll(Duration::from_secs(1)) {
                Some(Ok(m)) => {
                    let value = m.payload().unwrap_or_default().to_vec();
                    all.insert((m.partition(), m.offset()), value);
                }
                Some(Err(KafkaError::PartitionEOF(_))) => ended += 1,
                Some(Err(error)) => panic!("{topic}: {error}"),
                None => {}
            }
        }
        all
    }

    /// Holds that the journal is exactly what was produced: each message one row, nothing accepted
    /// twice, each suspended report with its bytes.
    pub(crate) fn journal_is(&self, produced: &Produced) {
        let places = self
            .place
            .sql("SELECT partition, \"offset\", count(*) FROM journal GROUP BY 1, 2 ORDER BY 1, 2");
        let wanted: Vec<String> = produced.keys().map(|(p, o)| format!("{p},{o},1")).collect();
        let first = places.iter().zip(&wanted).find(|(a, b)| a != b);
        assert!(
            places == wanted,
            "{} places in the journal, {} messages produced; the first that differs: {first:?}",
            places.len(),
            wanted.len()
        );
        let twice = self.place.sql(
            "SELECT udi_pid, udi_serial, report_id FROM journal WHERE disposition = 'accepted' \
             GROUP BY 1, 2, 3 HAVING count(*) > 1",
        );
        assert_eq!(twice, Vec::<String>::new(), "accepted twice");
        let suspended = self.place.sql(
            "SELECT partition, \"offset\", encode(raw, 'hex') FROM journal \
             WHERE disposition = 'suspended' ORDER BY 1, 2",
        );
        for row in suspended {
            let cells: Vec<&str> = row.split(',').collect();
            let place = (cells[0].parse().unwrap(), cells[1].parse().unwrap());
            let raw = unhex(cells[2]);
            let held = produced[&place].windows(raw.len().max(1)).any(|part| part == raw);
            assert!(held && !raw.is_empty(), "the bytes of {place:?} are not what was sent");
        }
    }

    /// Holds that every message has a receipt, and none lies.
    pub(crate) fn receipts_are(&self, produced: &Produced) {
        let mut told: BTreeMap<(i32, i64), String> = BTreeMap::new();
        for receipt in self.read_topic(&self.receipts).values() {
            let receipt: serde_json::Value = serde_json::from_slice(receipt).unwrap();
            let position = &receipt["position"];
            assert_eq!(position["topic"], self.topic.as_str());
            let place = (
                i32::try_from(position["partition"].as_i64().unwrap()).unwrap(),
                position["offset"].as_i64().unwrap(),
            );
            let disposition = receipt["disposition"].as_str().unwrap().to_owned();
            let before = told.insert(place, disposition.clone());
            assert!(before.is_none_or(|b| b == disposition), "two receipts of {place:?} differ");
        }
        let missing = produced.keys().find(|place| !told.contains_key(place));
        assert_eq!(missing, None, "no receipt");
        let rows = self.place.sql("SELECT partition, \"offset\", disposition FROM journal");
        for row in rows {
            let cells: Vec<&str> = row.split(',').collect();
            let place = (cells[0].parse().unwrap(), cells[1].parse().unwrap());
            assert_eq!(told[&place], cells[2], "the receipt of {place:?} lies");
        }
    }

    /// Dispositions of the journal.
    pub(crate) fn dispositions(&self) -> BTreeMap<String, u64> {
        let rows = self.place.sql("SELECT disposition, count(*) FROM journal GROUP BY 1");
        rows.iter()
            .map(|row| {
                let (name, n) = row.split_once(',').unwrap();
                (name.to_owned(), n.parse().unwrap())
            })
            .collect()
    }
}

fn unhex(text: &str) -> Vec<u8> {
    text.as_bytes()
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// A worker process.
pub(crate) struct Running {
    child: Child,
    log: PathBuf,
}

impl Running {
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &pid]).status().unwrap().success());
    }

    pub(crate) fn kill(mut self) {
        let _ = self.child.kill();
        self.child.wait().unwrap();
    }

    pub(crate) fn has_ended(&mut self) -> bool {
        self.child.try_wait().unwrap().is_some()
    }

    /// Sends SIGTERM and gives the exit status.
    pub(crate) fn stop(&mut self) -> Option<i32> {
        if !self.has_ended() {
            self.signal("TERM");
        }
        self.wait(Duration::from_secs(60))
    }

    /// Waits for the end; `None` after a signal.
    pub(crate) fn wait(&mut self, most: Duration) -> Option<i32> {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(started.elapsed() < most, "the worker does not end:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap()
    }

    /// Peak resident memory, MiB, so far.
    pub(crate) fn peak_mib(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find(|l| l.starts_with("VmHWM:")).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something is so.
pub(crate) fn until(what: &str, most: Duration, mut so: impl FnMut() -> bool) {
    let started = Instant::now();
    while !so() {
        assert!(started.elapsed() < most, "not in {most:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}
