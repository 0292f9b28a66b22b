//! What the tables come to, for alerts. Prometheus keeps floats: these are counts to be woken by, the
//! tables have what is exact.

use prometheus::{IntCounter, IntGauge, IntGaugeVec, Opts, Registry};
use reconcile::shell::run::Snapshot;
use schemas::period::EpochSeconds;

use super::computed::Computed;

pub struct Gauges {
    version: IntGaugeVec,
    refreshed: IntGauge,
    computed: IntGauge,
    pub refresh_failures: IntCounter,
    pub compute_failures: IntCounter,
    findings: IntGaugeVec,
    deadlines: IntGaugeVec,
    exception_seconds: IntGaugeVec,
    chain_broken: IntGaugeVec,
    suspended: IntGaugeVec,
    suspended_oldest: IntGaugeVec,
}

impl Gauges {
    pub fn new(registry: &Registry) -> Result<Gauges, prometheus::Error> {
        let many = |name: &str, help: &str, labels: &[&str]| -> Result<IntGaugeVec, _> {
            let gauges = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(gauges.clone()))?;
            Ok::<_, prometheus::Error>(gauges)
        };
        let one = |name: &str, help: &str| -> Result<IntGauge, _> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok::<_, prometheus::Error>(gauge)
        };
        let counter = |name: &str, help: &str| -> Result<IntCounter, _> {
            let counter = IntCounter::new(name, help)?;
            registry.register(Box::new(counter.clone()))?;
            Ok::<_, prometheus::Error>(counter)
        };
        Ok(Gauges {
            version: many(
                "rumledger_table_version",
                "Newest version of a table that is served",
                &["table"],
            )?,
            refreshed: one(
                "rumledger_serve_refreshed_timestamp_seconds",
                "When the lake was last looked at for newer commits",
            )?,
            computed: one(
                "rumledger_serve_computed_timestamp_seconds",
                "As of when findings, deadlines, exceptions and checks are",
            )?,
            refresh_failures: counter(
                "rumledger_serve_refresh_failures_total",
                "Looks at the lake that failed",
            )?,
            compute_failures: counter(
                "rumledger_serve_compute_failures_total",
                "Computations of findings, deadlines, exceptions and checks that failed",
            )?,
            findings: many(
                "rumledger_findings",
                "Breaches of the programme's rules",
                &["rule", "severity"],
            )?,
            deadlines: many(
                "rumledger_deadlines",
                "Product instances by the state of their next deadline",
                &["state"],
            )?,
            exception_seconds: many(
                "rumledger_exceptions_license_seconds",
                "Usage that could not be priced, by period and reason: licence-seconds",
                &["period", "reason"],
            )?,
            chain_broken: many(
                "rumledger_ledger_chain_broken",
                "1 where the hash chain of a period's lines does not hold",
                &["period"],
            )?,
            suspended: many(
                "rumledger_suspended_reports",
                "Suspended reports, by reason",
                &["reason"],
            )?,
            suspended_oldest: many(
                "rumledger_suspended_oldest_timestamp_seconds",
                "When the oldest suspended report arrived, by reason",
                &["reason"],
            )?,
        })
    }

    pub fn refreshed(&self, snapshot: &Snapshot, now: EpochSeconds) {
        for (table, version) in super::versions_of(snapshot) {
            let version = version.map_or(-1, |version| i64::try_from(version).unwrap_or(i64::MAX));
            self.version.with_label_values(&[table]).set(version);
        }
        self.refreshed.set(now);
    }

    /// Shows what was computed, and nothing that was there before and is no more.
    pub fn computed(&self, computed: &Computed) {
        let counts = &computed.counts;
        self.computed.set(computed.at.unwrap_or_default());
        self.findings.reset();
        for ((rule, severity), count) in &counts.findings {
            self.findings.with_label_values(&[rule, severity]).set(*count);
        }
        self.deadlines.reset();
        for (state, count) in &counts.deadlines {
            self.deadlines.with_label_values(&[state]).set(*count);
        }
        self.exception_seconds.reset();
        for ((period, reason), seconds) in &counts.exceptions {
            let labels = [period.to_string(), (*reason).to_owned()];
            let seconds = i64::try_from(*seconds).unwrap_or(i64::MAX);
            self.exception_seconds.with_label_values(&labels).set(seconds);
        }
        self.chain_broken.reset();
        for (period, broken) in &counts.chains {
            self.chain_broken.with_label_values(&[period.to_string()]).set(i64::from(*broken));
        }
        self.suspended.reset();
        self.suspended_oldest.reset();
        for (reason, (reports, oldest)) in &counts.suspended {
            self.suspended.with_label_values(&[reason]).set(*reports);
            self.suspended_oldest.with_label_values(&[reason]).set(*oldest);
        }
    }
}
