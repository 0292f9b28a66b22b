//! What is offered: tables of one moment, and which of their rows a login sees.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError, RwLock};

use async_trait::async_trait;
use datafusion::catalog::{SchemaProvider, TableProvider};
use datafusion::common::{DataFusionError, JoinType, Result};
use datafusion::datasource::provider_as_source;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::prelude::{Column, lit};
use tokio::sync::{RwLock as Gate, RwLockReadGuard};

use crate::wall::Walled;

/// The table that says which device belongs to which account, and when.
const DEVICES: &str = "book_devices";

/// The accounts of a login.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    All,
    Accounts(Vec<AccountScope>),
}

/// One account, or all virtual accounts of a smart account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccountScope {
    pub smart: String,
    pub virtual_: Option<String>,
}

impl AccountScope {
    /// Reads `SA/VA`, or `SA`; as everywhere, the first `/` separates (contract 4).
    ///
    /// # Errors
    /// If a part is empty.
    pub fn parse(text: &str) -> Result<AccountScope, String> {
        let (smart, virtual_) = match text.split_once('/') {
            Some((smart, virtual_)) => (smart, Some(virtual_)),
            None => (text, None),
        };
        if smart.is_empty() || virtual_ == Some("") {
            return Err(format!("'{text}' is no account; write SA/VA, or SA for all of SA"));
        }
        Ok(AccountScope { smart: smart.to_owned(), virtual_: virtual_.map(str::to_owned) })
    }
}

/// Which rows of a table a login with accounts of its own sees; a login without sees all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowsOf {
    /// All: they are nobody's in particular.
    Everyone,
    /// Those of its accounts, by `smart_account` and `virtual_account`.
    Account,
    /// Those of its accounts' devices, in the time in which the devices were theirs.
    Device { start: &'static str, end: &'static str },
    /// None: the table is not there.
    Operators,
}

/// A table as it is offered.
#[derive(Clone, Debug)]
pub struct Offer {
    pub table: Arc<dyn TableProvider>,
    pub rows_of: RowsOf,
}

/// The tables of one moment.
#[derive(Clone, Debug, Default)]
pub struct Catalog {
    pub tables: BTreeMap<String, Offer>,
}

impl Catalog {
    pub fn offer(&mut self, name: &str, table: Arc<dyn TableProvider>, rows_of: RowsOf) {
        self.tables.insert(name.to_owned(), Offer { table, rows_of });
    }

    /// A table as a login sees it; `None` where it does not.
    fn table(&self, name: &str, scope: &Scope) -> Result<Option<Arc<dyn TableProvider>>> {
        let Some(offer) = self.tables.get(name) else { return Ok(None) };
        let Scope::Accounts(accounts) = scope else { return Ok(Some(offer.table.clone())) };
        let rows = match offer.rows_of {
            RowsOf::Everyone => return Ok(Some(offer.table.clone())),
            RowsOf::Operators => return Ok(None),
            RowsOf::Account => scan(name, &offer.table)?.filter(of_accounts(name, accounts))?,
            RowsOf::Device { start, end } => {
                let Some(devices) = self.tables.get(DEVICES) else { return Ok(None) };
                let theirs = scan(DEVICES, &devices.table)?
                    .filter(of_accounts(DEVICES, accounts))?
                    .build()?;
                of_devices(name, scan(name, &offer.table)?, theirs, start, end)?
            }
        };
        Ok(Some(Arc::new(Walled::new(rows.build()?))))
    }

    fn names(&self, scope: &Scope) -> Vec<String> {
        let shown = |offer: &Offer| *scope == Scope::All || offer.rows_of != RowsOf::Operators;
        self.tables.iter().filter(|(_, offer)| shown(offer)).map(|(name, _)| name.clone()).collect()
    }
}

fn scan(name: &str, table: &Arc<dyn TableProvider>) -> Result<LogicalPlanBuilder> {
    LogicalPlanBuilder::scan(name, provider_as_source(table.clone()), None)
}

fn of(table: &str, column: &str) -> Expr {
    Expr::Column(Column::new(Some(table), column))
}

fn of_accounts(table: &str, accounts: &[AccountScope]) -> Expr {
    accounts
        .iter()
        .map(|account| {
            let smart = of(table, "smart_account").eq(lit(account.smart.as_str()));
            match &account.virtual_ {
                None => smart,
                Some(name) => smart.and(of(table, "virtual_account").eq(lit(name.as_str()))),
            }
        })
        .reduce(Expr::or)
        .unwrap_or_else(|| lit(false))
}

/// Rows whose device was the login's in some of the row's time. `valid_to` is blank where the row of the
/// book is open.
fn of_devices(
    name: &str,
    rows: LogicalPlanBuilder,
    devices: LogicalPlan,
    start: &str,
    end: &str,
) -> Result<LogicalPlanBuilder> {
    let overlap = of(DEVICES, "valid_from")
        .lt(of(name, end))
        .and(of(DEVICES, "valid_to").is_null().or(of(DEVICES, "valid_to").gt(of(name, start))));
    let keys = |table: &str| {
        ["udi_pid", "udi_serial"].map(|column| Column::new(Some(table), column)).to_vec()
    };
    rows.join(devices, JoinType::LeftSemi, (keys(name), keys(DEVICES)), Some(overlap))
}

/// The catalog that is shown now, for all sessions. Replaced as a whole.
#[derive(Debug, Default)]
pub struct Shared {
    now: RwLock<Arc<Catalog>>,
    /// Held while a query is planned, so that all its tables are of one moment.
    gate: Gate<()>,
}

impl Shared {
    /// Shows another moment from now on. Queries that were planned before keep theirs.
    pub async fn replace(&self, catalog: Catalog) {
        let _nobody_plans = self.gate.write().await;
        *self.now.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(catalog);
    }

    pub(crate) async fn planning(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    #[must_use]
    pub fn now(&self) -> Arc<Catalog> {
        self.now.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The schema `public` of one login.
#[derive(Debug)]
pub(crate) struct Shown {
    pub(crate) shared: Arc<Shared>,
    pub(crate) scope: Scope,
}

#[async_trait]
impl SchemaProvider for Shown {
    fn table_names(&self) -> Vec<String> {
        self.shared.now().names(&self.scope)
    }

    async fn table(&self, name: &str) -> Result<Option<Arc<dyn TableProvider>>, DataFusionError> {
        self.shared.now().table(name, &self.scope)
    }

    fn table_exist(&self, name: &str) -> bool {
        self.table_names().iter().any(|shown| shown == name)
    }
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::util::pretty::pretty_format_batches;
    use datafusion::prelude::SessionContext;

    use super::*;

    /// Two accounts of SA and one of SB; device 1 moved from SA/X to SB/Z at hour 12.
    async fn catalog() -> Catalog {
        let session = SessionContext::new();
        let mut catalog = Catalog::default();
        for (name, rows_of, query) in [
            (
                "ledger",
                RowsOf::Account,
                "SELECT * FROM (VALUES ('SA','X',1),('SA','Y',2),('SB','Z',3)) AS t(smart_account, virtual_account, n)",
            ),
            (
                "book_devices",
                RowsOf::Account,
                "SELECT * FROM (VALUES ('P','1','SA','X',0,12),('P','1','SB','Z',12,NULL),('P','2','SA','Y',0,NULL)) AS t(udi_pid, udi_serial, smart_account, virtual_account, valid_from, valid_to)",
            ),
            (
                "usage",
                RowsOf::Device { start: "start", end: "end" },
                "SELECT * FROM (VALUES ('P','1',0,6),('P','1',6,13),('P','1',12,18),('P','2',0,6),('P','3',0,6)) AS t(udi_pid, udi_serial, start, \"end\")",
            ),
            ("book_catalog", RowsOf::Everyone, "SELECT 'tag' AS entitlement_tag"),
            ("journal", RowsOf::Operators, "SELECT 'raw' AS raw"),
        ] {
            catalog.offer(name, session.sql(query).await.unwrap().into_view(), rows_of);
        }
        catalog
    }

    async fn rows(scope: &Scope, name: &str) -> Option<String> {
        let table = catalog().await.table(name, scope).unwrap()?;
        let frame = SessionContext::new().read_table(table).unwrap();
        let columns = frame.schema().fields().len();
        let order = (0..columns).map(|i| frame.schema().field(i).name().clone());
        let order =
            order.map(|name| Expr::Column(Column::from_name(name)).sort(true, true)).collect();
        let text =
            pretty_format_batches(&frame.sort(order).unwrap().collect().await.unwrap()).unwrap();
        let cell = |line: &str| {
            line.replace(['|', ' '], " ").split_whitespace().collect::<Vec<_>>().join(" ")
        };
        Some(
            text.to_string()
                .lines()
                .skip(3)
                .map(cell)
                .filter(|l| !l.starts_with('+'))
                .collect::<Vec<_>>()
                .join(", "),
        )
    }

    #[tokio::test]
    async fn a_login_sees_the_rows_of_its_accounts() {
        let scope = |accounts: &[&str]| {
            Scope::Accounts(accounts.iter().map(|a| AccountScope::parse(a).unwrap()).collect())
        };
        for (scope, ledger, usage) in [
            (
                Scope::All,
                "SA X 1, SA Y 2, SB Z 3",
                "P 1 0 6, P 1 12 18, P 1 6 13, P 2 0 6, P 3 0 6",
            ),
            (scope(&["SA"]), "SA X 1, SA Y 2", "P 1 0 6, P 1 6 13, P 2 0 6"),
            (scope(&["SA/X"]), "SA X 1", "P 1 0 6, P 1 6 13"),
            (scope(&["SB/Z"]), "SB Z 3", "P 1 12 18, P 1 6 13"),
            (scope(&["SA/Y", "SB"]), "SA Y 2, SB Z 3", "P 1 12 18, P 1 6 13, P 2 0 6"),
            (scope(&["SC"]), "", ""),
        ] {
            assert_eq!(rows(&scope, "ledger").await.unwrap(), ledger, "{scope:?}");
            let mut seen: Vec<String> =
                rows(&scope, "usage").await.unwrap().split(", ").map(str::to_owned).collect();
            seen.sort();
            assert_eq!(seen.join(", "), usage, "{scope:?}");
            assert_eq!(rows(&scope, "book_catalog").await.unwrap(), "tag");
            let raw = (scope == Scope::All).then(|| "raw".to_owned());
            assert_eq!(rows(&scope, "journal").await, raw);
        }
    }
}
