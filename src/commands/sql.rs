//! `sql`: any query over the lake's tables.

use ::arrow::datatypes::DataType;
use ::arrow::util::display::{ArrayFormatter, FormatOptions};
use anyhow::Context as _;
use datafusion::prelude::{SQLOptions, SessionContext};
use tokio::runtime::Runtime;

use crate::cli::{Failure, Format, Outcome};
use crate::config::Config;
use crate::output::{self, Rows};

pub fn run(query: &str, config: &Config, runtime: &Runtime) -> Result<Outcome, Failure> {
    let snapshot = super::snapshot(config, runtime)?;
    let session = runtime.block_on(snapshot.sql_session()).context("cannot read the lake")?;
    super::compliance::register(&session, &snapshot, query, config.now(), runtime)
        .context("cannot compute findings, deadlines or coverage")?;
    print(&session, query, config, runtime)
}

/// Runs one query and writes its rows.
pub fn print(
    session: &SessionContext,
    query: &str,
    config: &Config,
    runtime: &Runtime,
) -> Result<Outcome, Failure> {
    // Queries only: the lake is changed by the other commands, never by SQL.
    let options =
        SQLOptions::new().with_allow_ddl(false).with_allow_dml(false).with_allow_statements(false);
    let (schema, batches) = runtime.block_on(async {
        let frame = session.sql_with_options(query, options).await.context("the query is wrong")?;
        let schema = frame.schema().as_arrow().clone();
        let batches = frame.collect().await.context("the query failed")?;
        anyhow::Ok((schema, batches))
    })?;
    // RFC 3339 in UTC, blank for null (contract 4).
    let times =
        if config.format == Format::Table { "%Y-%m-%dT%H:%M:%SZ" } else { "%Y-%m-%dT%H:%M:%S%.fZ" };
    let format = FormatOptions::default()
        .with_null("")
        .with_timestamp_tz_format(Some(times))
        .with_timestamp_format(Some(times));
    let mut rows = Vec::new();
    for batch in &batches {
        let formatters = batch
            .columns()
            .iter()
            .map(|column| ArrayFormatter::try_new(column, &format))
            .collect::<Result<Vec<_>, _>>()?;
        for i in 0..batch.num_rows() {
            rows.push(
                formatters
                    .iter()
                    .map(|f| f.value(i).try_to_string())
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
    }
    let columns: Vec<&str> = schema.fields().iter().map(|f| f.name().as_str()).collect();
    let of = |is: fn(&DataType) -> bool| -> Vec<&str> {
        let fields = schema.fields().iter().filter(|field| is(field.data_type()));
        fields.map(|field| field.name().as_str()).collect()
    };
    let (numbers, decimals) = (of(DataType::is_integer), of(DataType::is_numeric));
    let rows = Rows {
        columns: &columns,
        rows,
        numbers: &numbers,
        decimals: &decimals,
        flags: &of(|kind| *kind == DataType::Boolean),
        ..Rows::default()
    };
    output::rows(config.format, &rows)?;
    Ok(Outcome::Done)
}
