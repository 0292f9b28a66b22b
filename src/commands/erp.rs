//! `export ledger`: the lines of a period in double entry, for an ERP.

use anyhow::{Context as _, anyhow};
use reconcile::shell::ledger::lines;
use schemas::book::GlAccount;
use schemas::ledger::Line;
use schemas::period::{Period, rfc3339};
use schemas::quantity::money_text;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

const COLUMNS: [&str; 13] = [
    "line_id",
    "posted_period",
    "posted_at",
    "debit_account",
    "credit_account",
    "amount",
    "currency",
    "customer",
    "smart_account",
    "virtual_account",
    "service_period",
    "kind",
    "text",
];

pub fn ledger(period: Period, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let lines = runtime
        .block_on(lines(snapshot.ledger.as_ref(), "posted_period", period))
        .context("cannot read the ledger")?;
    let accounts = &snapshot.book.book.gl_accounts;
    let rows = lines.iter().map(|line| entry(line, accounts)).collect::<anyhow::Result<_>>()?;
    output::rows(
        config.format,
        &Rows {
            columns: &COLUMNS,
            rows,
            decimals: &["amount"],
            hidden: &["line_id", "posted_at"],
            ..Rows::default()
        },
    )?;
    Ok(Outcome::Done)
}

/// One debit and one credit of the same amount; what is taken back is booked the other way round.
fn entry(line: &Line, accounts: &[GlAccount]) -> anyhow::Result<Vec<String>> {
    let fits = |account: &&GlAccount| {
        account.pool.is_none_or(|pool| pool == line.key.pool)
            && account.charge.is_none_or(|charge| charge == line.key.charge)
    };
    // The row that says most: pool and charge, then either, then none.
    let says = |account: &&GlAccount| {
        (account.pool.is_some() as u8 + account.charge.is_some() as u8, account.pool.is_some())
    };
    let account = accounts.iter().filter(fits).max_by_key(says).ok_or_else(|| {
        anyhow!(
            "gl_accounts.csv of the book has no row for {} {}; it has the columns pool, charge, debit_account, credit_account",
            line.key.pool.as_str(),
            line.key.charge.as_str()
        )
    })?;
    let (debit, credit) = if line.amount < 0 {
        (&account.credit_account, &account.debit_account)
    } else {
        (&account.debit_account, &account.credit_account)
    };
    let posted_at = line.posting.as_ref().map(|p| rfc3339(p.posted_at)).unwrap_or_default();
    Ok(vec![
        line.line_id.clone(),
        line.posted_period.to_string(),
        posted_at,
        debit.clone(),
        credit.clone(),
        money_text(line.amount.abs(), &line.currency),
        line.currency.clone(),
        line.customer.clone(),
        line.key.smart_account.clone(),
        line.key.virtual_account.clone(),
        line.service_period.to_string(),
        line.kind.as_str().to_owned(),
        format!("{} {} {}", line.key.charge.as_str(), line.key.item, line.key.subscription_id)
            .trim_end()
            .to_owned(),
    ])
}
