//! What `serve` counts of itself. Names begin with `rumledger_serve_`.

use prometheus::{
    Encoder as _, Histogram, HistogramOpts, IntCounterVec, IntGauge, Opts, Registry, TextEncoder,
};

/// Metrics of the server; more can be registered beside them.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Registry,
    pub(crate) connections: IntGauge,
    pub(crate) running: IntGauge,
    pub(crate) logins: IntCounterVec,
    pub(crate) queries: IntCounterVec,
    pub(crate) query_seconds: Histogram,
}

impl Default for Metrics {
    #[allow(clippy::expect_used, reason = "names and labels are literals")]
    fn default() -> Self {
        let registry = Registry::new();
        let made = "a metric of literals";
        let connections =
            IntGauge::new("rumledger_serve_connections", "PostgreSQL connections that are open")
                .expect(made);
        let running =
            IntGauge::new("rumledger_serve_queries_running", "Queries that run now").expect(made);
        let logins = IntCounterVec::new(
            Opts::new("rumledger_serve_connections_total", "Connections by how they began"),
            &["outcome"],
        )
        .expect(made);
        let queries = IntCounterVec::new(
            Opts::new("rumledger_serve_queries_total", "Queries by how they ended"),
            &["outcome"],
        )
        .expect(made);
        let query_seconds = Histogram::with_opts(
            HistogramOpts::new(
                "rumledger_serve_query_seconds",
                "From a query's arrival to its last row",
            )
            .buckets(vec![0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0]),
        )
        .expect(made);
        // All outcomes are there from the start: a rate over a series that appears is no rate.
        for outcome in ["accepted", "refused"] {
            logins.with_label_values(&[outcome]);
        }
        for outcome in ["done", "failed", "timeout", "too-many-rows", "abandoned", "busy"] {
            queries.with_label_values(&[outcome]);
        }
        for metric in [
            Box::new(connections.clone()) as Box<dyn prometheus::core::Collector>,
            Box::new(running.clone()),
            Box::new(logins.clone()),
            Box::new(queries.clone()),
            Box::new(query_seconds.clone()),
        ] {
            registry.register(metric).expect(made);
        }
        Metrics { registry, connections, running, logins, queries, query_seconds }
    }
}

impl Metrics {
    /// In the text format 0.0.4.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        let mut text = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut text) {
            tracing::error!(%error, "metrics cannot be written");
        }
        text
    }

    pub(crate) fn ended(&self, outcome: &str) {
        self.queries.with_label_values(&[outcome]).inc();
    }
}
