//! Owns who gets in and who is put out at this node: redeeming tickets, inviting, revoking.

use tokio::sync::oneshot;

use super::super::unix_ms;
use super::super::wire::{JOINED_NODES_MAX, Join, Joined, Rejection};
use super::bookkeeper::Keeping;
use super::{Actor, Event, MemberStatus, MeshError, Refusal};
use crate::admission::{Insertion, Invite, Redemption, Revocation, Target};
use crate::announcement::addresses;
use crate::ticket::{BOOTSTRAP_MAX, Ticket};
use crate::{Addresses, NodeId, Role};

/// Who waits to be admitted.
type JoinReply = oneshot::Sender<Result<Joined, Refusal>>;

impl Actor {
    /// Admits a node that shows a ticket, and answers. Its use is on disk before the membership goes
    /// out, which is waited for elsewhere.
    pub(super) async fn answer_join(&mut self, node: NodeId, request: &Join, reply: JoinReply) {
        let (joined, keeping) = match self.join(node, request).await {
            Ok(admitted) => admitted,
            Err(refusal) => {
                // Fails only if the joiner is gone.
                let _ = reply.send(Err(refusal));
                return;
            }
        };
        let ticket = request.ticket.terms().id;
        self.tasks.spawn(async move {
            let answer = match keeping.done().await {
                Ok(()) => {
                    tracing::info!(node = %node.short(), role = %joined.membership.role(), %ticket, "admitted a node");
                    Ok(joined)
                }
                Err(error) => {
                    tracing::error!(%error, "cannot count the use of a ticket");
                    Err(Refusal::Other(
                        "the node cannot store the use of the ticket".into(),
                    ))
                }
            };
            let _ = reply.send(answer);
        });
    }

    async fn join(&mut self, node: NodeId, request: &Join) -> Result<(Joined, Keeping), Refusal> {
        if self.left {
            return Err(Refusal::Leaving);
        }
        // Only who has a ticket that holds comes this far, and only who may still use it is counted:
        // strangers keep nobody out. The book is copied and signatures are made after that.
        self.book
            .check_use(&self.authority, request.ticket.terms(), node)?;
        let now_ms = self.now_ms();
        self.joins.count(now_ms)?;
        let redemption = Redemption {
            ticket: &request.ticket,
            node,
            role: request.role,
        };
        let trust = self.trust.borrow().clone();
        let mut book = self.book.clone();
        let membership = book.redeem(&self.authority, &trust, redemption, unix_ms())?;
        let keeping = if book == self.book {
            Keeping::nothing()
        } else {
            // A use that then can't be stored stays counted: rather one too many than one too few.
            self.book = book;
            self.bookkeeper.keep(self.book.clone()).await
        };
        let joined = Joined {
            membership,
            name: self.name.clone(),
            nodes: self.reachable(JOINED_NODES_MAX),
        };
        Ok((joined, keeping))
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
            let announced = addresses::from_announcement(&member.announcement().info.addresses);
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

    /// Takes something back. True if this node knew it; false may mean that it was mistyped.
    pub(super) async fn revoke(&mut self, target: Target) -> Result<bool, MeshError> {
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
        let insertion = trial.revoke(revocation.clone())?;
        // The book says what holds, so it comes after the checks.
        let is_known = match target {
            Target::Node(node) => self.has_seen(node),
            Target::Ticket(ticket) if self.book.mark_revoked(ticket.id) => {
                self.keep_book().await?;
                true
            }
            // Memberships last longer than the memory of the tickets that they came by.
            Target::Ticket(ticket) => {
                tracing::warn!(ticket = %ticket.id, "revokes a ticket that is not in the book of this node, or not any more");
                false
            }
        };
        if insertion == Insertion::Added {
            self.event(Event::Revoke(revocation.to_bytes()));
            self.keep_revocations().await;
        }
        Ok(is_known)
    }

    /// Whether this node has heard of another, as a member or as somebody who came by a ticket.
    fn has_seen(&self, node: NodeId) -> bool {
        self.view.borrow().member(node).is_some()
            || self.chains.get(node).is_some()
            || self.book.has_admitted(node)
    }

    /// A revocation by somebody who does not stand above its target changes nothing: say so.
    fn check_effective(&self, target: Target) -> Result<(), MeshError> {
        let Target::Node(node) = target else {
            return Ok(());
        };
        if node == self.me {
            return Err(MeshError::ExpelsItself);
        }
        let root = self.authority.membership.root;
        if node == root {
            return Err(MeshError::ExpelsOriginator(node));
        }
        let is_above = root == self.me
            || match self.chains.get(node) {
                Some(chain) => chain.iter().any(|link| {
                    let grant = link.grant();
                    grant.issuer == self.me || grant.sponsors.contains(&self.me)
                }),
                // It has not been connected since this node was started.
                None => self.book.has_admitted(node),
            };
        if is_above {
            Ok(())
        } else {
            Err(Refusal::NotAbove.into())
        }
    }

    /// Tells that somebody was not let in. Anybody can be turned away as often as he likes, so most
    /// of it is for debugging only.
    pub(super) fn turned_away(&mut self, node: NodeId, what: &'static str, reason: &str) {
        let peer = node.short();
        let now_ms = self.now_ms();
        match self.complaints.voice(now_ms) {
            Some(0) => tracing::warn!(%peer, %reason, "{what}"),
            Some(unsaid) => tracing::warn!(%peer, %reason, unsaid, "{what}"),
            None => tracing::debug!(%peer, %reason, "{what}"),
        }
    }

    /// Looks at the revocation that a member shows who refuses this node, like at any other: only one
    /// that holds ends the membership.
    pub(super) fn note_proof(&mut self, rejection: &Rejection) {
        if let Some(bytes) = &rejection.proof
            && let Ok(revocation) = Revocation::from_bytes(bytes)
            && self.trust.borrow().clone().revoke(revocation) == Ok(Insertion::Added)
        {
            self.event(Event::Revoke(bytes.clone()));
        }
    }

    /// Remembers that a member does not want this node, for whoever shows its state, until a
    /// connection comes to stand.
    pub(super) fn note_refused(&mut self, by: NodeId, rejection: &Rejection) {
        self.note_proof(rejection);
        let reason = &rejection.refusal;
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
        let keeping = self.bookkeeper.keep(self.book.clone()).await;
        keeping.done().await
    }
}
