//! `requests`: what came beside reports (R6.5), and what the book holds of it since.

use std::collections::HashMap;

use ::arrow::array::{Array as _, AsArray as _, RecordBatch};
use ::arrow::compute::cast;
use ::arrow::datatypes::{DataType, TimestampMicrosecondType};
use anyhow::Context as _;
use ingest::core::requests::{RequestKind, elements};
use schemas::book::{AuthorizationKind, Book, PolicyScope};
use schemas::journal::timestamp;
use schemas::period::{EpochSeconds, rfc3339};
use schemas::udi::Udi;
use tokio::runtime::Runtime;

use crate::cli::{Failure, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

const COLUMNS: &[&str] =
    &["received_at", "kind", "element", "udi_pid", "udi_serial", "source", "state", "answered_at"];

/// Of reports beside which something stands, and of documents without one.
const QUERY: &str = "\
    SELECT received_at, source, udi_pid, udi_serial, context AS evidence FROM journal \
    WHERE context IS NOT NULL AND disposition <> 'duplicate' \
    UNION ALL SELECT received_at, source, NULL, NULL, raw FROM documents";

struct Request {
    received_at: EpochSeconds,
    source: String,
    udi: Option<Udi>,
    kind: RequestKind,
    element: String,
}

pub fn run(open: bool, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let batches = runtime.block_on(async {
        let session = snapshot.sql_session().await?;
        anyhow::Ok(session.sql(QUERY).await?.collect().await?)
    });
    let mut requests = Vec::new();
    for batch in batches.context("cannot read what came beside reports")? {
        take(&batch, &mut requests)?;
    }
    requests.sort_by(|a, b| {
        (a.received_at, &a.source, &a.udi, &a.element).cmp(&(
            b.received_at,
            &b.source,
            &b.udi,
            &b.element,
        ))
    });
    let answers = Answers::new(&snapshot.book.book);
    let rows: Vec<Vec<String>> = requests
        .iter()
        .map(|request| (request, answers.of(request)))
        .filter(|(_, (state, _))| !open || *state == "open")
        .map(|(request, (state, answered_at))| {
            let (pid, serial) = request
                .udi
                .as_ref()
                .map_or_else(Default::default, |udi| (udi.pid.clone(), udi.serial.clone()));
            vec![
                rfc3339(request.received_at),
                request.kind.as_str().to_owned(),
                request.element.clone(),
                pid,
                serial,
                request.source.clone(),
                state.to_owned(),
                answered_at.map(rfc3339).unwrap_or_default(),
            ]
        })
        .collect();
    let total = rows.len();
    output::rows(config.format, &Rows { columns: COLUMNS, rows, ..Rows::default() })?;
    output::note(config.quiet, &format!("{total} requests and answers"));
    Ok(Outcome::Done)
}

fn take(batch: &RecordBatch, requests: &mut Vec<Request>) -> anyhow::Result<()> {
    let texts = |i: usize| cast(batch.column(i), &DataType::Utf8);
    let times = cast(batch.column(0), &timestamp())?;
    let times = times.as_primitive::<TimestampMicrosecondType>();
    let (sources, pids, serials) = (texts(1)?, texts(2)?, texts(3)?);
    let (sources, pids, serials) =
        (sources.as_string::<i32>(), pids.as_string::<i32>(), serials.as_string::<i32>());
    let evidence = cast(batch.column(4), &DataType::Binary)?;
    let evidence = evidence.as_binary::<i32>();
    for i in 0..batch.num_rows() {
        let is_known = pids.is_valid(i) && serials.is_valid(i);
        for element in elements(evidence.value(i)) {
            let kind = RequestKind::of(&element);
            if kind == RequestKind::Other {
                continue;
            }
            requests.push(Request {
                received_at: times.value(i).div_euclid(1_000_000),
                source: if sources.is_valid(i) {
                    sources.value(i).to_owned()
                } else {
                    String::new()
                },
                udi: is_known.then(|| Udi::new(pids.value(i), serials.value(i))),
                kind,
                element,
            });
        }
    }
    Ok(())
}

/// What the book holds that may answer a request: when it came into force, by kind and PI.
struct Answers<'b> {
    times: HashMap<(RequestKind, &'b Udi), Vec<EpochSeconds>>,
    policies: Vec<&'b str>,
}

impl<'b> Answers<'b> {
    fn new(book: &'b Book) -> Answers<'b> {
        let mut times: HashMap<(RequestKind, &Udi), Vec<EpochSeconds>> = HashMap::new();
        let mut add = |kind, udi, at| times.entry((kind, udi)).or_default().push(at);
        for code in &book.trust_codes {
            add(RequestKind::TrustCode, &code.udi, code.valid_from);
        }
        for authorization in &book.authorizations {
            if authorization.kind == AuthorizationKind::Slac {
                add(RequestKind::Slac, &authorization.udi, authorization.installed_at);
                if let Some(at) = authorization.returned_at {
                    add(RequestKind::SlacReturn, &authorization.udi, at);
                }
            }
        }
        for ack in &book.acks {
            add(RequestKind::Ack, &ack.udi, ack.acked_at);
        }
        for times in times.values_mut() {
            times.sort_unstable();
        }
        let of_pi = book.policies.iter().filter(|p| p.scope == PolicyScope::ProductInstance);
        Answers { times, policies: of_pi.map(|p| p.scope_id.as_str()).collect() }
    }

    /// `answered` by the first that came into force on the day of the request or later; `open` where there
    /// is none; `kept` of what asks nothing, or of nobody that is known.
    fn of(&self, request: &Request) -> (&'static str, Option<EpochSeconds>) {
        const DAY: EpochSeconds = 86_400;
        let Some(udi) = &request.udi else { return ("kept", None) };
        match request.kind {
            RequestKind::Ack | RequestKind::Other => ("kept", None),
            RequestKind::Policy => {
                let is_held = self.policies.contains(&udi.to_string().as_str());
                (if is_held { "answered" } else { "open" }, None)
            }
            kind => {
                let since = request.received_at.div_euclid(DAY) * DAY;
                let times = self.times.get(&(kind, udi));
                let first = times.and_then(|times| times.iter().find(|at| **at >= since));
                (if first.is_some() { "answered" } else { "open" }, first.copied())
            }
        }
    }
}
