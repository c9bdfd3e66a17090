//! Owns how the effects of `proto`, the inputs and the commands are carried out.

use std::sync::Arc;

use tokio::sync::mpsc::error::TrySendError;

use super::super::close::CloseCode;
use super::{Actor, Command, Event, Input};
use crate::NodeId;
use crate::proto::{Effect, Message, Offence};

impl Actor {
    pub(super) fn apply(&mut self, effect: Effect) {
        match effect {
            Effect::Send { to, message } => self.send(to, &message),
            Effect::Connect { node, addresses } => self.connect(node, &addresses),
            Effect::Release { node } => {
                let now_ms = self.now_ms();
                if let Some(peer) = self.peers.get_mut(&node) {
                    peer.unused_since_ms = Some(now_ms);
                }
            }
            Effect::Disconnect { node, offence } => {
                tracing::warn!(peer = %node.short(), reason = %offence, "cut a peer off");
                let code = match offence {
                    Offence::Expelled => CloseCode::Expelled,
                    _ => CloseCode::Misbehaved,
                };
                self.cut(node, code, &offence.to_string());
            }
            Effect::Changed => self.view_changed = true,
            Effect::Revoked(_) => {
                self.revocations_changed = true;
                self.cut_revoked();
            }
            Effect::Wake { at_ms } => self.wake_at_ms = at_ms,
            Effect::Left => self.left = true,
        }
    }

    fn send(&mut self, to: NodeId, message: &Message) {
        let Some(peer) = self.peers.get(&to) else {
            return;
        };
        let bytes: Arc<[u8]> = message.encode().into();
        match peer.outbox.try_send(bytes) {
            Ok(()) | Err(TrySendError::Closed(_)) => {}
            // The protocol compares tables; a peer that never reads is cut off by its writer.
            Err(TrySendError::Full(_)) => {
                tracing::debug!(peer = %to.short(), "dropped a message to a slow peer");
            }
        }
    }

    pub(super) async fn input(&mut self, input: Input) {
        match input {
            Input::Join {
                node,
                request,
                reply,
            } => self.answer_join(node, &request, reply).await,
            Input::Shaking { node, dial, go } => {
                let may = self.shake(node, dial);
                // Fails only if the dial is over.
                let _ = go.send(may);
            }
            Input::DialEnded { node, dial, error } => self.dial_ended(node, dial, error),
            Input::Register {
                candidate,
                dial,
                reply,
            } => self.register(candidate, dial, reply),
            Input::Message {
                node,
                serial,
                message,
            } => {
                if self
                    .peers
                    .get(&node)
                    .is_some_and(|peer| peer.serial == serial)
                {
                    self.event(Event::Message {
                        from: node,
                        message,
                    });
                }
            }
            Input::Closed {
                node,
                serial,
                ending,
            } => self.closed(node, serial, &ending),
            Input::BulkDialled {
                node,
                dial,
                outcome,
            } => self.bulk_dialled(node, dial, outcome),
            Input::RegisterBulk { candidate, reply } => self.register_bulk(candidate, reply),
            Input::BulkClosed {
                node,
                serial,
                ending,
            } => self.bulk_closed(node, serial, &ending),
            Input::TurnedAway { node, what, reason } => self.turned_away(node, what, &reason),
        }
    }

    pub(super) async fn command(&mut self, command: Command) {
        // A send fails only if nobody waits for the answer.
        match command {
            Command::Open { node, reply } => self.open(node, reply),
            Command::OpenBulk { node, reply } => self.open_bulk(node, reply),
            Command::Announce(info) => self.announce(*info),
            Command::Invite { invite, reply } => {
                let _ = reply.send(self.invite(invite).await);
            }
            Command::Invites { reply } => {
                let _ = reply.send(self.book.list());
            }
            Command::Revoke { target, reply } => {
                let _ = reply.send(self.revoke(target).await);
            }
            Command::Links { reply } => {
                let _ = reply.send(self.links());
            }
            Command::PullNow => self.event(Event::PullNow),
            Command::Leave { .. } => {}
        }
    }
}
