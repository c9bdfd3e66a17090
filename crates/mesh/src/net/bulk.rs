//! Owns how connections for bulk are opened and accepted: with a protocol name and settings of their own. Who may have
//! one is decided by the actor.
//!
//! It is the sender's congestion control that matters, and weights are sent by whoever accepts such a connection. Settings
//! can be chosen for each connection before its handshake, by the protocol that its first packet asks for.

use std::sync::Arc;
use std::time::Duration;

use iroh::endpoint::{ConnectOptions, Connection, Incoming, ServerConfig, VarInt};
use iroh::{Endpoint, EndpointAddr};

use super::ALPN_BULK;
use super::endpoint::transport;
use super::scavenger::Scavengers;

/// Most streams that a peer may have open on the connection that it opened: several fetches.
const STREAMS_MAX: u32 = 64;

/// Settings of both sides.
#[derive(Clone)]
pub(super) struct BulkSettings {
    accepted: Arc<ServerConfig>,
    dialled: ConnectOptions,
}

impl BulkSettings {
    /// `idle` as of all connections.
    pub(super) fn new(endpoint: &Endpoint, idle: Duration) -> Self {
        let settings = |streams_max| {
            transport(idle)
                .congestion_controller_factory(Arc::new(Scavengers))
                .max_concurrent_bidi_streams(VarInt::from_u32(streams_max))
                .build()
        };
        // No other set of names holds this one: whatever speaks it has these settings.
        let accepted = endpoint
            .create_server_config_builder(vec![ALPN_BULK.to_vec()])
            .set_transport_config(settings(STREAMS_MAX))
            .build();
        Self {
            accepted: Arc::new(accepted),
            // Only who opens the connection opens streams on it.
            dialled: ConnectOptions::new().with_transport_config(settings(0)),
        }
    }

    /// Lets a connection of any protocol come to stand, with the settings of its protocol.
    pub(super) async fn accept(&self, incoming: Incoming) -> Result<Connection, String> {
        let accepting = if asks_for_bulk(&incoming) {
            incoming.accept_with(self.accepted.clone())
        } else {
            incoming.accept()
        };
        let accepting = accepting.map_err(|error| error.to_string())?;
        accepting.await.map_err(|error| error.to_string())
    }

    /// Opens a connection for bulk.
    pub(super) async fn dial(
        &self,
        endpoint: &Endpoint,
        target: EndpointAddr,
    ) -> Result<Connection, String> {
        let options = self.dialled.clone();
        let connecting = endpoint
            .connect_with_opts(target, ALPN_BULK, options)
            .await
            .map_err(|error| error.to_string())?;
        connecting.await.map_err(|error| error.to_string())
    }
}

/// What the first packet asks for. One that can't be read is accepted as any other, and then finds no such protocol.
fn asks_for_bulk(incoming: &Incoming) -> bool {
    incoming
        .decrypt()
        .and_then(|first| first.alpns())
        .is_some_and(|mut names| names.any(|name| name.is_ok_and(|name| &name[..] == ALPN_BULK)))
}
