//! Cells to rows: every field is read, every error is kept, rows with an error are left out.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::tz::TimeZone;
use rayon::iter::{IntoParallelIterator as _, ParallelIterator as _};

use super::columns as files;
use super::row::{Accounts, Row};
use super::*;
use crate::key::parse_public_key;
use crate::quantity::{has_minor_unit, minor_digits};

/// Largest count or quantity of licences (contract 1.3): exact in every JSON implementation.
const COUNT_MAX: u64 = 1 << 53;
/// Decimal places of a price (contract 2).
const PRICE_PLACES_MAX: u32 = 12;
const CHANNELS: [&str; 2] = ["direct", "partner"];
/// What the zone database holds beside zones: no zone at all, or another one on each machine.
const NO_ZONES: [&str; 4] = ["Factory", "localtime", "posixrules", "Etc/Unknown"];

/// Where each row that was read stands in its file, and what later checks need of it.
#[derive(Default)]
pub(super) struct Places {
    pub(super) account_lines: Vec<u64>,
    pub(super) devices: Vec<DevicePlace>,
    pub(super) catalog_lines: Vec<u64>,
    pub(super) subscription_lines: Vec<u64>,
    pub(super) purchase_lines: Vec<u64>,
    /// The lines of each price's rows.
    pub(super) price_lines: Vec<Vec<u64>>,
    /// Plans and items of which a row was left out, so that their tiers cannot be checked.
    pub(super) incomplete_prices: HashSet<(String, String)>,
    pub(super) policy_lines: Vec<u64>,
    /// The accounts that `accounts.csv` names, also in rows that were left out.
    pub(super) named_accounts: HashSet<AccountId>,
}

pub(super) struct DevicePlace {
    pub(super) line: u64,
    pub(super) valid_from: Moment,
    pub(super) valid_to: Option<Moment>,
}

/// Rows that one task reads, of the tables that have many.
const ROWS_AT_ONCE: usize = 4096;

/// Reads the rows of a large table on all cores, in their order.
fn many<T: Send>(
    (cells, is_new): (&BTreeMap<String, Cells>, bool),
    spec: &'static TableSpec,
    errors: &mut Vec<BookError>,
    read: impl Fn(&mut Row<'_>) -> Option<T> + Sync,
) -> Vec<T> {
    let Some(cells) = cells.get(spec.name) else { return Vec::new() };
    let starts: Vec<usize> = (0..cells.len()).step_by(ROWS_AT_ONCE).collect();
    let parts = starts.into_par_iter().map(|start| {
        let mut errors = Vec::new();
        let mut values = Vec::with_capacity(ROWS_AT_ONCE);
        for (line, cells) in cells.rows().skip(start).take(ROWS_AT_ONCE) {
            let mut row = Row { spec, line, cells, errors: &mut errors, is_new, failed: false };
            values.extend(read(&mut row));
        }
        (values, errors)
    });
    let mut all = Vec::with_capacity(cells.len());
    for (values, mut of_part) in parts.collect::<Vec<_>>() {
        all.extend(values);
        errors.append(&mut of_part);
    }
    all
}

fn each(
    (cells, is_new): (&BTreeMap<String, Cells>, bool),
    spec: &'static TableSpec,
    errors: &mut Vec<BookError>,
    read: &mut dyn FnMut(&mut Row<'_>) -> Option<()>,
) {
    for (line, cells) in cells.get(spec.name).into_iter().flat_map(Cells::rows) {
        let mut row = Row { spec, line, cells, errors, is_new, failed: false };
        read(&mut row);
    }
}

/// Reads every table. A row that fails is left out of the book, so that later checks see only rows that
/// can be checked.
pub(super) fn read(
    cells: &BTreeMap<String, Cells>,
    is_new: bool,
    errors: &mut Vec<BookError>,
) -> (Book, Places) {
    let cells = (cells, is_new);
    let mut book = Book {
        trust_codes: many(cells, &files::TRUST_CODES, errors, trust_code),
        ..Book::default()
    };
    let mut places = Places::default();
    let mut each = |spec: &'static TableSpec, read: &mut dyn FnMut(&mut Row<'_>) -> Option<()>| {
        each(cells, spec, errors, read);
    };

    each(&files::ACCOUNTS, &mut |row| {
        places.named_accounts.insert(AccountId {
            smart: row.text("smart_account").to_owned(),
            virtual_: row.text("virtual_account").to_owned(),
        });
        book.accounts.push(account(row)?);
        places.account_lines.push(row.line);
        Some(())
    });
    let accounts = Accounts {
        all: &book.accounts,
        by_id: book.accounts.iter().enumerate().map(|(i, a)| (a.id.clone(), i)).collect(),
        named: &places.named_accounts,
        utc: TimeZone::UTC,
    };
    each(&files::CATALOG, &mut |row| {
        book.catalog.push(catalog_entry(row)?);
        places.catalog_lines.push(row.line);
        Some(())
    });
    each(&files::SUBSCRIPTIONS, &mut |row| {
        book.subscriptions.push(subscription(row, &accounts)?);
        places.subscription_lines.push(row.line);
        Some(())
    });
    each(&files::PURCHASES, &mut |row| {
        book.purchases.push(purchase(row, &accounts)?);
        places.purchase_lines.push(row.line);
        Some(())
    });
    let mut price_rows = PriceRows::default();
    each(&files::PRICES, &mut |row| price_rows.add(row));
    each(&files::POLICIES, &mut |row| {
        book.policies.push(policy(row)?);
        places.policy_lines.push(row.line);
        Some(())
    });
    each(&files::AUTHORIZATIONS, &mut |row| {
        book.authorizations.push(authorization(row)?);
        Some(())
    });
    each(&files::ACKS, &mut |row| {
        book.acks.push(ack(row)?);
        Some(())
    });
    each(&files::GL_ACCOUNTS, &mut |row| {
        let account = gl_account(row, &book.gl_accounts)?;
        book.gl_accounts.push(account);
        Some(())
    });
    (book.devices, places.devices) =
        many(cells, &files::DEVICES, errors, |row| device(row, &accounts)).into_iter().unzip();
    places.incomplete_prices = price_rows.incomplete;
    for (price, lines) in price_rows.prices {
        book.prices.push(price);
        places.price_lines.push(lines);
    }
    (book, places)
}

fn account(row: &mut Row<'_>) -> Option<Account> {
    let id = AccountId {
        smart: row.required("smart_account"),
        virtual_: row.required("virtual_account"),
    };
    if id.smart.contains('/') {
        row.fail(
            "smart_account",
            "must not contain '/', which separates it from the virtual account",
        );
    }
    let customer = row.text("customer").to_owned();
    let currency = row.required("currency");
    check_currency(row, &currency);
    let zone_name = row.required("time_zone");
    let zone = TimeZone::get(&zone_name);
    if zone.is_err() && !zone_name.is_empty() {
        row.fail("time_zone", format!("'{zone_name}' is no time zone of the IANA database"));
    }
    if NO_ZONES.contains(&zone_name.as_str()) {
        row.fail_new("time_zone", format!("'{zone_name}' is no place's time; name its zone"));
    }
    let zone = zone.ok().filter(|_| !row.failed)?;
    Some(Account { id, customer, currency, zone_name, zone })
}

fn check_currency(row: &mut Row<'_>, currency: &str) {
    if currency.is_empty() {
        return;
    }
    if minor_digits(currency).is_none() {
        row.fail("currency", format!("'{currency}' is no currency code of ISO 4217"));
    } else if !has_minor_unit(currency) {
        row.fail_new(
            "currency",
            format!("'{currency}' has no minor unit that amounts are rounded to"),
        );
    }
}

fn device(row: &mut Row<'_>, accounts: &Accounts<'_>) -> Option<(Device, DevicePlace)> {
    let udi = row.udi();
    let account = row.account(accounts);
    let zone = accounts.zone(account);
    let valid_from = row.moment("valid_from");
    let valid_to = row.moment_or_open("valid_to");
    let managed_by = row.word("managed_by", ManagedBy::WORDS, ManagedBy::parse);
    let license_model = row.word("license_model", LicenseModel::WORDS, LicenseModel::parse);
    let channel = row.text("channel");
    if !CHANNELS.contains(&channel) && !channel.is_empty() {
        row.fail_new("channel", format!("'{channel}' is none of {}", CHANNELS.join(", ")));
    }
    let device = Device {
        udi,
        account,
        valid: Span {
            start: valid_from.resolve(zone),
            end: valid_to.map_or(i64::MAX, |m| m.resolve(zone)),
        },
        managed_by: managed_by?,
        license_model: license_model?,
        transport: row.text("transport").to_owned(),
        channel: channel.to_owned(),
    };
    let place = DevicePlace { line: row.line, valid_from, valid_to };
    (!row.failed).then_some((device, place))
}

fn catalog_entry(row: &mut Row<'_>) -> Option<CatalogEntry> {
    let tag = row.identifier("entitlement_tag");
    let enforcement = row.word("enforcement", Enforcement::WORDS, Enforcement::parse);
    let duration = row.word("duration", Duration::WORDS, Duration::parse);
    let entry = CatalogEntry {
        tag,
        name: row.text("name").to_owned(),
        postpaid_allowed: row.boolean("postpaid_allowed"),
        equivalence: row.text("equivalence").to_owned(),
        enforcement: enforcement?,
        duration: duration?,
    };
    (!row.failed).then_some(entry)
}

fn subscription(row: &mut Row<'_>, accounts: &Accounts<'_>) -> Option<Subscription> {
    let id = row.required("subscription_id");
    let account = row.account(accounts);
    let tag = row.identifier("entitlement_tag");
    let billing_model = row.word("billing_model", BillingModel::WORDS, BillingModel::parse);
    let committed_quantity = match billing_model {
        Some(BillingModel::Committed) => row.whole("committed_quantity", COUNT_MAX),
        _ => 0,
    };
    let subscription = Subscription {
        id,
        account,
        tag,
        committed_quantity,
        price_plan: row.text("price_plan").to_owned(),
        valid: row.span(accounts.zone(account), "start", "end"),
        billing_model: billing_model?,
    };
    (!row.failed).then_some(subscription)
}

fn purchase(row: &mut Row<'_>, accounts: &Accounts<'_>) -> Option<Purchase> {
    let account = row.account(accounts);
    let purchase = Purchase {
        id: row.required("purchase_id"),
        account,
        tag: row.identifier("entitlement_tag"),
        quantity: row.whole("quantity", COUNT_MAX),
        valid: row.span(accounts.zone(account), "start", "end"),
        price_plan: row.text("price_plan").to_owned(),
    };
    (!row.failed).then_some(purchase)
}

/// Gathers the rows of `prices.csv` into prices: rows that differ only in `tier_up_to` and
/// `unit_price` are the tiers of one.
#[derive(Default)]
struct PriceRows {
    prices: Vec<(Price, Vec<u64>)>,
    by_key: HashMap<(String, String, Charge, Moment), usize>,
    incomplete: HashSet<(String, String)>,
}

impl PriceRows {
    fn add(&mut self, row: &mut Row<'_>) -> Option<()> {
        let plan = row.required("price_plan");
        let item = row.identifier("entitlement_tag");
        let charge = row.word("charge", Charge::WORDS, Charge::parse);
        let valid_from = row.moment("valid_from");
        let measure = row.word("measure", Measure::WORDS, Measure::parse);
        let tier_mode = row.word("tier_mode", TierMode::WORDS, TierMode::parse);
        let package_size = row.positive_decimal("package_size");
        let tier = Tier {
            up_to: row.positive_decimal("tier_up_to"),
            unit_price: row.decimal("unit_price", PRICE_PLACES_MAX),
        };
        let currency = row.required("currency");
        check_currency(row, &currency);
        if tier_mode == Some(TierMode::Package) && package_size.is_none() {
            row.fail("package_size", "must not be blank where tier_mode is package");
        }
        if row.failed {
            self.incomplete.insert((plan.clone(), item.clone()));
        }
        let price = Price {
            plan,
            item,
            charge: charge?,
            valid_from,
            measure: measure?,
            tier_mode: tier_mode?,
            package_size,
            currency,
            tiers: vec![tier],
        };
        if row.failed {
            return None;
        }
        let key = (price.plan.clone(), price.item.clone(), price.charge, price.valid_from);
        let Some(&index) = self.by_key.get(&key) else {
            self.by_key.insert(key, self.prices.len());
            self.prices.push((price, vec![row.line]));
            return Some(());
        };
        let (first, lines) = &mut self.prices[index];
        for (column, differs) in [
            ("measure", first.measure != price.measure),
            ("tier_mode", first.tier_mode != price.tier_mode),
            ("package_size", first.package_size != price.package_size),
            ("currency", first.currency != price.currency),
        ] {
            if differs {
                row.fail(
                    column,
                    format!("differs from line {}, which is a tier of the same price", lines[0]),
                );
            }
        }
        if row.failed {
            self.incomplete.insert((price.plan.clone(), price.item.clone()));
        }
        first.tiers.extend(price.tiers);
        lines.push(row.line);
        Some(())
    }
}

fn trust_code(row: &mut Row<'_>) -> Option<TrustCode> {
    let udi = row.udi();
    let origin = row.word("origin", TrustOrigin::WORDS, TrustOrigin::parse);
    let algorithm = row.word("algorithm", &["RS256", "ES256", "EdDSA"], Algorithm::parse);
    let public_key = row.required("public_key");
    if let Some(algorithm) = algorithm
        && !public_key.is_empty()
        && let Err(message) = parse_public_key(algorithm, &public_key)
    {
        row.fail("public_key", message);
    }
    let valid = row.span(&TimeZone::UTC, "valid_from", "valid_to");
    let code = TrustCode {
        udi,
        origin: origin?,
        algorithm: algorithm?,
        public_key,
        valid_from: valid.start,
        valid_to: (valid.end != i64::MAX).then_some(valid.end),
    };
    (!row.failed).then_some(code)
}

fn policy(row: &mut Row<'_>) -> Option<Policy> {
    let scope = row.word("scope", PolicyScope::WORDS, PolicyScope::parse);
    let policy = Policy {
        scope_id: row.required("scope_id"),
        enforcement: row.word_or_any("enforcement", Enforcement::WORDS, Enforcement::parse),
        duration: row.word_or_any("duration", Duration::WORDS, Duration::parse),
        ack_required: row.boolean("ack_required"),
        first_report_days: row.days("first_report_days"),
        reporting_frequency_days: row.days("reporting_frequency_days"),
        report_on_change_days: row.days("report_on_change_days"),
        scope: scope?,
    };
    (!row.failed).then_some(policy)
}

fn authorization(row: &mut Row<'_>) -> Option<Authorization> {
    let udi = row.udi();
    let kind = row.word("kind", AuthorizationKind::WORDS, AuthorizationKind::parse);
    let code_version = (!row.text("code_version").is_empty())
        .then(|| u32::try_from(row.whole("code_version", u64::from(u32::MAX))).unwrap_or(0));
    let authorization = Authorization {
        udi,
        tag: row.text("entitlement_tag").to_owned(),
        code_version,
        installed_at: row.moment("installed_at").resolve(&TimeZone::UTC),
        returned_at: row.moment_or_open("returned_at").map(|m| m.resolve(&TimeZone::UTC)),
        kind: kind?,
    };
    (!row.failed).then_some(authorization)
}

fn ack(row: &mut Row<'_>) -> Option<Ack> {
    let ack = Ack {
        udi: row.udi(),
        report_id: row.whole("report_id", u64::MAX),
        acked_at: row.moment("acked_at").resolve(&TimeZone::UTC),
        installed_at: row.moment_or_open("installed_at").map(|m| m.resolve(&TimeZone::UTC)),
    };
    (!row.failed).then_some(ack)
}

fn gl_account(row: &mut Row<'_>, before: &[GlAccount]) -> Option<GlAccount> {
    let account = GlAccount {
        pool: row.word_or_any("pool", Pool::WORDS, Pool::parse),
        charge: row.word_or_any("charge", Charge::WORDS, Charge::parse),
        debit_account: row.required("debit_account"),
        credit_account: row.required("credit_account"),
    };
    if before.iter().any(|b| (b.pool, b.charge) == (account.pool, account.charge)) {
        row.fail("pool", "this pool and charge have a row already");
    }
    (!row.failed).then_some(account)
}
