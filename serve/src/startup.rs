//! How a connection begins: encrypted or not, and by which parameters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;

use async_trait::async_trait;
use datafusion_postgres::pgwire::api::ClientInfo;
use datafusion_postgres::pgwire::api::auth::sasl::SASLAuthStartupHandler;
use datafusion_postgres::pgwire::api::auth::{DefaultServerParameterProvider, StartupHandler};
use datafusion_postgres::pgwire::error::{ErrorInfo, PgWireError, PgWireResult};
use datafusion_postgres::pgwire::messages::{PgWireBackendMessage, PgWireFrontendMessage};
use futures::Sink;
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;

use crate::ServeError;
use crate::server::{Tls, UNKNOWN_LOGIN};

pub(super) fn read_only(
    mut parameters: DefaultServerParameterProvider,
) -> DefaultServerParameterProvider {
    parameters.is_superuser = false;
    parameters.default_transaction_read_only = true;
    parameters
}

pub(super) fn acceptor(tls: &Tls) -> Result<TlsAcceptor, ServeError> {
    let wrong = |error: &dyn std::fmt::Display| ServeError::Tls(error.to_string());
    let of = |path: &PathBuf, error: rustls_pki_types::pem::Error| {
        ServeError::Tls(format!("{}: {error}", path.display()))
    };
    let chain = CertificateDer::pem_file_iter(&tls.certificate)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|e| of(&tls.certificate, e))?;
    let key = PrivateKeyDer::from_pem_file(&tls.key).map_err(|e| of(&tls.key, e))?;
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|e| wrong(&e))?
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .map_err(|e| wrong(&e))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// How a connection begins.
pub(super) struct Startup {
    pub(super) login: SASLAuthStartupHandler<DefaultServerParameterProvider>,
    pub(super) encrypted_only: bool,
}

#[async_trait]
impl StartupHandler for Startup {
    async fn on_startup<C>(
        &self,
        client: &mut C,
        message: PgWireFrontendMessage,
    ) -> PgWireResult<()>
    where
        C: ClientInfo + Sink<PgWireBackendMessage> + Unpin + Send + Sync,
        C::Error: std::fmt::Debug,
        PgWireError: From<<C as Sink<PgWireBackendMessage>>::Error>,
    {
        if self.encrypted_only {
            admit_unencrypted(client.socket_addr(), client.is_secure())?;
        }
        self.login.on_startup(client, message).await
    }
}

/// # Errors
/// If a client on another machine does not encrypt, before it said who it is.
pub(super) fn admit_unencrypted(peer: SocketAddr, encrypted: bool) -> PgWireResult<()> {
    if encrypted || peer.ip().to_canonical().is_loopback() {
        return Ok(());
    }
    Err(PgWireError::UserError(Box::new(ErrorInfo::new(
        "FATAL".to_owned(),
        UNKNOWN_LOGIN.to_owned(),
        "this server takes encrypted connections from other machines only: say sslmode=require"
            .to_owned(),
    ))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_need_not_encrypt() {
        for (peer, encrypted, admitted) in [
            ("127.0.0.1:5000", false, true),
            ("[::1]:5000", false, true),
            ("[::ffff:127.0.0.1]:5000", false, true),
            ("192.0.2.7:5000", true, true),
            ("192.0.2.7:5000", false, false),
            ("[::ffff:192.0.2.7]:5000", false, false),
        ] {
            let found = admit_unencrypted(peer.parse().unwrap(), encrypted);
            assert_eq!(found.is_ok(), admitted, "{peer}");
        }
    }
}
