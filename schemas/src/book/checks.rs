//! Checks across rows: what no single row can tell.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::rows::{DevicePlace, Places};
use super::*;

pub(super) fn check(book: &mut Book, places: &Places, is_new: bool, errors: &mut Vec<BookError>) {
    let mut of_devices = std::mem::take(&mut book.devices);
    let mut errors_of_devices = Vec::new();
    // There are far more devices than anything else, and no other check looks at them.
    rayon::join(
        || devices(&mut of_devices, &places.devices, &mut errors_of_devices),
        || {
            accounts(book, places, errors);
            catalog(book, places, errors);
            subscriptions(book, places, errors);
            prices(book, places, errors);
            charged_prices(book, places, is_new, errors);
            policies(book, places, errors);
        },
    );
    book.devices = of_devices;
    errors.append(&mut errors_of_devices);
}

fn error(file: &str, line: u64, column: &str, message: String) -> BookError {
    BookError { file: file.to_owned(), line, column: column.to_owned(), message }
}

fn accounts(book: &Book, places: &Places, errors: &mut Vec<BookError>) {
    let mut first = HashMap::new();
    for (account, &line) in book.accounts.iter().zip(&places.account_lines) {
        if let Some(before) = first.insert(&account.id, line) {
            errors.push(error(
                "accounts.csv",
                line,
                "virtual_account",
                format!("account {} is on line {before} already", account.id),
            ));
        }
    }
}

/// Rows of one device must not overlap. Where two rows meet at a bare date, the new row's zone
/// holds for both (contract 2), so that a move between zones leaves neither gap nor overlap.
fn devices(devices: &mut [Device], places: &[DevicePlace], errors: &mut Vec<BookError>) {
    let mut first: HashMap<&Udi, usize> = HashMap::with_capacity(devices.len());
    // Of the devices with more than one row.
    let mut by_first: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (i, device) in devices.iter().enumerate() {
        match first.entry(&device.udi) {
            Entry::Vacant(free) => _ = free.insert(i),
            Entry::Occupied(taken) => {
                by_first.entry(*taken.get()).or_insert_with(|| vec![*taken.get()]).push(i);
            }
        }
    }
    let mut ends: Vec<(usize, EpochSeconds)> = Vec::new();
    for rows in by_first.values() {
        let mut starts: HashMap<Moment, usize> = HashMap::with_capacity(rows.len());
        for &i in rows {
            starts.entry(places[i].valid_from).or_insert(i);
        }
        for &i in rows {
            let Some(to @ Moment::Date(_)) = places[i].valid_to else { continue };
            if let Some(&j) = starts.get(&to).filter(|&&j| j != i) {
                ends.push((i, devices[j].valid.start));
            }
        }
    }
    for (i, end) in ends {
        devices[i].valid.end = end;
    }
    for (device, place) in devices.iter().zip(places) {
        if device.valid.end <= device.valid.start {
            errors.push(error(
                "devices.csv",
                place.line,
                "valid_to",
                "must be after valid_from".to_owned(),
            ));
        }
    }
    for mut rows in by_first.into_values() {
        rows.sort_by_key(|&i| (devices[i].valid.start, places[i].line));
        let mut latest = rows[0];
        for &i in &rows[1..] {
            let (before, after) = (&devices[latest], &devices[i]);
            if before.valid.overlaps(after.valid) {
                errors.push(error(
                    "devices.csv",
                    places[i].line,
                    "valid_from",
                    format!(
                        "overlaps line {} of the same device {}",
                        places[latest].line, after.udi
                    ),
                ));
            }
            if before.valid.end < after.valid.end {
                latest = i;
            }
        }
    }
}

fn catalog(book: &Book, places: &Places, errors: &mut Vec<BookError>) {
    let mut first = HashMap::new();
    for (entry, &line) in book.catalog.iter().zip(&places.catalog_lines) {
        if let Some(before) = first.insert(&entry.tag, line) {
            errors.push(error(
                "catalog.csv",
                line,
                "entitlement_tag",
                format!("the tag is on line {before} already"),
            ));
        }
    }
}

fn subscriptions(book: &Book, places: &Places, errors: &mut Vec<BookError>) {
    let mut by_tag: BTreeMap<(usize, &str), Vec<usize>> = BTreeMap::new();
    for (i, s) in book.subscriptions.iter().enumerate() {
        by_tag.entry((s.account, &s.tag)).or_default().push(i);
    }
    for mut rows in by_tag.into_values() {
        rows.sort_by_key(|&i| (book.subscriptions[i].valid.start, places.subscription_lines[i]));
        let mut latest_end: Option<usize> = None;
        for i in rows {
            let this = &book.subscriptions[i];
            if let Some(j) =
                latest_end.filter(|&j| book.subscriptions[j].valid.overlaps(this.valid))
            {
                errors.push(error(
                    "subscriptions.csv",
                    places.subscription_lines[i],
                    "start",
                    format!(
                        "in force together with line {} of the same account and tag",
                        places.subscription_lines[j]
                    ),
                ));
            }
            if latest_end.is_none_or(|j| book.subscriptions[j].valid.end < this.valid.end) {
                latest_end = Some(i);
            }
        }
    }
}

fn prices(book: &mut Book, places: &Places, errors: &mut Vec<BookError>) {
    for (price, lines) in book.prices.iter_mut().zip(&places.price_lines) {
        // What is wrong with its other rows is told there.
        if places.incomplete_prices.contains(&(price.plan.clone(), price.item.clone())) {
            continue;
        }
        let last = lines[lines.len() - 1];
        let single = matches!(price.tier_mode, TierMode::Flat | TierMode::Package);
        if single && price.tiers.len() > 1 {
            errors.push(error(
                "prices.csv",
                lines[1],
                "tier_mode",
                format!(
                    "{} has one row, but line {} is the same price",
                    price.tier_mode.as_str(),
                    lines[0]
                ),
            ));
            continue;
        }
        // Open tiers last; the order of the rows is free.
        price.tiers.sort_by_key(|t| (t.up_to.is_none(), t.up_to));
        let open = price.tiers.iter().filter(|t| t.up_to.is_none()).count();
        if open == 0 {
            errors.push(error(
                "prices.csv",
                last,
                "tier_up_to",
                "the last tier of a price must be open (blank)".to_owned(),
            ));
        } else if open > 1 {
            errors.push(error(
                "prices.csv",
                last,
                "tier_up_to",
                "the price has two open tiers".to_owned(),
            ));
        }
        if price.tiers.windows(2).any(|t| t[0].up_to.is_some() && t[0].up_to == t[1].up_to) {
            errors.push(error(
                "prices.csv",
                last,
                "tier_up_to",
                "the price has two tiers with one bound".to_owned(),
            ));
        }
    }
}

/// A price in another currency than that of an account it is charged to is an error (contract 2). So are two that
/// begin at one instant in the zone of such an account: a date, and a time that is its midnight.
fn charged_prices(book: &Book, places: &Places, is_new: bool, errors: &mut Vec<BookError>) {
    let items = book.items_by_tag();
    let charged = book
        .subscriptions
        .iter()
        .map(|s| (s.account, &s.price_plan, &s.tag))
        .chain(book.purchases.iter().map(|p| (p.account, &p.price_plan, &p.tag)));
    let mut accounts_by_price: HashMap<(&str, &str), HashSet<usize>> = HashMap::new();
    for (account, plan, tag) in charged.filter(|(_, plan, _)| !plan.is_empty()) {
        let item = items.get(tag.as_str()).copied().unwrap_or(tag);
        accounts_by_price.entry((plan, item)).or_default().insert(account);
    }
    // The prices of each plan, item and charge, with the line of each.
    let mut by_charge: BTreeMap<_, Vec<(&Price, u64)>> = BTreeMap::new();
    for (price, lines) in book.prices.iter().zip(&places.price_lines) {
        let key = (price.plan.as_str(), price.item.as_str());
        by_charge.entry((key.0, key.1, price.charge.as_str())).or_default().push((price, lines[0]));
        let Some(accounts) = accounts_by_price.get(&key) else { continue };
        let others = accounts.iter().map(|&i| &book.accounts[i]);
        let others = others.filter(|a| a.currency != price.currency);
        if let Some(account) = others.min_by(|a, b| a.id.cmp(&b.id)) {
            for &line in lines {
                errors.push(error(
                    "prices.csv",
                    line,
                    "currency",
                    format!(
                        "the plan is charged to account {}, whose currency is {}",
                        account.id, account.currency
                    ),
                ));
            }
        }
    }
    if !is_new {
        return;
    }
    for ((plan, item, _), prices) in by_charge {
        let is_mixed = prices.iter().any(|(p, _)| matches!(p.valid_from, Moment::Date(_)))
            && prices.iter().any(|(p, _)| matches!(p.valid_from, Moment::At(_)));
        let Some(accounts) = accounts_by_price.get(&(plan, item)).filter(|_| is_mixed) else {
            continue;
        };
        let mut accounts: Vec<&Account> = accounts.iter().map(|&i| &book.accounts[i]).collect();
        accounts.sort_by(|a, b| a.id.cmp(&b.id));
        for account in accounts {
            let mut starts: HashMap<EpochSeconds, u64> = HashMap::new();
            for (price, line) in &prices {
                let start = price.valid_from.resolve(&account.zone);
                if let Some(before) = starts.insert(start, *line) {
                    errors.push(error(
                        "prices.csv",
                        *line,
                        "valid_from",
                        format!(
                            "begins when line {before} does, by the time of account {}",
                            account.id
                        ),
                    ));
                }
            }
        }
    }
}

fn policies(book: &Book, places: &Places, errors: &mut Vec<BookError>) {
    let full = &places.named_accounts;
    let smart: HashSet<&str> = full.iter().map(|id| id.smart.as_str()).collect();
    for (policy, &line) in book.policies.iter().zip(&places.policy_lines) {
        let id = policy.scope_id.as_str();
        let problem = match policy.scope {
            PolicyScope::SmartAccount if smart.contains(id) => None,
            PolicyScope::SmartAccount => Some(format!("accounts.csv has no smart account '{id}'")),
            PolicyScope::VirtualAccount => match id.parse::<AccountId>() {
                Ok(account) if full.contains(&account) => None,
                Ok(account) => Some(format!("accounts.csv has no account {account}")),
                Err(message) => Some(message),
            },
            PolicyScope::ProductInstance => match id.split_once(':') {
                Some((pid, serial)) if !pid.is_empty() && !serial.is_empty() => None,
                _ => Some(format!("'{id}' is no product instance; write PID:SERIAL")),
            },
        };
        if let Some(message) = problem {
            errors.push(error("policies.csv", line, "scope_id", message));
        }
    }
}
