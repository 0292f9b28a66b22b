//! What a statement may be: the door that every one goes through.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion::common::ParamValues;
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SQLOptions, SessionContext};
use datafusion::sql::parser::Statement as DfStatement;
use datafusion::sql::sqlparser::ast::{
    ObjectName, Query, Set, Statement, Visit, Visitor, visit_relations,
};
use datafusion::sql::sqlparser::dialect::PostgreSqlDialect;
use datafusion::sql::sqlparser::tokenizer::{Token, Tokenizer};
use datafusion_postgres::QueryHook;
use datafusion_postgres::arrow_pg::datatypes::df::encode_dataframe;
use datafusion_postgres::hooks::HookClient;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::portal::Format;
use datafusion_postgres::pgwire::api::results::{Response, Tag};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::types::format::FormatOptions;

use tokio::runtime::Handle;
use tokio::task::block_in_place;

use crate::catalog::Shared;

/// Settings of a connection that a client may make; any other is answered and left alone.
const SETTINGS: [&str; 7] = [
    "statement_timeout",
    "datestyle",
    "bytea_output",
    "intervalstyle",
    "application_name",
    "extra_float_digits",
    "search_path",
];

/// PostgreSQL's code for what only a writable server does.
const READ_ONLY: &str = "25006";
/// PostgreSQL's code for a statement that is too complex.
const TOO_COMPLEX: &str = "54001";
/// Most words and signs of a query. The threads that queries are planned on have stacks for them.
const WORDS_MAX: usize = 5_000;
/// Most tables that a query reads.
const TABLES_MAX: u64 = 64;
/// PostgreSQL's code for what a login may not do.
const NOT_PERMITTED: &str = "42501";

pub(crate) fn refusal(code: &str, what: impl Into<String>) -> PgWireError {
    PgWireError::UserError(Box::new(ErrorInfo::new(
        "ERROR".to_owned(),
        code.to_owned(),
        what.into(),
    )))
}

/// Only what reads, or talks about the connection itself.
fn admit(statement: &Statement) -> PgWireResult<()> {
    match statement {
        Statement::Query(query) => admit_query(query),
        Statement::Explain { statement, .. } => match &**statement {
            Statement::Query(query) => admit_query(query),
            _ => Err(not_a_query(statement)),
        },
        Statement::ShowVariable { .. }
        | Statement::ShowStatus { .. }
        | Statement::ShowCatalogs { .. }
        | Statement::ShowTables { .. }
        | Statement::ShowColumns { .. }
        | Statement::StartTransaction { .. }
        | Statement::Commit { .. }
        | Statement::Rollback { .. } => Ok(()),
        Statement::Set(set) => admit_setting(set),
        _ => Err(not_a_query(statement)),
    }
}

fn not_a_query(statement: &Statement) -> PgWireError {
    let text = statement.to_string();
    let verb: Vec<&str> = text.split_whitespace().take(2).collect();
    refusal(
        READ_ONLY,
        format!(
            "{} is refused: this server is read-only; use the rumledger commands",
            verb.join(" ")
        ),
    )
}

/// A query that makes a table on the way (`SELECT … INTO`, or a statement that returns rows inside a
/// common table expression) is none.
fn admit_query(query: &Query) -> PgWireResult<()> {
    struct Writes;
    impl Visitor for Writes {
        type Break = Statement;

        fn pre_visit_statement(&mut self, statement: &Statement) -> ControlFlow<Statement> {
            match statement {
                Statement::Query(_) => ControlFlow::Continue(()),
                other => ControlFlow::Break(other.clone()),
            }
        }
    }
    if let ControlFlow::Break(statement) = query.visit(&mut Writes) {
        return Err(not_a_query(&statement));
    }
    if tables_read(query) > TABLES_MAX {
        return Err(refusal(
            TOO_COMPLEX,
            format!(
                "a query reads at most {TABLES_MAX} tables, a common table expression as often as it is named"
            ),
        ));
    }
    Ok(())
}

/// How often a query reads a table, which is what planning it costs: a common table expression is planned wherever it
/// is named, so that a few that name each other twice come to millions.
fn tables_read(query: &Query) -> u64 {
    /// The relations that a query names, and what its common table expressions name.
    #[derive(Default)]
    struct Named {
        relations: Vec<String>,
        expressions: HashMap<String, Vec<String>>,
    }
    impl Visitor for Named {
        type Break = ();

        fn pre_visit_query(&mut self, query: &Query) -> ControlFlow<()> {
            for expression in query.with.iter().flat_map(|with| &with.cte_tables) {
                let name = expression.alias.name.value.to_ascii_lowercase();
                let of = self.expressions.entry(name).or_default();
                let _ = visit_relations(&expression.query, |relation| {
                    of.push(relation.to_string().to_ascii_lowercase());
                    ControlFlow::<()>::Continue(())
                });
            }
            ControlFlow::Continue(())
        }

        fn pre_visit_relation(&mut self, relation: &ObjectName) -> ControlFlow<()> {
            self.relations.push(relation.to_string().to_ascii_lowercase());
            ControlFlow::Continue(())
        }
    }
    fn weight(name: &str, named: &Named, known: &mut HashMap<String, u64>) -> u64 {
        if let Some(weight) = known.get(name) {
            return *weight;
        }
        // A table of the same name, where an expression names itself.
        known.insert(name.to_owned(), 1);
        let of = named.expressions.get(name).into_iter().flatten();
        let sum = of.map(|name| weight(name, named, known)).fold(0, u64::saturating_add);
        known.insert(name.to_owned(), sum.max(1));
        sum.max(1)
    }
    let mut named = Named::default();
    let _ = query.visit(&mut named);
    let mut known = HashMap::new();
    let all = named.relations.iter().map(|name| weight(name, &named, &mut known));
    all.fold(0, u64::saturating_add)
}

/// # Errors
/// If a text has more words than a query may have: what nests in a tree of its words is visited by recursion.
pub(crate) fn admit_text(text: &str) -> PgWireResult<()> {
    // What is no SQL, the parser says.
    let Ok(words) = Tokenizer::new(&PostgreSqlDialect {}, text).tokenize() else { return Ok(()) };
    let words = words.iter().filter(|word| !matches!(word, Token::Whitespace(_))).count();
    if words > WORDS_MAX {
        return Err(refusal(
            TOO_COMPLEX,
            format!("a query has at most {WORDS_MAX} words and signs, this one has {words}"),
        ));
    }
    Ok(())
}

fn admit_setting(set: &Set) -> PgWireResult<()> {
    // Those of the engine hold for all connections of a login.
    if set.to_string().to_ascii_lowercase().contains("datafusion.") {
        return Err(refusal(NOT_PERMITTED, "settings of the engine are the operator's"));
    }
    Ok(())
}

/// Whether the library's own hook answers a setting without passing it on to the engine.
fn is_known(set: &Set) -> bool {
    match set {
        Set::SingleAssignment { scope: None, hivevar: false, variable, values } => {
            SETTINGS.contains(&variable.to_string().to_ascii_lowercase().as_str())
                && values.first().is_some_and(|value| value.to_string().len() < 256)
        }
        Set::SetTimeZone { local: false, .. } => true,
        _ => false,
    }
}

fn settled(statement: &Statement) -> Option<PgWireResult<Response>> {
    match statement {
        Statement::Set(set) if !is_known(set) => Some(Ok(Response::Execution(Tag::new("SET")))),
        _ => None,
    }
}

/// Refuses what does not read. The first hook.
pub(crate) struct Door;

#[async_trait]
impl QueryHook for Door {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        _session: &SessionContext,
        _client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        admit(statement).map_or_else(|refused| Some(Err(refused)), |()| settled(statement))
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        _session: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        admit(statement).err().map(Err)
    }

    async fn handle_extended_query(
        &self,
        statement: &Statement,
        _plan: &LogicalPlan,
        _params: &ParamValues,
        _session: &SessionContext,
        _client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        admit(statement).map_or_else(|refused| Some(Err(refused)), |()| settled(statement))
    }
}

/// Plans queries, all tables of one moment. The last hook.
pub(crate) struct Planner {
    pub(crate) shared: Arc<Shared>,
}

impl Planner {
    /// # Errors
    /// If the query is wrong, or its plan does not only read.
    pub(crate) async fn plan(
        &self,
        statement: &Statement,
        session: &SessionContext,
    ) -> PgWireResult<LogicalPlan> {
        let _one_moment = self.shared.planning().await;
        let failed = |e| PgWireError::ApiError(Box::new(e));
        let statement = DfStatement::Statement(Box::new(statement.clone()));
        // Planning does not look up from its work: other connections go on beside it.
        let plan = block_in_place(|| {
            Handle::current().block_on(session.state().statement_to_plan(statement))
        });
        let plan = plan.map_err(failed)?;
        SQLOptions::new()
            .with_allow_ddl(false)
            .with_allow_dml(false)
            .with_allow_statements(false)
            .verify_plan(&plan)
            .map_err(|e| refusal(READ_ONLY, e.strip_backtrace()))?;
        Ok(plan)
    }
}

#[async_trait]
impl QueryHook for Planner {
    async fn handle_simple_query(
        &self,
        statement: &Statement,
        session: &SessionContext,
        client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        let options = Arc::new(FormatOptions::from_client_metadata(client.metadata()));
        let run = async {
            let plan = self.plan(statement, session).await?;
            let frame = session
                .execute_logical_plan(plan)
                .await
                .map_err(|e| PgWireError::ApiError(Box::new(e)))?;
            encode_dataframe(frame, &Format::UnifiedText, Some(options)).await
        };
        Some(run.await.map(Response::Query))
    }

    async fn handle_extended_parse_query(
        &self,
        statement: &Statement,
        session: &SessionContext,
        _client: &(dyn ClientInfo + Send + Sync),
    ) -> Option<PgWireResult<LogicalPlan>> {
        Some(self.plan(statement, session).await)
    }

    async fn handle_extended_query(
        &self,
        _statement: &Statement,
        _plan: &LogicalPlan,
        _params: &ParamValues,
        _session: &SessionContext,
        _client: &mut dyn HookClient,
    ) -> Option<PgWireResult<Response>> {
        None
    }
}

#[cfg(test)]
mod tests {
    use datafusion_postgres::datafusion_pg_catalog::sql::PostgresCompatibilityParser;

    use super::*;

    fn verdict(sql: &str) -> String {
        let statements = match PostgresCompatibilityParser::new().parse(sql) {
            Ok(statements) => statements,
            Err(error) => return format!("no SQL: {error}"),
        };
        match admit_text(sql).and_then(|()| statements.iter().try_for_each(admit)) {
            Ok(()) => "admitted".to_owned(),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn statements_that_read_are_admitted() {
        for sql in [
            "SELECT 1",
            "WITH a AS (SELECT 1 AS x) SELECT * FROM a",
            "VALUES (1), (2)",
            "EXPLAIN SELECT 1",
            "SHOW server_version",
            "SET statement_timeout = '5s'",
            "SET TIME ZONE 'UTC'",
            "BEGIN",
            "COMMIT",
            "ROLLBACK",
        ] {
            assert_eq!(verdict(sql), "admitted", "{sql}");
        }
    }

    #[test]
    fn statements_that_do_not_are_refused() {
        for sql in [
            "INSERT INTO ledger VALUES (1)",
            "DELETE FROM ledger",
            "UPDATE ledger SET amount = 0",
            "DROP TABLE ledger",
            "CREATE TABLE t (a int)",
            "CREATE VIEW v AS SELECT 1",
            "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
            "COPY ledger TO '/tmp/x'",
            "TRUNCATE ledger",
            "EXPLAIN ANALYZE DELETE FROM ledger",
            "PREPARE p AS DELETE FROM ledger",
            "DECLARE c CURSOR FOR SELECT 1",
            "SET datafusion.runtime.memory_limit = '1G'",
            "GRANT SELECT ON ledger TO a",
            "CALL f()",
            "SELECT 1; DROP TABLE ledger",
        ] {
            let verdict = verdict(sql);
            assert!(verdict != "admitted", "{sql}");
        }
        // Each names the one before twice.
        let doubled = |n: usize| {
            let of = |i: usize| format!("a{i} AS (SELECT * FROM a{0} x, A{0} y)", i - 1);
            let all: Vec<String> = (1..=n).map(of).collect();
            format!("WITH a0 AS (SELECT * FROM ledger), {} SELECT * FROM a{n}", all.join(", "))
        };
        assert_eq!(verdict(&doubled(2)), "admitted");
        assert!(verdict(&doubled(7)).contains("at most 64 tables"));
        assert!(verdict(&doubled(200)).contains("at most 64 tables"));
        let cross = vec!["ledger"; 65].join(", ");
        assert!(verdict(&format!("SELECT 1 FROM {cross}")).contains("at most 64 tables"));
        let nested = format!("SELECT (SELECT count(*) FROM {cross})");
        assert!(verdict(&nested).contains("at most 64 tables"));
        assert!(verdict(&format!("SELECT 1{}", "+1".repeat(2_500))).contains("5000 words"));
        assert!(verdict("DELETE FROM ledger").contains("read-only"));
        assert!(verdict("SET datafusion.execution.batch_size = 1").contains("operator's"));
    }
}
