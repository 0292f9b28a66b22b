//! A fleet with planted faults: of each kind so many product instances, each in an account of its own, and
//! what has to be found of it (`faults.csv`), to the row.
//!
//! Reports lie in a folder for each way that they came; `deliveries.csv` says what `ingest files` is to be
//! told of each, and when.

use std::path::Path;

use anyhow::Context as _;
use schemas::disposition::Reason;
use schemas::finding::Rule;
use schemas::key::Algorithm;
use schemas::period::{EpochSeconds, rfc3339};
use serde_json::{Value, json};

use super::Written;
use super::book::{owned, write};
use super::files;
use super::report::{ADVANTAGE, DNA_HSEC, Fleet, ISR_HSEC, NETWORK_PLUS, SOFTWARE_TAG, builtin};

const DAY: EpochSeconds = 86_400;
/// Long before anything is reported.
const EARLIER: &str = "2020-01-01";

/// How reports came: what the collector says of a folder of files.
struct Delivery {
    name: &'static str,
    collector: &'static str,
    version: &'static str,
    collection: &'static str,
    transport: &'static str,
    account: &'static str,
    /// Days before the end of the fleet's last month.
    days_before_end: i64,
}

const fn delivery(name: &'static str, collector: &'static str, version: &'static str) -> Delivery {
    Delivery {
        name,
        collector,
        version,
        collection: "file",
        transport: "",
        account: "",
        days_before_end: 0,
    }
}

/// No collector: what it sends is refused (R10.9).
const NOBODY: &str = "billing-platform";

const DELIVERIES: &[Delivery] = &[
    Delivery { days_before_end: 41, ..delivery("early", "file", "") },
    delivery("file", "file", ""),
    delivery("cslu", "cslu", "2.1.0"),
    delivery("cslu-old", "cslu", "1.6.0"),
    delivery("vmanage", "vmanage", "20.5.1"),
    Delivery { collection: "push", ..delivery("push", "cslu", "2.1.0") },
    delivery("nobody", NOBODY, ""),
    Delivery { transport: "callhome", ..delivery("callhome", "file", "") },
    Delivery { account: "elsewhere.example/V", ..delivery("moved", "ssm-on-prem", "8-202206") },
];

/// A report of a planted device.
#[derive(Clone)]
struct Planned {
    id: u64,
    /// In parts of the month, of which there are ten.
    from: i64,
    to: i64,
    value: u64,
    release: &'static str,
    layout: u8,
    ha: &'static [&'static str],
    /// `meta` of the measurement.
    aside: Value,
}

/// A planted device with its rows of the book.
#[derive(Clone)]
struct Device {
    kind: &'static str,
    pid: &'static str,
    tag: &'static str,
    utility: bool,
    managed_by: &'static str,
    model: &'static str,
    transport: &'static str,
    delivery: &'static str,
    reports: Vec<Planned>,
    /// Quantity and, if it ends, the tenth of the month after which it does.
    purchase: Option<(u64, Option<i64>)>,
    other_purchase: Option<&'static str>,
    is_subscribed: bool,
    /// Kind, tag, code version, and the tenth of the month after which it is returned.
    authorization: Option<(&'static str, &'static str, &'static str, Option<i64>)>,
    /// Rules that it breaks; those of the account as a whole are marked.
    breaks: Vec<(Rule, bool)>,
    coverage: &'static str,
}

fn planned(id: u64, from: i64, to: i64) -> Planned {
    Planned { id, from, to, value: 2, release: "17.12.04", layout: 2, ha: &[], aside: Value::Null }
}

/// A device that breaks nothing, prepaid.
fn clean(kind: &'static str) -> Device {
    Device {
        kind,
        pid: "C8300-1N1S-6T",
        tag: NETWORK_PLUS,
        utility: false,
        managed_by: "none",
        model: "slp",
        transport: "",
        delivery: "file",
        reports: vec![planned(1, 0, 5), planned(2, 5, 10)],
        purchase: Some((100, None)),
        other_purchase: None,
        is_subscribed: false,
        authorization: None,
        breaks: Vec::new(),
        coverage: "covered",
    }
}

/// A device that breaks nothing, post-paid.
fn postpaid(kind: &'static str) -> Device {
    Device {
        pid: "C8000V",
        tag: ADVANTAGE,
        utility: true,
        purchase: None,
        is_subscribed: true,
        ..clean(kind)
    }
}

impl Device {
    fn breaks(mut self, rule: Rule) -> Device {
        self.breaks.push((rule, false));
        self
    }

    fn account_breaks(mut self, rule: Rule) -> Device {
        self.breaks.push((rule, true));
        self
    }

    fn release(mut self, release: &'static str) -> Device {
        for report in &mut self.reports {
            report.release = release;
        }
        self
    }

    fn first(mut self, change: impl FnOnce(&mut Planned)) -> Device {
        change(&mut self.reports[0]);
        self
    }
}

fn added(serials: &[&str]) -> Value {
    let of = |serial: &&str| json!({"udi_pid": "SUB", "udi_serial_number": serial});
    json!({"added_sudi_list": serials.iter().map(of).collect::<Vec<_>>()})
}

/// One device of each kind.
fn kinds() -> Vec<Device> {
    let hsec = |kind| Device { tag: DNA_HSEC, ..clean(kind) };
    let slac = |returned| Some(("SLAC", DNA_HSEC, "", returned));
    vec![
        clean("clean"),
        postpaid("clean-postpaid"),
        Device { authorization: slac(None), ..hsec("clean-slac") },
        Device { authorization: Some(("PAK", NETWORK_PLUS, "", None)), ..clean("clean-pak") }
            .first(|r| r.release = "17.9.1a"),
        clean("clean-sub-devices").first(|r| r.aside = added(&["A", "B"])),
        Device { pid: "N9K-C93180YC-EX", ..clean("product-unsupported") }
            .breaks(Rule::ProductUnsupported),
        Device { pid: "ISR4331/K9", ..clean("release-too-old") }
            .release("17.3.1")
            .breaks(Rule::ReleaseTooOld),
        Device { delivery: "cslu-old", ..postpaid("collector-too-old") }
            .breaks(Rule::CollectorTooOld),
        Device { delivery: "vmanage", ..clean("release-too-old-for-collector") }
            .release("17.4.1")
            .breaks(Rule::ReleaseTooOldForCollector),
        Device { managed_by: "vmanage", delivery: "cslu", ..clean("cslu-under-vmanage") }
            .breaks(Rule::CsluUnderVmanage),
        Device { delivery: "nobody", coverage: "never-consumed", ..clean("collector-not-allowed") }
            .breaks(Rule::CollectorNotAllowed),
        Device { delivery: "push", ..clean("throttle") }.breaks(Rule::Throttle),
        Device { delivery: "push", ..clean("clean-before-throttle") }.release("17.6.3"),
        Device { pid: "C8300-1N1S-6T", ..postpaid("utility-product") }.breaks(Rule::UtilityProduct),
        Device { pid: "CSR1000V", ..postpaid("utility-other-programme") }
            .breaks(Rule::UtilityProduct),
        postpaid("utility-release").release("17.6.1a").breaks(Rule::UtilityRelease),
        Device { delivery: "callhome", ..postpaid("utility-call-home") }
            .breaks(Rule::UtilityCallHome),
        Device { utility: false, ..postpaid("postpaid-tag-on-prepaid") }
            .breaks(Rule::PostpaidTagOnPrepaid)
            .account_breaks(Rule::Shortage),
        Device { tag: NETWORK_PLUS, purchase: Some((9, None)), ..postpaid("prepaid-on-postpaid") }
            .breaks(Rule::PrepaidTagOnPostpaid),
        hsec("no-slac").breaks(Rule::NoSlac),
        Device { authorization: slac(Some(3)), ..hsec("slac-returned") }.breaks(Rule::SlacReturned),
        Device { tag: ADVANTAGE, purchase: Some((100, Some(5))), ..clean("use-after-end") }
            .breaks(Rule::UseAfterEnd)
            .account_breaks(Rule::Shortage),
        Device { purchase: Some((1, None)), ..clean("shortage") }.account_breaks(Rule::Shortage),
        Device {
            authorization: Some(("PLR", NETWORK_PLUS, "2", None)),
            ..clean("plr-code-version")
        }
        .breaks(Rule::PlrCodeVersion),
        Device { authorization: Some(("PAK", NETWORK_PLUS, "", None)), ..clean("pak-no-snapshot") }
            .breaks(Rule::PakNoSnapshot),
        Device { pid: "ISR4331/K9", other_purchase: Some(ISR_HSEC), ..clean("hseck9-convertible") }
            .account_breaks(Rule::Hseck9Convertible),
        Device { managed_by: "vmanage", delivery: "vmanage", ..clean("ha-under-vmanage") }
            .first(|r| r.ha = &["Active", "Standby"])
            .breaks(Rule::HaUnderVmanage),
        clean("sub-device-count")
            .first(|r| r.aside = added(&["A", "B", "C"]))
            .breaks(Rule::SubDeviceCount),
        clean("clock-change")
            .first(|r| r.aside = json!({"clock_change_delta": "-3600"}))
            .breaks(Rule::ClockChange),
        Device {
            reports: vec![planned(1, 0, 4), planned(4, 6, 10)],
            coverage: "lost",
            ..clean("report-id-gap")
        }
        .breaks(Rule::ReportIdGap),
        Device {
            reports: vec![planned(1, 0, 4), planned(2, 6, 10)],
            coverage: "gap",
            ..clean("coverage-gap")
        },
        Device { reports: vec![planned(1, 0, 6), planned(2, 5, 10)], ..clean("overlap") }
            .first(|r| {
                (r.release, r.layout) = ("17.6.1a", 1);
            })
            .breaks(Rule::OverlapAcross1771),
        Device { delivery: "moved", ..clean("account-moved") }.breaks(Rule::AccountMoved),
        Device { model: "rtu", transport: "smart", ..clean("transport-after-upgrade") }
            .breaks(Rule::TransportAfterUpgrade),
        Device {
            delivery: "early",
            reports: vec![planned(1, -10, -4)],
            coverage: "silent",
            ..postpaid("silent")
        },
        Device { reports: vec![planned(1, 0, 6)], coverage: "pending", ..postpaid("pending") },
        Device {
            model: "csl",
            reports: vec![planned(1, 0, 6)],
            coverage: "expected",
            ..clean("csl")
        },
        Device {
            reports: vec![Planned { value: 0, ..planned(1, 0, 10) }],
            coverage: "never-consumed",
            ..clean("never-consumed")
        },
    ]
}

/// A device of a kind, with its number in all of them.
struct Numbered {
    device: Device,
    number: u64,
    serial: String,
    account: String,
}

/// Writes book, reports, what they are to be told, and what has to be found.
pub fn generate(fleet: &Fleet, of_each: u64, out: &Path) -> anyhow::Result<Written> {
    let mut devices = Vec::new();
    for n in 0..of_each {
        for (k, device) in kinds().into_iter().enumerate() {
            let serial = format!("F{k:02}{n:06}");
            let account = format!("{}-{n}.example", device.kind);
            devices.push(Numbered { device, number: devices.len() as u64, serial, account });
        }
    }
    write_book(fleet, &devices, &out.join("book"))?;
    write_deliveries(fleet, out)?;
    write_expected(&devices, out)?;
    let mut written = Written::default();
    for delivery in DELIVERIES {
        let dir = out.join("reports").join(delivery.name);
        std::fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let of_delivery: Vec<&Numbered> =
            devices.iter().filter(|d| d.device.delivery == delivery.name).collect();
        for (i, some) in of_delivery.chunks(500).enumerate() {
            let mut texts = Vec::new();
            for device in some {
                for report in &device.device.reports {
                    texts.push(envelope(fleet, device, report)?);
                }
            }
            let reports = texts.len() as u64;
            written.files += 1;
            written.reports += reports;
            if delivery.collector == NOBODY {
                *written.suspended.entry(Reason::SourceNotAllowed).or_default() += reports;
            } else {
                written.accepted += reports;
            }
            let path = dir.join(format!("r{i:05}.xml"));
            std::fs::write(&path, files::xml(&texts))
                .with_context(|| format!("cannot write {}", path.display()))?;
        }
    }
    Ok(written)
}

fn tenth(fleet: &Fleet, tenths: i64) -> EpochSeconds {
    let (start, end) = fleet.last_month;
    start + (end - start) / 10 * tenths + if tenths == 10 { (end - start) % 10 } else { 0 }
}

fn write_book(fleet: &Fleet, devices: &[Numbered], dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let mut accounts: Vec<Vec<String>> =
        devices.iter().map(|d| owned([&d.account, "V", d.device.kind, "EUR", "UTC"])).collect();
    accounts.push(owned(["elsewhere.example", "V", "Elsewhere", "EUR", "UTC"]));
    write(dir, "accounts", accounts)?;
    let catalog = [
        [ADVANTAGE, "Network Advantage T1", "unenforced", "subscription", "true", ""],
        [NETWORK_PLUS, "Network Plus", "unenforced", "perpetual", "false", ""],
        [DNA_HSEC, "DNA HSEC", "export-controlled", "perpetual", "false", "HSECK9"],
        [ISR_HSEC, "ISR 4331 HSEC", "export-controlled", "perpetual", "false", "HSECK9"],
    ];
    write(dir, "catalog", catalog.map(owned))?;
    let rows = devices.iter().map(|Numbered { device: d, serial, account, .. }| {
        owned([
            d.pid,
            serial,
            account,
            "V",
            EARLIER,
            "",
            d.managed_by,
            d.model,
            d.transport,
            "partner",
        ])
    });
    write(dir, "devices", rows)?;
    let subscribed = devices.iter().filter(|d| d.device.is_subscribed).map(|d| {
        let id = format!("Sub{:06}", d.number);
        owned([&id, &d.account, "V", ADVANTAGE, "UNCOMMITTED", "", "plan", EARLIER, ""])
    });
    write(dir, "subscriptions", subscribed)?;
    let mut purchases = Vec::new();
    for Numbered { device, number, account, .. } in devices {
        let mut purchase = |n: u8, tag: &str, quantity: u64, end: &str| {
            let id = format!("PO-{number}-{n}");
            let quantity = quantity.to_string();
            purchases.push(owned([&id, account, "V", tag, &quantity, EARLIER, end, "plan"]));
        };
        if let Some((quantity, ends)) = device.purchase {
            let end = ends.map(|tenths| rfc3339(tenth(fleet, tenths))).unwrap_or_default();
            purchase(1, device.tag, quantity, &end);
        }
        if let Some(tag) = device.other_purchase {
            purchase(2, tag, 5, "");
        }
    }
    write(dir, "purchases", purchases)?;
    let price = |item: &str, price: &str| {
        owned(["plan", item, "usage", EARLIER, "peak", "flat", "", price, "", "EUR"])
    };
    write(
        dir,
        "prices",
        [price(ADVANTAGE, "10"), price(NETWORK_PLUS, "20"), price("HSECK9", "30")],
    )?;
    let codes = devices.iter().map(|d| {
        let key = fleet.keys.public_key(Algorithm::EdDsa, d.number)?;
        Ok(owned([d.device.pid, &d.serial, "ack", "EdDSA", &key, EARLIER, ""]))
    });
    write(dir, "trust_codes", codes.collect::<anyhow::Result<Vec<_>>>()?)?;
    let authorizations = devices.iter().filter_map(|d| {
        let (kind, tag, version, returned) = d.device.authorization?;
        let returned = returned.map(|tenths| rfc3339(tenth(fleet, tenths))).unwrap_or_default();
        Some(owned([d.device.pid, &d.serial, kind, tag, version, EARLIER, &returned]))
    });
    write(dir, "authorizations", authorizations)
}

fn write_deliveries(fleet: &Fleet, out: &Path) -> anyhow::Result<()> {
    let path = out.join("deliveries.csv");
    let save = || -> csv::Result<()> {
        let mut writer = csv::Writer::from_path(&path)?;
        writer.write_record([
            "folder",
            "collector",
            "collector_version",
            "collection",
            "transport",
            "account",
            "received_at",
        ])?;
        for d in DELIVERIES {
            let received = fleet.last_month.1 - d.days_before_end * DAY;
            let folder = format!("reports/{}", d.name);
            writer.write_record([
                &folder,
                d.collector,
                d.version,
                d.collection,
                d.transport,
                d.account,
                &rfc3339(received),
            ])?;
        }
        Ok(writer.flush()?)
    };
    save().with_context(|| format!("cannot write {}", path.display()))
}

/// What `findings` and `coverage` have to say, to the row.
fn write_expected(devices: &[Numbered], out: &Path) -> anyhow::Result<()> {
    let path = out.join("faults.csv");
    let save = || -> csv::Result<()> {
        let mut writer = csv::Writer::from_path(&path)?;
        writer.write_record(["found", "smart_account", "udi_pid", "udi_serial"])?;
        for Numbered { device, serial, account, .. } in devices {
            for (rule, of_account) in &device.breaks {
                let (pid, serial) = if *of_account { ("", "") } else { (device.pid, &**serial) };
                writer.write_record([rule.as_str(), account, pid, serial])?;
            }
            let state = format!("coverage:{}", device.coverage);
            writer.write_record([&state, account, device.pid, serial])?;
        }
        Ok(writer.flush()?)
    };
    save().with_context(|| format!("cannot write {}", path.display()))
}

fn envelope(fleet: &Fleet, numbered: &Numbered, report: &Planned) -> anyhow::Result<String> {
    let Numbered { device, number, serial, .. } = numbered;
    let sudi = json!({"udi_pid": device.pid, "udi_serial_number": serial});
    let (start, end) = (tenth(fleet, report.from), tenth(fleet, report.to));
    let mut measurement = json!({
        "log_time": end, "metric_name": "ENTITLEMENT", "start_time": start, "end_time": end,
        "sample_interval": end - start, "num_samples": 1,
        "value": {"type": "COUNT", "value": report.value.to_string()},
    });
    if !report.aside.is_null() {
        measurement["meta"] = report.aside.clone();
    }
    let mut meta = json!({"entitlement_tag": device.tag, "software_version": report.release});
    if !report.ha.is_empty() {
        let member = |(i, role): (usize, &&str)| {
            let serial = if i == 0 { serial.clone() } else { format!("{serial}-{i}") };
            json!({"role": role, "sudi": {"udi_pid": device.pid, "udi_serial_number": serial}})
        };
        meta["ha_udi"] = report.ha.iter().enumerate().map(member).collect();
    }
    let mut asset = json!({"asset": {"name": SOFTWARE_TAG}, "instance": {"sudi": sudi}});
    let mut payload = if report.layout == 1 {
        meta["report_id"] = report.id.into();
        json!({})
    } else {
        asset["report_id"] = report.id.into();
        meta["utility_enabled"] = device.utility.into();
        json!({"version": "2.0", "signature": builtin()})
    };
    payload["asset_identification"] = asset;
    payload["meta"] = meta;
    payload["measurements"] = json!([measurement]);
    let payload = payload.to_string();
    let value = fleet.keys.sign(Algorithm::EdDsa, *number, payload.as_bytes())?;
    let signature = json!({"signing_type": "EdDSA", "key": "0001", "value": value, "sudi": sudi});
    Ok(json!({"payload": payload, "signature": signature, "header": {"type": "rum"}}).to_string())
}
