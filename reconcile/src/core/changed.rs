//! Whose targets may differ from what an earlier run came to, and what bears on them.
//!
//! A target depends on the reports of the PI groups that use, or may use, something of its account, and on
//! the account's rows of the book. So where few reports and rows have changed, few accounts are computed
//! anew, each from all that bears on it: nothing is added to or taken from an earlier result.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::hash::Hash;

use schemas::book::{AccountId, BillingModel, Book, ManagedBy};
use schemas::udi::Udi;

use super::claims::{Claims, Number};

/// PIs by the accounts that headers of their reports name.
pub type Named = BTreeMap<AccountId, HashSet<Udi>>;

/// Adds what the headers of claims name.
pub fn take_named(named: &mut Named, claims: &Claims) {
    let names = &claims.names;
    // A PI's reports mostly name one account, time and again.
    let mut last: Vec<Option<(Number, Number)>> = Vec::new();
    for facts in &claims.facts {
        let Some(account) = facts.header_account else { continue };
        let pi = facts.pi as usize;
        if last.len() <= pi {
            last.resize(pi + 1, None);
        }
        if last[pi].replace(account) == Some(account) {
            continue;
        }
        let id = AccountId {
            smart: names.text_of(account.0).to_owned(),
            virtual_: names.text_of(account.1).to_owned(),
        };
        named.entry(id).or_default().insert(names.pi_of(facts.pi).clone());
    }
}

/// What a run over all accounts stood on, as far as a later one must know it to leave accounts out.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Bearing {
    /// The members of each PI group that has several.
    pub groups: Vec<Vec<Udi>>,
    pub named: Named,
    /// PIs of which some usage has no account, or no item that the catalogue knows.
    pub unattributed: HashSet<Udi>,
}

/// What has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Touched {
    pub accounts: BTreeSet<AccountId>,
    pub pis: HashSet<Udi>,
}

/// What a run must compute anew.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Affected {
    pub accounts: BTreeSet<AccountId>,
    /// The PIs whose reports bear on these accounts, or on usage that has none; PI groups are whole.
    pub pis: HashSet<Udi>,
}

/// Keys whose rows are not the same, or not in the same order, before and now.
fn differing<K: Eq + Hash, R: PartialEq>(
    before: impl Iterator<Item = (K, R)>,
    now: impl Iterator<Item = (K, R)>,
) -> Vec<K> {
    let by_key = |rows: &mut dyn Iterator<Item = (K, R)>| {
        let mut all: HashMap<K, Vec<R>> = HashMap::new();
        for (key, row) in rows {
            all.entry(key).or_default().push(row);
        }
        all
    };
    let mut before = by_key(&mut { before });
    let mut keys = Vec::new();
    for (key, rows) in by_key(&mut { now }) {
        if before.remove(&key).as_ref() != Some(&rows) {
            keys.push(key);
        }
    }
    keys.extend(before.into_keys());
    keys
}

/// What differs between two books for usage and money; `None` if it may concern everybody.
#[must_use]
pub fn of_books(before: &Book, now: &Book) -> Option<Touched> {
    let catalog = |book: &Book| -> Vec<(String, bool, String)> {
        let rows = book.catalog.iter();
        rows.map(|c| (c.tag.clone(), c.postpaid_allowed, c.equivalence.clone())).collect()
    };
    let struck = |book: &Book| -> BTreeSet<Udi> {
        let rows = book.devices.iter().filter(|d| d.managed_by == ManagedBy::Vmanage);
        rows.map(|d| d.udi.clone()).collect()
    };
    // Of reports in hours that were of no account's month then, nothing is known.
    let zones = |book: &Book| -> BTreeSet<String> {
        book.accounts.iter().map(|account| account.zone_name.clone()).collect()
    };
    if catalog(before) != catalog(now)
        || struck(before) != struck(now)
        || zones(before) != zones(now)
    {
        return None;
    }
    fn id(book: &Book, account: usize) -> &AccountId {
        &book.accounts[account].id
    }
    fn accounts(book: &Book) -> impl Iterator<Item = (&AccountId, (&str, &str, &str))> {
        book.accounts.iter().map(|a| (&a.id, (&*a.customer, &*a.currency, &*a.zone_name)))
    }
    fn devices(book: &Book) -> impl Iterator<Item = (&Udi, (&AccountId, i64, i64))> {
        let row = |d: &schemas::book::Device| (d.account, d.valid.start, d.valid.end);
        book.devices
            .iter()
            .map(move |d| (&d.udi, row(d)))
            .map(|(udi, (account, start, end))| (udi, (id(book, account), start, end)))
    }
    fn subscriptions(book: &Book) -> impl Iterator<Item = (&AccountId, Rights<'_>)> {
        book.subscriptions.iter().map(|s| {
            let committed = s.billing_model == BillingModel::Committed;
            let row = (&*s.id, &*s.tag, s.committed_quantity, &*s.price_plan);
            (id(book, s.account), (row, s.valid.start, s.valid.end, committed))
        })
    }
    fn purchases(book: &Book) -> impl Iterator<Item = (&AccountId, Rights<'_>)> {
        book.purchases.iter().map(|p| {
            let row = (&*p.id, &*p.tag, p.quantity, &*p.price_plan);
            (id(book, p.account), (row, p.valid.start, p.valid.end, false))
        })
    }
    let prices = |book| -> Vec<(&str, &schemas::book::Price)> {
        let book: &Book = book;
        book.prices.iter().map(|p| (p.plan.as_str(), p)).collect()
    };
    let mut touched = Touched::default();
    touched.accounts.extend(differing(accounts(before), accounts(now)).into_iter().cloned());
    touched
        .accounts
        .extend(differing(subscriptions(before), subscriptions(now)).into_iter().cloned());
    touched.accounts.extend(differing(purchases(before), purchases(now)).into_iter().cloned());
    touched.pis.extend(differing(devices(before), devices(now)).into_iter().cloned());
    let plans = differing(prices(before).into_iter(), prices(now).into_iter());
    let plans: HashSet<&str> = plans.into_iter().collect();
    let of_plans = now
        .subscriptions
        .iter()
        .map(|s| (s.account, &s.price_plan))
        .chain(now.purchases.iter().map(|p| (p.account, &p.price_plan)))
        .filter(|(_, plan)| plans.contains(plan.as_str()));
    touched.accounts.extend(of_plans.map(|(account, _)| id(now, account).clone()));
    // Who held a PI that another account holds now, and the other way round.
    for book in [before, now] {
        let of_touched = book.devices.iter().filter(|d| touched.pis.contains(&d.udi));
        let holders: Vec<_> = of_touched.map(|d| id(book, d.account).clone()).collect();
        touched.accounts.extend(holders);
    }
    Some(touched)
}

/// A row of what an account bought or subscribed to: id, tag, quantity, plan; start, end, and whether it
/// is a commitment.
type Rights<'b> = ((&'b str, &'b str, u64, &'b str), i64, i64, bool);

/// The members of groups that are not as they were.
#[must_use]
pub fn of_groups(before: &[Vec<Udi>], now: &[Vec<Udi>]) -> HashSet<Udi> {
    let group_before: HashMap<&Udi, usize> = before
        .iter()
        .enumerate()
        .flat_map(|(i, all)| all.iter().map(move |udi| (udi, i)))
        .collect();
    let mut changed = HashSet::new();
    for members in now {
        let first = members.first().and_then(|udi| group_before.get(udi));
        let same = first.is_some_and(|&group| {
            before[group].len() == members.len()
                && members.iter().all(|udi| group_before.get(udi) == Some(&group))
        });
        if !same {
            changed.extend(members.iter().cloned());
        }
    }
    changed
}

/// What is to be computed anew where something was touched since a run that stood on `bearing`. `named` is
/// what headers named in reports that came since.
#[must_use]
pub fn affected(
    mut touched: Touched,
    bearing: &Bearing,
    named: &Named,
    groups: &[Vec<Udi>],
    book: &Book,
) -> Affected {
    touched.pis.extend(of_groups(&bearing.groups, groups));
    let group_of: HashMap<&Udi, usize> = groups
        .iter()
        .enumerate()
        .flat_map(|(i, all)| all.iter().map(move |udi| (udi, i)))
        .collect();
    let with_mates = |pis: &mut HashSet<Udi>| {
        let whole: HashSet<usize> = pis.iter().filter_map(|u| group_of.get(u).copied()).collect();
        pis.extend(whole.into_iter().flat_map(|group| groups[group].iter().cloned()));
    };
    with_mates(&mut touched.pis);
    let Touched { mut accounts, mut pis } = touched;
    let held = |d: &schemas::book::Device| &book.accounts[d.account].id;
    accounts.extend(book.devices.iter().filter(|d| pis.contains(&d.udi)).map(|d| held(d).clone()));
    for (account, of_account) in bearing.named.iter().chain(named) {
        // Of the two sets the smaller one is gone through.
        let (few, many) =
            if of_account.len() < pis.len() { (of_account, &pis) } else { (&pis, of_account) };
        if few.iter().any(|udi| many.contains(udi)) {
            accounts.insert(account.clone());
        }
    }
    pis.extend(book.devices.iter().filter(|d| accounts.contains(held(d))).map(|d| d.udi.clone()));
    for account in &accounts {
        for named in [&bearing.named, named] {
            pis.extend(named.get(account).into_iter().flatten().cloned());
        }
    }
    pis.extend(bearing.unattributed.iter().cloned());
    with_mates(&mut pis);
    Affected { accounts, pis }
}
