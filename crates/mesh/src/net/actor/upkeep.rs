//! Owns what is looked after now and then: own addresses, unused connections, round trips, files.

use tokio::task::spawn_blocking;

use super::super::address;
use super::super::close::CloseCode;
use super::super::links::path_of;
use super::{Actor, Event};
use crate::announcement::{NodeInfo, addresses};
use crate::identity::BOOTSTRAP_KEPT_MAX;
use crate::{NodeId, Role};

/// How long a connection that nobody uses stays, in milliseconds. A request often comes with others.
const UNUSED_MS: u64 = 20_000;

/// How often the addresses of members are written down, in milliseconds, if they changed.
const KEEP_MS: u64 = 10_000;

/// How often round trips are told to `proto`, in upkeeps.
const ROUND_TRIP_EVERY: u64 = 5;

/// In so many upkeeps of a new node they are told each time: what the handshakes measured includes their arithmetic.
const ROUND_TRIP_FIRST: u64 = 10;

impl Actor {
    pub(super) async fn upkeep(&mut self) {
        self.upkeeps += 1;
        self.fail_waiting_dials();
        if self.refresh_addresses() {
            let info = self.info.clone();
            self.event(Event::LocalChanged(info));
        }
        self.close_unused_bulk();
        self.close_unused();
        if self.upkeeps < ROUND_TRIP_FIRST {
            self.tell_round_trips(None);
        }
        if self.upkeeps.is_multiple_of(ROUND_TRIP_EVERY) {
            self.tell_round_trips(None);
            // Memberships may have an end.
            self.cut_revoked();
        }
        if std::mem::take(&mut self.revocations_changed) {
            self.keep_revocations().await;
        }
        // The first members are written down at once: without them a restart finds nobody.
        let since_ms = if self.kept_bootstrap.is_empty() {
            0
        } else {
            KEEP_MS
        };
        if self.now_ms() >= self.kept_at_ms + since_ms {
            self.keep_bootstrap().await;
        }
    }

    /// What this node says of itself, without its addresses, which are known here.
    pub(super) fn announce(&mut self, mut info: NodeInfo) {
        info.addresses = self.info.addresses.clone();
        self.info = info.clone();
        self.event(Event::LocalChanged(info));
    }

    /// Asks the endpoint where it can be reached; true if that has changed.
    pub(super) fn refresh_addresses(&mut self) -> bool {
        let now = address::addresses_of(&self.endpoint.addr());
        let changed = now != self.own_addresses;
        if changed {
            self.info.addresses = addresses::to_announcement(&now);
            self.own_addresses = now;
        }
        changed
    }

    fn close_unused(&mut self) {
        let now_ms = self.now_ms();
        let mut unused: Vec<NodeId> = Vec::new();
        for (node, peer) in &mut self.peers {
            let Some(since_ms) = peer.unused_since_ms else {
                continue;
            };
            if peer.halves() > 0 {
                peer.unused_since_ms = Some(now_ms);
            }
            if peer.halves() > 0 || now_ms < since_ms + UNUSED_MS {
                continue;
            }
            if self.proto.needs(*node) {
                peer.unused_since_ms = None;
            } else {
                unused.push(*node);
            }
        }
        for node in unused {
            self.cut(node, CloseCode::Released, "not needed");
            self.event(Event::PeerClosed { node, clean: true });
        }
    }

    /// That to one peer, or to all.
    pub(super) fn tell_round_trips(&mut self, only: Option<NodeId>) {
        let measured: Vec<_> = self
            .peers
            .iter()
            .filter(|(node, _)| only.is_none_or(|only| only == **node))
            .filter(|(_, peer)| peer.role == Role::Serve)
            .map(|(node, peer)| (*node, path_of(&peer.connection).1))
            .filter(|(_, round_trip)| !round_trip.is_zero())
            .collect();
        for (node, round_trip) in measured {
            let us = u32::try_from(round_trip.as_micros()).unwrap_or(u32::MAX);
            self.event(Event::RoundTrip { node, us });
        }
    }

    /// Writes down where members are, for the next start. A failure is no reason to stop.
    pub(super) async fn keep_bootstrap(&mut self) {
        self.kept_at_ms = self.now_ms();
        let Some(files) = self.files.clone() else {
            return;
        };
        let mut nodes = self.reachable(BOOTSTRAP_KEPT_MAX + 1);
        nodes.retain(|(node, addresses)| *node != self.me && !addresses.is_empty());
        // Whoever is alone keeps what it knew: the others may come back.
        if nodes.is_empty() || nodes == self.kept_bootstrap {
            return;
        }
        self.kept_bootstrap = nodes.clone();
        match spawn_blocking(move || files.set_bootstrap(&nodes)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(%error, "cannot keep the addresses of members"),
            Err(_) => tracing::debug!("stopped while keeping addresses"),
        }
    }

    pub(super) async fn keep_revocations(&mut self) {
        let Some(files) = self.files.clone() else {
            return;
        };
        let trust = self.trust.borrow().clone();
        match spawn_blocking(move || files.set_revocations(&trust)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "cannot keep revocations"),
            Err(_) => tracing::debug!("stopped while keeping revocations"),
        }
    }
}
