//! The book, arranged for the questions that rating asks.

use std::collections::{BTreeMap, HashMap};

use schemas::book::{
    Account, AccountId, BillingModel, Book, CatalogEntry, Price, Purchase, Span, Subscription,
};
use schemas::ledger::Charge;
use schemas::period::{EpochSeconds, Moment, Period};
use schemas::udi::Udi;

/// Whether a subscription commits to something, in one of its rows at least.
#[must_use]
pub fn is_committed(rows: &[&Subscription]) -> bool {
    rows.iter().any(|row| row.billing_model == BillingModel::Committed)
}

/// A book that can be asked.
pub struct Reference<'b> {
    pub accounts: &'b [Account],
    account_by_id: HashMap<(&'b str, &'b str), usize>,
    holders: HashMap<&'b Udi, Vec<(Span, usize)>>,
    catalog: HashMap<&'b str, &'b CatalogEntry>,
    items: HashMap<&'b str, &'b str>,
    subscriptions_by_tag: Vec<HashMap<&'b str, Vec<&'b Subscription>>>,
    subscriptions: BTreeMap<(usize, String, String), Vec<&'b Subscription>>,
    purchases: HashMap<(usize, String), Vec<&'b Purchase>>,
    prices: HashMap<(&'b str, &'b str, Charge), Vec<&'b Price>>,
}

impl<'b> Reference<'b> {
    #[must_use]
    pub fn new(book: &'b Book) -> Self {
        let items = book.items_by_tag();
        let item = |tag: &'b str| items.get(tag).copied().unwrap_or(tag);
        let mut holders: HashMap<&Udi, Vec<(Span, usize)>> = HashMap::new();
        for device in &book.devices {
            holders.entry(&device.udi).or_default().push((device.valid, device.account));
        }
        for rows in holders.values_mut() {
            rows.sort_by_key(|(span, _)| span.start);
        }
        let mut subscriptions_by_tag: Vec<HashMap<_, Vec<_>>> =
            vec![HashMap::new(); book.accounts.len()];
        let mut subscriptions: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for s in &book.subscriptions {
            subscriptions_by_tag[s.account].entry(s.tag.as_str()).or_default().push(s);
            subscriptions
                .entry((s.account, s.id.clone(), item(&s.tag).to_owned()))
                .or_default()
                .push(s);
        }
        for rows in subscriptions
            .values_mut()
            .chain(subscriptions_by_tag.iter_mut().flat_map(HashMap::values_mut))
        {
            rows.sort_by_key(|s| (s.valid.start, &s.tag));
        }
        let mut purchases: HashMap<_, Vec<_>> = HashMap::new();
        for p in &book.purchases {
            purchases.entry((p.account, item(&p.tag).to_owned())).or_default().push(p);
        }
        let mut prices: HashMap<_, Vec<_>> = HashMap::new();
        for p in &book.prices {
            prices.entry((p.plan.as_str(), p.item.as_str(), p.charge)).or_default().push(p);
        }
        Reference {
            accounts: &book.accounts,
            account_by_id: book
                .accounts
                .iter()
                .enumerate()
                .map(|(i, a)| ((a.id.smart.as_str(), a.id.virtual_.as_str()), i))
                .collect(),
            holders,
            catalog: book.catalog.iter().map(|c| (c.tag.as_str(), c)).collect(),
            items,
            subscriptions_by_tag,
            subscriptions,
            purchases,
            prices,
        }
    }

    #[must_use]
    pub fn account(&self, smart: &str, virtual_: &str) -> Option<usize> {
        self.account_by_id.get(&(smart, virtual_)).copied()
    }

    #[must_use]
    pub fn account_of(&self, id: &AccountId) -> Option<usize> {
        self.account(&id.smart, &id.virtual_)
    }

    /// The rows of a device, in the order of time: when it was held, and by which account.
    #[must_use]
    pub fn holders(&self, udi: &Udi) -> &[(Span, usize)] {
        self.holders.get(udi).map_or(&[], Vec::as_slice)
    }

    #[must_use]
    pub fn catalog_entry(&self, tag: &str) -> Option<&'b CatalogEntry> {
        self.catalog.get(tag).copied()
    }

    /// The item of a tag: its equivalence group, or the tag itself.
    #[must_use]
    pub fn item<'a>(&self, tag: &'a str) -> &'a str
    where
        'b: 'a,
    {
        self.items.get(tag).copied().unwrap_or(tag)
    }

    /// Subscriptions of an account for a tag, in the order of time; no two are in force at once.
    #[must_use]
    pub fn subscriptions_of_tag(&self, account: usize, tag: &str) -> &[&'b Subscription] {
        self.subscriptions_by_tag[account].get(tag).map_or(&[], Vec::as_slice)
    }

    /// Rows of one subscription id of an account and item, in the order of their starts, then of their tags.
    #[must_use]
    pub fn subscription(&self, account: usize, id: &str, item: &str) -> &[&'b Subscription] {
        self.subscriptions
            .get(&(account, id.to_owned(), item.to_owned()))
            .map_or(&[], Vec::as_slice)
    }

    /// Account, id and item of every subscription with a committed row.
    pub fn committed(&self) -> impl Iterator<Item = (usize, &str, &str)> {
        self.subscriptions
            .iter()
            .filter(|(_, rows)| is_committed(rows))
            .map(|((account, id, item), _)| (*account, id.as_str(), item.as_str()))
    }

    #[must_use]
    pub fn purchases(&self, account: usize, item: &str) -> &[&'b Purchase] {
        self.purchases.get(&(account, item.to_owned())).map_or(&[], Vec::as_slice)
    }

    /// Prices of a plan for an item and charge, with the instants from which they hold for an
    /// account, in the order of time.
    #[must_use]
    pub fn prices(
        &self,
        plan: &str,
        item: &str,
        charge: Charge,
        account: usize,
    ) -> Vec<(EpochSeconds, &'b Price)> {
        let zone = &self.accounts[account].zone;
        let mut prices: Vec<(EpochSeconds, &Price)> = self
            .prices
            .get(&(plan, item, charge))
            .into_iter()
            .flatten()
            .map(|p| (p.valid_from.resolve(zone), *p))
            .collect();
        // Of a bare date and the very instant that it means here, the latter was meant for this account.
        prices.sort_by_key(|(from, price)| (*from, matches!(price.valid_from, Moment::At(_))));
        prices
    }

    /// The month of each account in its own zone.
    #[must_use]
    pub fn months(&self, period: Period) -> Vec<Month> {
        // Thousands of accounts live in a few zones, and a day's first instant has to be looked for.
        let mut by_zone: HashMap<&str, Month> = HashMap::new();
        let of_zone = |a: &'b Account| {
            by_zone.entry(&a.zone_name).or_insert_with(|| Month::new(period, &a.zone)).clone()
        };
        self.accounts.iter().map(of_zone).collect()
    }
}

/// A calendar month of one account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Month {
    /// `[A, B)`.
    pub span: Span,
    /// First instants of its days, and B.
    pub day_starts: Vec<EpochSeconds>,
}

impl Month {
    #[must_use]
    pub fn new(period: Period, zone: &jiff::tz::TimeZone) -> Month {
        let (start, end) = period.bounds(zone);
        Month { span: Span { start, end }, day_starts: period.day_starts(zone) }
    }
}
