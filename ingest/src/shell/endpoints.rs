//! What a process that runs on tells over HTTP: metrics, whether it lives, whether it is ready.
//!
//! Liveness does not depend on Kafka or the lake: a worker whose broker is down is waiting, and a
//! restart would not help it. It lives as long as its loop turns.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::runtime::Handle;

/// A loop that has not turned for so long is stuck.
const STUCK: Duration = Duration::from_secs(120);

/// Makes the text of `/metrics`, in Prometheus's format 0.0.4.
pub type MetricsText = Arc<dyn Fn() -> Vec<u8> + Send + Sync>;

/// How the process is, as its own loop says.
#[derive(Clone)]
pub struct Health(Arc<Inner>);

struct Inner {
    started: Instant,
    /// Milliseconds after `started`.
    last_turn: AtomicU64,
    /// Why it is not ready; `None` if it is.
    not_ready: Mutex<Option<String>>,
}

impl Default for Health {
    fn default() -> Self {
        Health(Arc::new(Inner {
            started: Instant::now(),
            last_turn: AtomicU64::new(0),
            not_ready: Mutex::new(Some("it starts".to_owned())),
        }))
    }
}

impl Health {
    /// The loop turned.
    pub fn turn(&self) {
        let elapsed = u64::try_from(self.0.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.0.last_turn.store(elapsed, Ordering::Relaxed);
    }

    pub fn set_ready(&self, not_ready: Option<String>) {
        *self.0.not_ready.lock().unwrap_or_else(PoisonError::into_inner) = not_ready;
    }

    fn is_stuck(&self) -> bool {
        let last = Duration::from_millis(self.0.last_turn.load(Ordering::Relaxed));
        self.0.started.elapsed().saturating_sub(last) > STUCK
    }

    fn why_not_ready(&self) -> Option<String> {
        self.0.not_ready.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Serves `/metrics`, `/healthz` and `/readyz`, and gives the address it listens on.
///
/// # Errors
/// If the address cannot be listened on.
pub fn serve(
    runtime: &Handle,
    address: SocketAddr,
    metrics: MetricsText,
    health: Health,
) -> std::io::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let bound = listener.local_addr()?;
    let app = Router::new()
        .route("/metrics", get(metrics_text))
        .route("/healthz", get(healthz))
        .route("/readyz", get(readyz))
        .with_state((metrics, health));
    runtime.spawn(async move {
        let served = match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => axum::serve(listener, app).await,
            Err(error) => Err(error),
        };
        if let Err(error) = served {
            tracing::error!(%error, "the endpoints ended");
        }
    });
    Ok(bound)
}

type App = State<(MetricsText, Health)>;

async fn metrics_text(State((metrics, _)): App) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], metrics())
}

async fn healthz(State((_, health)): App) -> impl IntoResponse {
    if health.is_stuck() {
        (StatusCode::SERVICE_UNAVAILABLE, "stuck\n")
    } else {
        (StatusCode::OK, "ok\n")
    }
}

async fn readyz(State((_, health)): App) -> impl IntoResponse {
    match health.why_not_ready() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
    }
}
