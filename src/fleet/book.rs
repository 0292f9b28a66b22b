//! The book of the made-up fleet: six customers, five currencies, every measure and tier mode.

use std::path::Path;

use anyhow::Context as _;
use schemas::book::TABLES;

use super::report::{ADVANTAGE, DNA_HSEC, ESSENTIALS, Fleet, ISR_HSEC, NETWORK_PLUS, TEN};

/// Rows stand in the order of the columns that [`TABLES`] gives.
///
/// Smart account, virtual account, customer, currency, zone.
const ACCOUNTS: [[&str; 5]; 6] = [
    ["northwind.example", "Core", "Northwind Logistics", "USD", "America/New_York"],
    ["hafen.example", "Edge", "Hafen & Söhne GmbH", "EUR", "Europe/Berlin"],
    ["sakura.example", "Tokyo", "Sakura Retail", "JPY", "Asia/Tokyo"],
    ["pearl.example", "Manama", "Pearl Bank", "BHD", "Asia/Bahrain"],
    ["kea.example", "South", "Kea Energy", "NZD", "Pacific/Auckland"],
    ["northwind.example", "Labs", "Northwind Logistics", "USD", "America/New_York"],
];

/// Price of one licence for a whole month, by account, in its currency.
const MONTHLY: [u64; 6] = [42, 38, 6100, 16, 66, 35];

pub fn write_book(fleet: &Fleet, dir: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let accounts = ACCOUNTS.iter().map(|a| a.map(str::to_owned).to_vec());
    write(dir, "accounts", accounts)?;
    write(
        dir,
        "catalog",
        [
            [ADVANTAGE, "Network Advantage T1", "unenforced", "subscription", "true", ""],
            [ESSENTIALS, "Network Essentials T0", "unenforced", "subscription", "true", ""],
            [NETWORK_PLUS, "Network Plus", "unenforced", "perpetual", "false", ""],
            [DNA_HSEC, "DNA HSEC", "export-controlled", "perpetual", "false", "HSECK9"],
            [ISR_HSEC, "ISR 4331 HSEC", "export-controlled", "perpetual", "false", "HSECK9"],
        ]
        .map(owned),
    )?;
    write_devices(fleet, dir)?;
    write_terms(fleet, dir)?;
    write_prices(fleet, dir)
}

pub(super) fn owned<const N: usize>(row: [&str; N]) -> Vec<String> {
    row.map(str::to_owned).to_vec()
}

fn account(device: u64) -> usize {
    ((device / TEN) % ACCOUNTS.len() as u64) as usize
}

fn write_devices(fleet: &Fleet, dir: &Path) -> anyhow::Result<()> {
    let since = fleet.first_month.first_day().to_string();
    let devices = (0..fleet.devices).map(|n| fleet.device(n)).filter(|d| d.in_book).map(|d| {
        let [smart, virtual_, ..] = ACCOUNTS[account(d.number)];
        owned([d.pid, &d.serial, smart, virtual_, &since, "", "cslu", "slp", "cslu", "direct"])
    });
    write(dir, "devices", devices)?;
    let trusted = since.as_str().min("2020-01-01");
    let codes = (0..fleet.devices).map(|n| fleet.device(n)).filter_map(|d| {
        let algorithm = d.algorithm?;
        let key = fleet.keys.public_key(algorithm, d.number);
        Some(key.map(|key| owned([d.pid, &d.serial, "ack", algorithm.as_str(), &key, trusted, ""])))
    });
    write(dir, "trust_codes", codes.collect::<anyhow::Result<Vec<_>>>()?)
}

/// Subscriptions and purchases: about what the fleet uses, so that both shortage and cover occur.
fn write_terms(fleet: &Fleet, dir: &Path) -> anyhow::Result<()> {
    let tens = fleet.devices.div_ceil(TEN);
    let since = fleet.first_month.first_day().to_string();
    let mut subscriptions = Vec::new();
    let mut purchases = Vec::new();
    for (i, [smart, virtual_, ..]) in ACCOUNTS.iter().enumerate() {
        let share = tens.div_ceil(ACCOUNTS.len() as u64);
        let (model, quantity) = if i % 2 == 0 {
            ("COMMITTED", (share * 6).to_string())
        } else {
            ("UNCOMMITTED", String::new())
        };
        let plan = format!("msla-{i}");
        let id = |n: usize| format!("Sub{:05}", 2 * i + n);
        subscriptions.push(owned([
            &id(1),
            smart,
            virtual_,
            ADVANTAGE,
            model,
            &quantity,
            &plan,
            &since,
            "",
        ]));
        // One customer uses Essentials without a subscription: an exception, until the book knows it.
        if i != 4 {
            subscriptions.push(owned([
                &id(2),
                smart,
                virtual_,
                ESSENTIALS,
                "UNCOMMITTED",
                "",
                &plan,
                &since,
                "",
            ]));
        }
        let overage = if i == 3 { String::new() } else { format!("overage-{i}") };
        let (plus, hsec) = ((share * 4).to_string(), (share * 3).to_string());
        purchases.push(owned([
            &format!("PO-{i}-1"),
            smart,
            virtual_,
            NETWORK_PLUS,
            &plus,
            &since,
            "",
            &overage,
        ]));
        purchases.push(owned([
            &format!("PO-{i}-2"),
            smart,
            virtual_,
            DNA_HSEC,
            &hsec,
            &since,
            "",
            &overage,
        ]));
    }
    write(dir, "subscriptions", subscriptions)?;
    write(dir, "purchases", purchases)
}

fn write_prices(fleet: &Fleet, dir: &Path) -> anyhow::Result<()> {
    let since = fleet.first_month.first_day().to_string();
    let mut rows = Vec::new();
    for (i, monthly) in MONTHLY.into_iter().enumerate() {
        let [.., currency, _] = ACCOUNTS[i];
        // Plan, item, measure, tier mode, tiers (bound, price of a month's licence in percent).
        let mut price = |plan: &str,
                         item: &str,
                         charge: &str,
                         measure: &str,
                         mode: &str,
                         tiers: &[(&str, u64)]| {
            let package = if mode == "package" { "10" } else { "" };
            for (up_to, percent) in tiers {
                let unit = unit_price(monthly * percent, measure, mode);
                rows.push(owned([
                    plan, item, charge, &since, measure, mode, up_to, &unit, package, currency,
                ]));
            }
        };
        let (plan, overage) = (format!("msla-{i}"), format!("overage-{i}"));
        let graduated: &[(&str, u64)] = &[("5", 100), ("20", 90), ("", 80)];
        match i {
            0 => price(&plan, ADVANTAGE, "usage", "peak", "graduated", graduated),
            1 => price(&plan, ADVANTAGE, "usage", "license-days", "flat", &[("", 100)]),
            2 => price(&plan, ADVANTAGE, "usage", "average", "volume", graduated),
            3 => price(&plan, ADVANTAGE, "usage", "license-hours", "flat", &[("", 100)]),
            4 => price(&plan, ADVANTAGE, "usage", "peak", "package", &[("", 95)]),
            _ => price(&plan, ADVANTAGE, "usage", "average", "graduated", graduated),
        }
        if i % 2 == 0 {
            price(&plan, ADVANTAGE, "commit", "average", "flat", &[("", 70)]);
        }
        price(&plan, ESSENTIALS, "usage", "license-days", "flat", &[("", 60)]);
        price(&overage, NETWORK_PLUS, "usage", "average", "flat", &[("", 120)]);
        price(&overage, "HSECK9", "usage", "peak", "flat", &[("", 50)]);
    }
    write(dir, "prices", rows)
}

/// A month's price in percent, as the price of the measure's unit, in plain digits.
fn unit_price(hundredths: u64, measure: &str, mode: &str) -> String {
    let units = match measure {
        "license-days" => 30,
        "license-hours" => 720,
        _ => 1,
    };
    let packaged = if mode == "package" { 10 } else { 1 };
    let millionths = hundredths * 10_000 * packaged / units;
    format!("{}.{:06}", millionths / 1_000_000, millionths % 1_000_000)
}

pub(super) fn write(
    dir: &Path,
    name: &str,
    rows: impl IntoIterator<Item = Vec<String>>,
) -> anyhow::Result<()> {
    let path = dir.join(format!("{name}.csv"));
    let table = TABLES.iter().find(|t| t.name == name).context("a table of the book")?;
    let save = || -> csv::Result<()> {
        let mut writer = csv::Writer::from_path(&path)?;
        writer.write_record(table.columns)?;
        for row in rows {
            writer.write_record(row)?;
        }
        Ok(writer.flush()?)
    };
    save().with_context(|| format!("cannot write {}", path.display()))
}
