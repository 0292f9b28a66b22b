//! `findings`, `deadlines`, `coverage`: the rules of the licence programme.

use std::collections::BTreeMap;

use anyhow::Context as _;
use jiff::tz::TimeZone;
use reconcile::ReconcileError;
use reconcile::core::deadlines::DAY;
use reconcile::shell::compliance::{Compliance, forecast};
use reconcile::shell::compliance_tables::{self as tables, Computed, Kind};
use reconcile::shell::run::Snapshot;
use schemas::book::AccountId;
use schemas::finding::{Rule, Severity};
use schemas::period::{EpochSeconds, Period};
use tokio::runtime::Runtime;

use crate::cli::{AsOf, CoverageBy, Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

/// Days that a forecast looks ahead where nobody says.
const FORECAST_DAYS: u32 = 30;

/// Which findings are asked for.
pub struct Filter {
    pub severity: Option<Severity>,
    pub rule: Option<Rule>,
    pub account: Option<AccountId>,
}

fn instant(as_of: AsOf, config: &Config) -> EpochSeconds {
    as_of.as_of.map_or_else(|| config.now(), |moment| moment.resolve(&TimeZone::UTC))
}

pub fn findings(
    as_of: AsOf,
    filter: &Filter,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let at = instant(as_of, config);
    let snapshot = super::snapshot(config, runtime)?;
    super::known_account(&snapshot, filter.account.as_ref())?;
    let found = runtime.block_on(async {
        let compliance = Compliance::read(&snapshot, at).await?;
        let mut all = compliance.findings().await?;
        all.retain(|one| {
            let rule = one.finding.rule;
            let account = one.finding.account.map(|a| &compliance.account(a).id);
            filter.rule.is_none_or(|only| only == rule)
                && filter.severity.is_none_or(|only| only == rule.facts().severity)
                && filter.account.as_ref().is_none_or(|only| account == Some(only))
        });
        Ok::<_, ReconcileError>(tables::findings(&compliance, &all))
    });
    let found = found.context("cannot look for breaches of the rules")?;
    let hidden = &["domain_rules", "report_ids", "last_seen", "smart_account", "currency"];
    let total = found.rows.len();
    print(found, hidden, config)?;
    output::note(config.quiet, &format!("{total} findings"));
    Ok(if total == 0 { Outcome::Done } else { Outcome::Found })
}

pub fn deadlines(
    as_of: AsOf,
    within: Option<u32>,
    by_day: bool,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let at = instant(as_of, config);
    let snapshot = super::snapshot(config, runtime)?;
    let compliance = runtime.block_on(Compliance::read(&snapshot, at));
    let mut compliance = compliance.context("cannot read what was reported")?;
    let mut all = compliance.deadlines().context("cannot compute what is due")?;
    // A fleet of 300,000 is held once, not in four forms.
    compliance.forget_reports();
    if by_day {
        let days = forecast(&all, at, within.unwrap_or(FORECAST_DAYS));
        print(tables::forecast(&days), &[], config)?;
        return Ok(Outcome::Done);
    }
    if let Some(days) = within {
        let until = at + EpochSeconds::from(days) * DAY;
        all.retain(|one| one.deadline.due().is_some_and(|due| due <= until));
    }
    let overdue = all.iter().filter(|one| one.deadline.state(at) == "overdue").count();
    let hidden = &[
        "smart_account",
        "report_recommended",
        "last_ack",
        "change_at",
        "change_due",
        "change_reported",
        "entitlement",
        "exemption",
        "currency",
    ];
    let total = all.len();
    let rows = tables::deadlines(&compliance, &all, at);
    drop((all, compliance));
    drop(snapshot);
    print(rows, hidden, config)?;
    output::note(config.quiet, &format!("{total} product instances, {overdue} overdue"));
    Ok(if overdue == 0 { Outcome::Done } else { Outcome::Found })
}

pub fn coverage(
    period: Period,
    as_of: AsOf,
    by: CoverageBy,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    let at = instant(as_of, config);
    let snapshot = super::snapshot(config, runtime)?;
    let computed = match by {
        CoverageBy::Account => of_accounts(&snapshot, period, at, runtime)?,
        CoverageBy::Device => {
            let compliance =
                runtime.block_on(Compliance::read(&snapshot, at)).context(UNCOVERED)?;
            tables::coverage(&compliance, &compliance.coverage(period), period)
        }
    };
    print(computed, &["smart_account", "period"], config)?;
    Ok(Outcome::Done)
}

const UNCOVERED: &str = "cannot compute what the reports cover";

/// Coverage by account, as of an instant.
pub fn of_accounts(
    snapshot: &Snapshot,
    period: Period,
    at: EpochSeconds,
    runtime: &Runtime,
) -> anyhow::Result<Computed> {
    let computed = runtime.block_on(async {
        let compliance = Compliance::read(snapshot, at).await?;
        let all = compliance.account_coverage(period).await?;
        Ok::<_, ReconcileError>(tables::account_coverage(&compliance, &all, period))
    });
    computed.context(UNCOVERED)
}

/// The time that each customer's devices had to account for in a period, and what of it reports cover.
pub fn of_customers(
    snapshot: &Snapshot,
    period: Period,
    config: &Config,
    runtime: &Runtime,
) -> anyhow::Result<BTreeMap<String, (i64, i64)>> {
    let compliance = runtime.block_on(Compliance::read(snapshot, config.now()));
    Ok(compliance.context(UNCOVERED)?.customer_coverage(period))
}

fn print(computed: Computed, hidden: &[&str], config: &Config) -> anyhow::Result<()> {
    let columns: Vec<&str> = computed.columns.iter().map(|(name, _)| *name).collect();
    let of = |is: fn(Kind) -> bool| -> Vec<&str> {
        let columns = computed.columns.iter().filter(|(_, kind)| is(*kind));
        columns.map(|(name, _)| *name).collect()
    };
    let numbers = of(|kind| matches!(kind, Kind::Count | Kind::Seconds));
    let decimals = of(|kind| matches!(kind, Kind::Money | Kind::Share));
    let rows = computed.into_texts();
    output::rows(
        config.format,
        &Rows {
            columns: &columns,
            rows,
            numbers: &numbers,
            decimals: &decimals,
            hidden,
            ..Rows::default()
        },
    )
}

/// Makes the computed tables that a query names readable in its session, as they stand now.
pub fn register(
    session: &datafusion::prelude::SessionContext,
    snapshot: &Snapshot,
    query: &str,
    at: EpochSeconds,
    runtime: &Runtime,
) -> anyhow::Result<()> {
    let query = query.to_ascii_lowercase();
    let names = |table: &str| query.contains(table);
    if !["findings", "deadlines", "coverage"].into_iter().any(names) {
        return Ok(());
    }
    runtime.block_on(async {
        let compliance = Compliance::read(snapshot, at).await?;
        let mut computed = Vec::new();
        if names("findings") {
            computed.push(tables::findings(&compliance, &compliance.findings().await?));
        }
        if names("deadlines") {
            computed.push(tables::deadlines(&compliance, &compliance.deadlines()?, at));
        }
        if names("coverage") {
            computed.push(tables::all_coverage(&compliance, at));
        }
        for table in computed {
            session.register_batch(table.name, table.batch()?)?;
        }
        Ok::<_, anyhow::Error>(())
    })
}
