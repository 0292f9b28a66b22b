//! Connections: who may, over what, and how many; and the hand-over of their statements.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use datafusion::catalog::{CatalogProvider as _, MemoryCatalogProvider};
use datafusion::error::DataFusionError;
use datafusion::execution::SessionStateBuilder;
use datafusion::execution::memory_pool::FairSpillPool;
use datafusion::execution::runtime_env::{RuntimeEnv, RuntimeEnvBuilder};
use datafusion::logical_expr::LogicalPlan;
use datafusion::prelude::{SessionConfig, SessionContext};
use datafusion::sql::sqlparser::ast::Statement;
use datafusion_postgres::datafusion_pg_catalog::pg_catalog::context::EmptyContextProvider;
use datafusion_postgres::datafusion_pg_catalog::setup_pg_catalog;
use datafusion_postgres::hooks::set_show::SetShowHook;
use datafusion_postgres::hooks::transactions::TransactionStatementHook;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::sasl::scram::ScramAuth;
use datafusion_postgres::pgwire::api::auth::{DefaultServerParameterProvider, StartupHandler};
use datafusion_postgres::pgwire::api::cancel::{CancelHandler, DefaultCancelHandler};
use datafusion_postgres::pgwire::api::portal::{Format, Portal};
use datafusion_postgres::pgwire::api::query::{ExtendedQueryHandler, SimpleQueryHandler};
use datafusion_postgres::pgwire::api::results::{FieldInfo, Response};
use datafusion_postgres::pgwire::api::stmt::{QueryParser, StoredStatement};
use datafusion_postgres::pgwire::api::store::PortalStore;
use datafusion_postgres::pgwire::api::{
    ClientInfo, ClientPortalStore, ConnectionManager, ErrorHandler, METADATA_USER,
    PgWireServerHandlers, Type,
};
use datafusion_postgres::pgwire::error::{PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::PgWireBackendMessage;
use datafusion_postgres::pgwire::tokio::process_socket;
use datafusion_postgres::{DfSessionService, Parser};
use futures::Sink;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout_at};
use tokio_rustls::TlsAcceptor;
use tokio_util::context::TokioContext;

use crate::ServeError;
use crate::catalog::{Scope, Shared, Shown};
use crate::ends::Ends;
use crate::functions;
use crate::guard::{Door, Planner, admit_text, refusal};
use crate::logins::Logins;
use crate::metrics::Metrics;
use crate::rows::{Bounds, LIMIT, Slot, bounded, timed_out};
use crate::startup::{Startup, acceptor, read_only};

/// The database that clients connect to; any other name leads to it as well.
const DATABASE: &str = "rumledger";
const SCHEMA: &str = "public";
/// PostgreSQL's codes for too many connections, and for a login that is not known.
const TOO_MANY: &str = "53300";
pub(crate) const UNKNOWN_LOGIN: &str = "28000";
/// PostgreSQL's class of codes for insufficient resources.
const NO_MEMORY: &str = "53000";
/// Where a client's own timeout is kept by the library's `SET` hook.
const CLIENT_TIMEOUT: &str = "statement_timeout_ms";

/// What bounds the server and each query.
#[derive(Clone, Debug)]
pub struct Limits {
    pub connections_max: usize,
    /// Queries that run at once; others wait for their turn, within their own time.
    pub queries_at_once: usize,
    /// From a query's arrival to its last row.
    pub statement_timeout: Duration,
    pub rows_max: usize,
    /// Longest query, in bytes.
    pub text_bytes_max: usize,
    /// Memory for sorts, joins and groups of all queries together.
    pub memory_bytes: usize,
    /// Temporary files of all queries together.
    pub spill_bytes: u64,
    /// Parts that a query's work is cut into.
    pub partitions: usize,
}

/// A certificate chain and its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Tls {
    pub certificate: PathBuf,
    pub key: PathBuf,
    /// Whether clients on other machines have to connect encrypted.
    pub required: bool,
}

/// The server, before and while it listens.
pub struct Server {
    shared: Arc<Shared>,
    logins: Arc<Logins>,
    limits: Limits,
    metrics: Metrics,
    runtime: Arc<RuntimeEnv>,
    /// Threads that queries run on.
    threads: Handle,
    connections: Arc<Semaphore>,
    slots: Arc<Semaphore>,
    sessions: Mutex<HashMap<String, Arc<LoginSession>>>,
    cancels: Arc<ConnectionManager>,
    tls: Option<TlsAcceptor>,
    tls_required: bool,
    /// Tells the shape of statements that are parsed already.
    shapes: Arc<Parser>,
}

/// What a login's connections share.
struct LoginSession {
    context: Arc<SessionContext>,
    service: DfSessionService,
    planner: Planner,
}

impl Server {
    /// # Errors
    /// If the certificate or key cannot be used, or no temporary folder can be made.
    pub fn new(
        shared: Arc<Shared>,
        logins: Logins,
        limits: Limits,
        tls: Option<&Tls>,
        metrics: Metrics,
        threads: Handle,
    ) -> Result<Server, ServeError> {
        let runtime = RuntimeEnvBuilder::new()
            .with_memory_pool(Arc::new(FairSpillPool::new(limits.memory_bytes)))
            .with_max_temp_directory_size(limits.spill_bytes)
            .build_arc()?;
        let shapes = DfSessionService::new(Arc::new(SessionContext::new())).query_parser();
        Ok(Server {
            shared,
            logins: Arc::new(logins),
            connections: Arc::new(Semaphore::new(limits.connections_max)),
            slots: Arc::new(Semaphore::new(limits.queries_at_once)),
            limits,
            metrics,
            runtime,
            threads,
            sessions: Mutex::default(),
            cancels: Arc::new(ConnectionManager::new()),
            tls: tls.map(acceptor).transpose()?,
            tls_required: tls.is_some_and(|tls| tls.required),
            shapes,
        })
    }

    /// The stores and memory that all queries use; tables have to be made for it.
    #[must_use]
    pub fn runtime(&self) -> Arc<RuntimeEnv> {
        self.runtime.clone()
    }

    /// Listens, and gives the address.
    ///
    /// # Errors
    /// If the address is taken or not this machine's.
    pub async fn bind(address: SocketAddr) -> Result<TcpListener, ServeError> {
        TcpListener::bind(address)
            .await
            .map_err(|source| ServeError::Listen { address: address.to_string(), source })
    }

    /// Takes connections, for ever.
    pub async fn run(self: Arc<Self>, listener: TcpListener) {
        loop {
            match listener.accept().await {
                Ok((socket, peer)) => self.clone().accept(socket, peer),
                Err(error) => {
                    // Out of file descriptors, as a rule: others end, and free some.
                    tracing::warn!(%error, "a connection was not taken");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// Waits until no query runs, or for so long.
    pub async fn drain(&self, longest: Duration) {
        let all = u32::try_from(self.limits.queries_at_once).unwrap_or(u32::MAX);
        _ = tokio::time::timeout(longest, self.slots.acquire_many(all)).await;
    }

    fn accept(self: Arc<Self>, socket: TcpStream, peer: SocketAddr) {
        let Ok(permit) = self.connections.clone().try_acquire_owned() else {
            self.metrics.logins.with_label_values(&["refused"]).inc();
            tracing::warn!(%peer, max = self.limits.connections_max, "too many connections; one was refused");
            return;
        };
        self.metrics.logins.with_label_values(&["accepted"]).inc();
        let counted = Counted::new(&self.metrics);
        tokio::spawn(async move {
            let parameters = DefaultServerParameterProvider::default();
            let startup = SASLAuthStartupHandler::new(Arc::new(read_only(parameters)))
                .with_scram(ScramAuth::new(self.logins.clone()))
                .with_connection_manager(self.cancels.clone());
            let tls = self.tls.clone();
            let startup = Startup { login: startup, encrypted_only: self.tls_required };
            let connection = Connection {
                startup: Arc::new(startup),
                queries: Arc::new(Queries(self.clone())),
                cancel: Arc::new(DefaultCancelHandler::new(self.cancels.clone())),
            };
            if let Err(error) = process_socket(socket, tls, Arc::new(connection)).await {
                tracing::debug!(%peer, %error, "a connection ended");
            }
            drop((counted, permit));
        });
    }

    fn session(&self, client: &(impl ClientInfo + ?Sized)) -> PgWireResult<Arc<LoginSession>> {
        let unknown = || refusal(UNKNOWN_LOGIN, "nobody is logged in");
        let login = client.metadata().get(METADATA_USER).ok_or_else(unknown)?;
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(session) = sessions.get(login) {
            return Ok(session.clone());
        }
        let scope = self.logins.scope(login).ok_or_else(unknown)?;
        let session =
            self.new_session(login, scope).map_err(|e| PgWireError::ApiError(Box::new(e)))?;
        let session = Arc::new(session);
        sessions.insert(login.clone(), session.clone());
        Ok(session)
    }

    fn new_session(
        &self,
        login: &str,
        scope: &Scope,
    ) -> Result<LoginSession, datafusion::error::DataFusionError> {
        let config = SessionConfig::new()
            .with_create_default_catalog_and_schema(false)
            .with_default_catalog_and_schema(DATABASE, SCHEMA)
            .with_information_schema(true)
            .with_target_partitions(self.limits.partitions)
            .set_bool("datafusion.execution.parquet.schema_force_view_types", false)
            .set_str("datafusion.execution.time_zone", "UTC");
        let state = SessionStateBuilder::new()
            .with_config(config)
            .with_runtime_env(self.runtime.clone())
            .with_default_features()
            .with_physical_optimizer_rule(Arc::new(Ends { after: self.limits.statement_timeout }))
            .build();
        let context = SessionContext::new_with_state(state);
        let catalog = MemoryCatalogProvider::new();
        let shown = Shown { shared: self.shared.clone(), scope: scope.clone() };
        catalog.register_schema(SCHEMA, Arc::new(shown))?;
        context.register_catalog(DATABASE, Arc::new(catalog));
        setup_pg_catalog(&context, DATABASE, EmptyContextProvider).map_err(|e| *e)?;
        functions::register(&context, login);
        let context = Arc::new(context);
        let service = DfSessionService::new_with_hooks(
            context.clone(),
            vec![
                Arc::new(Door),
                Arc::new(SetShowHook),
                Arc::new(TransactionStatementHook),
                Arc::new(Planner { shared: self.shared.clone() }),
            ],
        );
        Ok(LoginSession { context, service, planner: Planner { shared: self.shared.clone() } })
    }

    /// Waits for a query's turn. Its time runs from now.
    async fn begin(&self, client: &(impl ClientInfo + ?Sized)) -> PgWireResult<Bounds> {
        let began = Instant::now();
        let own = client.metadata().get(CLIENT_TIMEOUT).and_then(|ms| ms.parse().ok());
        let timeout = own.map_or(self.limits.statement_timeout, |ms| {
            self.limits.statement_timeout.min(Duration::from_millis(ms))
        });
        let deadline = began + timeout;
        let permit = timeout_at(deadline, self.slots.clone().acquire_owned()).await;
        let Ok(Ok(permit)) = permit else {
            self.metrics.ended("busy");
            let at_once = self.limits.queries_at_once;
            return Err(refusal(
                TOO_MANY,
                format!("{at_once} queries run already, and none ended in {timeout:?}; try again"),
            ));
        };
        self.metrics.running.inc();
        let slot = Arc::new(Slot { _permit: permit, metrics: self.metrics.clone(), began });
        Ok(Bounds { deadline, rows_max: self.limits.rows_max, slot, threads: self.threads.clone() })
    }

    /// Runs what makes a response within a query's time, with its tasks on the queries' threads.
    async fn within<T>(
        &self,
        bounds: &Bounds,
        make: impl Future<Output = PgWireResult<T>>,
    ) -> PgWireResult<T> {
        let made = TokioContext::new(timeout_at(bounds.deadline, make), self.threads.clone()).await;
        let (outcome, result) = match made {
            Err(_) => ("timeout", Err(timed_out())),
            Ok(Err(error)) => ("failed", Err(error)),
            Ok(Ok(made)) => return Ok(made),
        };
        self.metrics.ended(outcome);
        result
    }

    fn check_length(&self, query: &str) -> PgWireResult<()> {
        let max = self.limits.text_bytes_max;
        if query.len() > max {
            return Err(refusal(LIMIT, format!("a query has at most {max} bytes")));
        }
        admit_text(query)
    }
}

/// A connection in the metrics, however it ends.
struct Counted(Metrics);

impl Counted {
    fn new(metrics: &Metrics) -> Counted {
        metrics.connections.inc();
        Counted(metrics.clone())
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.connections.dec();
    }
}

/// What one connection talks to. The exchange of a login is its own.
struct Connection {
    startup: Arc<Startup>,
    queries: Arc<Queries>,
    cancel: Arc<DefaultCancelHandler>,
}

impl PgWireServerHandlers for Connection {
    fn simple_query_handler(&self) -> Arc<impl SimpleQueryHandler> {
        self.queries.clone()
    }

    fn extended_query_handler(&self) -> Arc<impl ExtendedQueryHandler> {
        self.queries.clone()
    }

    fn startup_handler(&self) -> Arc<impl StartupHandler> {
        self.startup.clone()
    }

    fn error_handler(&self) -> Arc<impl ErrorHandler> {
        self.queries.clone()
    }

    fn cancel_handler(&self) -> Arc<impl CancelHandler> {
        self.cancel.clone()
    }
}

/// Hands each statement to the session of its login, and bounds what comes back.
struct Queries(Arc<Server>);

impl ErrorHandler for Queries {
    fn on_error<C: ClientInfo>(&self, client: &C, error: &mut PgWireError) {
        let login = client.metadata().get(METADATA_USER);
        tracing::info!(peer = %client.socket_addr(), login, %error, "a statement was refused");
        if is_over_memory(error) {
            *error = refusal(
                NO_MEMORY,
                format!("{error}; ask for less at once, or start the server with more --memory-mb"),
            );
        }
    }
}

/// Whether a query asked for more than the memory, or the temporary files, of all queries together.
fn is_over_memory(error: &PgWireError) -> bool {
    let PgWireError::ApiError(cause) = error else { return false };
    cause
        .downcast_ref::<DataFusionError>()
        .is_some_and(|e| matches!(e.find_root(), DataFusionError::ResourcesExhausted(_)))
}

#[async_trait]
impl SimpleQueryHandler for Queries {
    async fn do_query<C>(&self, client: &mut C, query: &str) -> PgWireResult<Vec<Response>>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        self.0.check_length(query)?;
        let session = self.0.session(client)?;
        if is_about_the_connection(query) {
            return SimpleQueryHandler::do_query(&session.service, client, query).await;
        }
        let bounds = self.0.begin(client).await?;
        let make = SimpleQueryHandler::do_query(&session.service, client, query);
        let responses = self.0.within(&bounds, make).await?;
        Ok(responses.into_iter().map(|response| bound(response, &bounds)).collect())
    }
}

type Prepared = (String, Option<(Statement, LogicalPlan)>);

#[async_trait]
impl ExtendedQueryHandler for Queries {
    type Statement = Prepared;
    type QueryParser = Queries;

    fn query_parser(&self) -> Arc<Queries> {
        Arc::new(Queries(self.0.clone()))
    }

    async fn do_query<C>(
        &self,
        client: &mut C,
        portal: &Portal<Prepared>,
        max_rows: usize,
    ) -> PgWireResult<Response>
    where
        C: ClientInfo + ClientPortalStore + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::PortalStore: PortalStore<Statement = Prepared>,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        let session = self.0.session(client)?;
        if let (text, Some((statement, _))) = &portal.statement.statement
            && !matches!(statement, Statement::Query(_))
            && is_about_the_connection(text)
        {
            return ExtendedQueryHandler::do_query(&session.service, client, portal, max_rows)
                .await;
        }
        let bounds = self.0.begin(client).await?;
        let make = async {
            let portal = replanned(&session, portal).await?;
            ExtendedQueryHandler::do_query(&session.service, client, &portal, max_rows).await
        };
        let response = self.0.within(&bounds, make).await?;
        Ok(bound(response, &bounds))
    }
}

/// One statement that reads no table: it is answered at once, however many queries run.
fn is_about_the_connection(text: &str) -> bool {
    const VERBS: [&str; 6] = ["SET", "BEGIN", "START", "COMMIT", "ROLLBACK", "END"];
    let text = text.trim().trim_end_matches(';');
    let verb = text.split_whitespace().next().unwrap_or_default();
    !text.contains(';') && VERBS.iter().any(|v| v.eq_ignore_ascii_case(verb))
}

/// The portal with its statement planned anew: a prepared statement outlives the tables that it was
/// planned on, and is asked again for what is there now.
async fn replanned(
    session: &LoginSession,
    portal: &Portal<Prepared>,
) -> PgWireResult<Portal<Prepared>> {
    let stored = &portal.statement;
    let prepared = match &stored.statement {
        (text, Some((statement @ Statement::Query(_), _))) => {
            let plan = session.planner.plan(statement, &session.context).await?;
            (text.clone(), Some((statement.clone(), plan)))
        }
        other => other.clone(),
    };
    let mut fresh = Portal::default();
    fresh.name.clone_from(&portal.name);
    fresh.statement =
        Arc::new(StoredStatement::new(stored.id.clone(), prepared, stored.parameter_types.clone()));
    fresh.parameter_format = portal.parameter_format.clone();
    fresh.parameters.clone_from(&portal.parameters);
    fresh.result_column_format = portal.result_column_format.clone();
    Ok(fresh)
}

fn bound(response: Response, bounds: &Bounds) -> Response {
    match response {
        Response::Query(rows) => Response::Query(bounded(rows, bounds.clone())),
        other => other,
    }
}

#[async_trait]
impl QueryParser for Queries {
    type Statement = Prepared;

    async fn parse_sql<C>(
        &self,
        client: &C,
        sql: &str,
        types: &[Option<Type>],
    ) -> PgWireResult<Option<Prepared>>
    where
        C: ClientInfo + Unpin + Send + Sync,
    {
        self.0.check_length(sql)?;
        let session = self.0.session(client)?;
        session.service.query_parser().parse_sql(client, sql, types).await
    }

    fn get_parameter_types(&self, statement: &Prepared) -> PgWireResult<Vec<Type>> {
        self.0.shapes.get_parameter_types(statement)
    }

    fn get_result_schema(
        &self,
        statement: &Prepared,
        format: Option<&Format>,
    ) -> PgWireResult<Vec<FieldInfo>> {
        self.0.shapes.get_result_schema(statement, format)
    }
}
