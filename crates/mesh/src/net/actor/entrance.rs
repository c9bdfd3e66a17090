//! Owns who gets in and who is put out at this node: redeeming tickets, inviting, revoking.

use tokio::task::spawn_blocking;

use super::super::wire::{JOINED_NODES_MAX, Join, Joined};
use super::super::{address, unix_ms};
use super::{Actor, Event, MemberStatus, MeshError, Refusal};
use crate::admission::{Insertion, Invitations, Invite, Redemption, Revocation, Target};
use crate::ticket::{BOOTSTRAP_MAX, Ticket};
use crate::{Addresses, NodeId, Role};

impl Actor {
    /// Admits a node that shows a ticket. Its use is on disk before the membership goes out.
    pub(super) async fn join(&mut self, node: NodeId, request: &Join) -> Result<Joined, Refusal> {
        if self.left {
            return Err(Refusal::Leaving);
        }
        let now_ms = self.now_ms();
        if !self.joins.take(1, now_ms) {
            return Err(Refusal::TooOften);
        }
        let redemption = Redemption {
            ticket: &request.ticket,
            node,
            role: request.role,
        };
        let trust = self.trust.borrow().clone();
        let before = self.book.clone();
        let membership = self
            .book
            .redeem(&self.authority, &trust, redemption, unix_ms())?;
        if self.book != before
            && let Err(error) = self.keep_book().await
        {
            tracing::error!(%error, "cannot count the use of a ticket");
            self.book = before;
            return Err(Refusal::Other(
                "the node cannot store the use of the ticket".into(),
            ));
        }
        let terms = request.ticket.terms();
        tracing::info!(node = %node.short(), role = %request.role, ticket = %terms.id, "admitted a node");
        Ok(Joined {
            membership,
            name: self.name.clone(),
            nodes: self.reachable(JOINED_NODES_MAX),
        })
    }

    /// This node and others that serve, with addresses, for somebody who wants to join.
    pub(super) fn reachable(&self, nodes_max: usize) -> Vec<(NodeId, Addresses)> {
        let view = self.view.borrow();
        let mut others: Vec<_> = view
            .alive()
            .filter(|member| member.node != self.me && member.role() == Role::Serve)
            .collect();
        others.sort_by_key(|member| (!member.connected, member.node));
        let others = others.into_iter().filter_map(|member| {
            let announced = address::from_announcement(&member.announcement().info.addresses);
            let known = if announced.is_empty() {
                self.addresses.get(&member.node).cloned()?
            } else {
                announced
            };
            Some((member.node, known))
        });
        std::iter::once((self.me, self.own_addresses.clone()))
            .chain(others)
            .take(nodes_max)
            .collect()
    }

    pub(super) async fn invite(&mut self, invite: Invite) -> Result<Ticket, MeshError> {
        if self.settings.role == Role::Client {
            return Err(MeshError::ClientsCannot);
        }
        self.refresh_addresses();
        let bootstrap = self.reachable(BOOTSTRAP_MAX);
        let ticket = self.book.invite(
            &self.authority,
            self.name.clone(),
            invite,
            bootstrap,
            unix_ms(),
            &mut rand::rng(),
        )?;
        self.keep_book().await?;
        Ok(ticket)
    }

    pub(super) async fn revoke(&mut self, target: Target) -> Result<(), MeshError> {
        if self.settings.role == Role::Client {
            return Err(MeshError::ClientsCannot);
        }
        let membership = &self.authority.membership;
        let revocation = Revocation::sign(
            membership.mesh,
            target,
            membership.chain.clone(),
            unix_ms(),
            &self.authority.key,
        );
        self.check_effective(target)?;
        // The same checks as for a foreign one, on a copy: its reason is worth more than silence.
        let mut trial = self.trust.borrow().clone();
        let known = trial.revoke(revocation.clone())? == Insertion::Known;
        // The book says what holds, so it comes after the checks.
        if let Target::Ticket(ticket) = target
            && ticket.issuer == self.me
        {
            if !self.book.mark_revoked(ticket.id) {
                return Err(MeshError::UnknownTicket(ticket.id));
            }
            self.keep_book().await?;
        }
        if known {
            return Ok(());
        }
        self.event(Event::Revoke(revocation.to_bytes()));
        self.keep_revocations().await;
        Ok(())
    }

    /// A revocation by somebody who does not stand above its target changes nothing: say so.
    fn check_effective(&self, target: Target) -> Result<(), Refusal> {
        let Target::Node(node) = target else {
            return Ok(());
        };
        let is_root = self.authority.membership.root == self.me;
        let chain = self.chains.get(node);
        let above = chain.is_some_and(|chain| {
            chain.iter().any(|link| {
                let grant = link.grant();
                grant.issuer == self.me || grant.sponsors.contains(&self.me)
            })
        });
        if is_root || above {
            Ok(())
        } else {
            Err(Refusal::NotAbove)
        }
    }

    /// Remembers that a member does not want this node, for whoever shows its state.
    pub(super) fn note_refused(&mut self, by: NodeId, reason: &Refusal) {
        let grave = matches!(
            reason,
            Refusal::Expelled | Refusal::TicketRevoked | Refusal::MembershipExpired
        );
        let told = matches!(*self.status.borrow(), MemberStatus::Expelled(_));
        if grave && !told {
            let reason = reason.clone();
            self.status
                .send_replace(MemberStatus::Refused { by, reason });
        }
    }

    async fn keep_book(&mut self) -> Result<(), MeshError> {
        let Some(files) = self.files.clone() else {
            return Ok(());
        };
        let book: Invitations = self.book.clone();
        match spawn_blocking(move || files.set_invitations(&book)).await {
            Ok(stored) => Ok(stored?),
            Err(_) => Err(MeshError::Stopped),
        }
    }
}
