//! Metrics of the streaming worker, in the text format of Prometheus (0.0.4).
//!
//! No label names an account or a device: their number has no bound.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
use schemas::disposition::{Disposition, Reason, SignatureStatus};

use super::mediation::Summary;

/// Everything the worker counts.
#[derive(Clone)]
pub struct Metrics {
    registry: Registry,
    reports: IntCounterVec,
    suspended: IntCounterVec,
    signatures: IntCounterVec,
    pub received: IntCounter,
    pub messages: IntCounter,
    pub ignored: IntCounter,
    pub commits: IntCounter,
    pub commit_conflicts: IntCounter,
    pub commit_failures: IntCounter,
    pub commits_overtaken: IntCounter,
    pub commit_seconds: Histogram,
    pub last_commit: IntGauge,
    pub lag: IntGaugeVec,
    pub gathered_rows: IntGauge,
    pub partitions: IntGauge,
    pub paused: IntGauge,
    pub rebalances: IntCounterVec,
    pub receipts: IntCounter,
    pub receipt_failures: IntCounter,
    pub trust_codes: IntCounterVec,
    pub taken_up: IntCounter,
}

impl Metrics {
    /// Makes all metrics, each with all values that its labels can have, so that a counter that stays
    /// zero is seen as zero.
    ///
    /// # Errors
    /// If two metrics share a name, which would be a bug.
    pub fn new(version: &str) -> Result<Metrics, prometheus::Error> {
        let r = Registry::new();
        let build = IntGaugeVec::new(
            Opts::new("rumledger_build_info", "Always 1; the version is a label."),
            &["version"],
        )?;
        r.register(Box::new(build.clone()))?;
        build.with_label_values(&[version]).set(1);
        let metrics = Metrics {
            reports: counters(
                &r,
                "rumledger_ingest_reports_total",
                "Reports that are durable in the journal, by what became of them.",
                "disposition",
                &[Disposition::Accepted, Disposition::Duplicate, Disposition::Suspended]
                    .map(Disposition::as_str),
            )?,
            suspended: counters(
                &r,
                "rumledger_ingest_suspended_total",
                "Suspended reports that are durable in the journal, by reason.",
                "reason",
                &Reason::ALL.iter().map(|reason| reason.as_str()).collect::<Vec<_>>(),
            )?,
            signatures: counters(
                &r,
                "rumledger_ingest_signatures_total",
                "Accepted reports, by what is known of their signature.",
                "status",
                &[SignatureStatus::Verified, SignatureStatus::Unverifiable]
                    .map(SignatureStatus::as_str),
            )?,
            received: counter(
                &r,
                "rumledger_ingest_received_total",
                "Reports read from the topic whose rows are durable; equals the sum over dispositions.",
            )?,
            messages: counter(
                &r,
                "rumledger_ingest_messages_total",
                "Messages read from the topic, those read again included.",
            )?,
            ignored: counter(
                &r,
                "rumledger_ingest_ignored_total",
                "Messages that are well-formed and hold no report.",
            )?,
            commits: counter(&r, "rumledger_ingest_commits_total", "Commits made.")?,
            commit_conflicts: counter(
                &r,
                "rumledger_ingest_commit_conflicts_total",
                "Commits tried again because another writer was faster.",
            )?,
            commit_failures: counter(
                &r,
                "rumledger_ingest_commit_failures_total",
                "Commits that the store refused; each is tried again.",
            )?,
            commits_overtaken: counter(
                &r,
                "rumledger_ingest_commits_overtaken_total",
                "Commits refused because another worker went on with a partition.",
            )?,
            commit_seconds: histogram(&r)?,
            last_commit: gauge(
                &r,
                "rumledger_ingest_last_commit_timestamp_seconds",
                "When the last commit was made, in seconds since 1970; 0 before the first.",
            )?,
            lag: IntGaugeVec::new(
                Opts::new(
                    "rumledger_ingest_lag_messages",
                    "Messages that wait at the broker, by partition that this worker owns.",
                ),
                &["partition"],
            )?,
            gathered_rows: gauge(
                &r,
                "rumledger_ingest_gathered_rows",
                "Rows that wait for the next commit.",
            )?,
            partitions: gauge(
                &r,
                "rumledger_ingest_partitions",
                "Partitions that this worker reads.",
            )?,
            paused: gauge(
                &r,
                "rumledger_ingest_paused",
                "1 while reading pauses because a commit is slower than what comes in.",
            )?,
            rebalances: counters(
                &r,
                "rumledger_ingest_rebalances_total",
                "Changes of the partitions that this worker owns.",
                "kind",
                &["assigned", "revoked", "lost"],
            )?,
            receipts: counter(
                &r,
                "rumledger_ingest_receipts_total",
                "Receipts that the broker has taken, those sent again included.",
            )?,
            receipt_failures: counter(
                &r,
                "rumledger_ingest_receipt_failures_total",
                "Batches of receipts that the broker did not take; each is sent again.",
            )?,
            trust_codes: counters(
                &r,
                "rumledger_ingest_trust_codes_total",
                "Trust codes read from their topic.",
                "result",
                &["taken", "refused"],
            )?,
            taken_up: counter(
                &r,
                "rumledger_ingest_taken_up_total",
                "Suspended reports that were judged again and have another disposition now.",
            )?,
            registry: r,
        };
        metrics.registry.register(Box::new(metrics.lag.clone()))?;
        Ok(metrics)
    }

    /// Counts the reports of a batch that is durable.
    pub fn count(&self, summary: &Summary) {
        self.received.inc_by(summary.received);
        let reports = |d: Disposition| self.reports.with_label_values(&[d.as_str()]);
        reports(Disposition::Accepted).inc_by(summary.accepted);
        reports(Disposition::Duplicate).inc_by(summary.duplicate);
        reports(Disposition::Suspended).inc_by(summary.suspended_total());
        for (reason, n) in &summary.suspended {
            self.suspended.with_label_values(&[reason.as_str()]).inc_by(*n);
        }
        let signatures = |s: SignatureStatus| self.signatures.with_label_values(&[s.as_str()]);
        signatures(SignatureStatus::Verified).inc_by(summary.verified);
        signatures(SignatureStatus::Unverifiable).inc_by(summary.unverifiable);
    }

    /// All metrics as text.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics cannot be written");
        }
        out
    }
}

fn counter(r: &Registry, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
    let counter = IntCounter::new(name, help)?;
    r.register(Box::new(counter.clone()))?;
    Ok(counter)
}

fn gauge(r: &Registry, name: &str, help: &str) -> Result<IntGauge, prometheus::Error> {
    let gauge = IntGauge::new(name, help)?;
    r.register(Box::new(gauge.clone()))?;
    Ok(gauge)
}

fn counters(
    r: &Registry,
    name: &str,
    help: &str,
    label: &str,
    values: &[&str],
) -> Result<IntCounterVec, prometheus::Error> {
    let counters = IntCounterVec::new(Opts::new(name, help), &[label])?;
    r.register(Box::new(counters.clone()))?;
    for value in values {
        counters.with_label_values(&[*value]);
    }
    Ok(counters)
}

fn histogram(r: &Registry) -> Result<Histogram, prometheus::Error> {
    let buckets = prometheus::exponential_buckets(0.01, 2.0, 13)?;
    let histogram = Histogram::with_opts(
        HistogramOpts::new(
            "rumledger_ingest_commit_seconds",
            "From the start of a commit to its answer, tries after the first included.",
        )
        .buckets(buckets),
    )?;
    r.register(Box::new(histogram.clone()))?;
    Ok(histogram)
}
