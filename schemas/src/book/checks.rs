//! Checks across rows: what no single row can tell.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, HashMap, HashSet};

use super::rows::{DevicePlace, Places};
use super::*;

pub(super) fn check(book: &mut Book, places: &Places, errors: &mut Vec<BookError>) {
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
            currencies(book, places, errors);
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
        for &i in rows {
            let meets = rows.iter().find(|&&j| {
                i != j
                    && matches!(places[i].valid_to, Some(Moment::Date(_)))
                    && places[i].valid_to == Some(places[j].valid_from)
            });
            if let Some(&j) = meets {
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
        for pair in rows.windows(2) {
            let (before, after) = (&devices[pair[0]], &devices[pair[1]]);
            if before.valid.overlaps(after.valid) {
                errors.push(error(
                    "devices.csv",
                    places[pair[1]].line,
                    "valid_from",
                    format!(
                        "overlaps line {} of the same device {}",
                        places[pair[0]].line, after.udi
                    ),
                ));
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

/// A price in another currency than that of an account it is charged to is an error (contract 2).
fn currencies(book: &Book, places: &Places, errors: &mut Vec<BookError>) {
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
    for (price, lines) in book.prices.iter().zip(&places.price_lines) {
        let Some(accounts) = accounts_by_price.get(&(price.plan.as_str(), price.item.as_str()))
        else {
            continue;
        };
        let mut others: Vec<&Account> = accounts
            .iter()
            .map(|&i| &book.accounts[i])
            .filter(|a| a.currency != price.currency)
            .collect();
        others.sort_by(|a, b| a.id.cmp(&b.id));
        if let Some(account) = others.first() {
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
}

fn policies(book: &Book, places: &Places, errors: &mut Vec<BookError>) {
    let smart: HashSet<&str> = book.accounts.iter().map(|a| a.id.smart.as_str()).collect();
    let full: HashSet<&AccountId> = book.accounts.iter().map(|a| &a.id).collect();
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
