//! The ingress's side of a call.

use std::time::Duration;

use engine::Error;
use mesh::net::{RecvStream, SendStream};
use mesh::{Mesh, NodeId};
use tokio::time::timeout;

use super::{
    ALIVE_INTERVAL, CALL_READ_MAX, CALLS, CODE_BROKEN, PROMPT_MAX, QUESTION_MAX, SILENCE_MAX,
    TAKE_UP_MAX,
};
use crate::wire::{self, Call, REPLY_BYTES_MAX, Reply, read_frame, write_frames};

/// Why a call has no answer.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub(crate) enum CallError {
    /// The host answered with an error.
    #[error(transparent)]
    Refused(Error),
    /// The host can't be reached, is gone, or breaks the protocol.
    #[error("{0}")]
    Lost(String),
}

/// The answer to a call, reply by reply. Dropping it tells the host to stop.
#[derive(Debug)]
pub(crate) struct Replies {
    recv: RecvStream,
    /// Finished; kept because the connection stays open as long as it is in use.
    _send: SendStream,
    /// How long signs of life alone are enough.
    patience: Duration,
}

/// Calls a node. Returns once it has taken the call.
pub(crate) async fn call(mesh: &Mesh, node: NodeId, call: &Call) -> Result<Replies, CallError> {
    let lost = |reason: String| CallError::Lost(reason);
    let opened = mesh.open(node, CALLS).await;
    let (mut send, recv) = opened.map_err(|error| lost(error.to_string()))?;
    let frame = wire::call_bytes(call);
    let sent = timeout(CALL_READ_MAX, write_frames(&mut send, &[frame])).await;
    match sent {
        Ok(Ok(())) => {}
        Ok(Err(error)) => return Err(lost(error.to_string())),
        Err(_) => return Err(lost("it does not take the request".to_owned())),
    }
    // Fails only if the host has ended the stream, which reading will tell.
    let _ = send.finish();
    let patience = match call {
        Call::Generate(_) | Call::Embed(_) => PROMPT_MAX,
        Call::TakeUp(_) => TAKE_UP_MAX,
        _ => QUESTION_MAX,
    };
    let mut replies = Replies {
        recv,
        _send: send,
        patience,
    };
    match replies.next().await? {
        Reply::Accepted => Ok(replies),
        other => Err(replies.unexpected(&other)),
    }
}

impl Replies {
    /// The next reply with something in it.
    pub(crate) async fn next(&mut self) -> Result<Reply, CallError> {
        // Signs of life come at intervals, so that their number is a time, and a flood of them ends.
        let signs_max = self.patience.as_secs() / ALIVE_INTERVAL.as_secs();
        for _ in 0..=signs_max {
            let frame = timeout(SILENCE_MAX, read_frame(&mut self.recv, REPLY_BYTES_MAX)).await;
            let frame = match frame {
                Ok(Ok(Some(frame))) => frame,
                Ok(Ok(None)) => return Err(CallError::Lost("it broke off".to_owned())),
                Ok(Err(error)) => return Err(CallError::Lost(error.to_string())),
                Err(_) => return Err(CallError::Lost("it says nothing any more".to_owned())),
            };
            match wire::read_reply(&frame) {
                Ok(Reply::Alive) => {}
                Ok(Reply::Failed(error)) => return Err(CallError::Refused(error)),
                Ok(reply) => return Ok(reply),
                Err(error) => {
                    self.recv.abort(CODE_BROKEN);
                    return Err(CallError::Lost(format!("it sends nonsense: {error}")));
                }
            }
        }
        self.recv.abort(CODE_BROKEN);
        Err(CallError::Lost("it is alive, but has no answer".to_owned()))
    }

    /// Ends a call whose host answers something that does not belong to it.
    pub(crate) fn unexpected(&mut self, reply: &Reply) -> CallError {
        self.recv.abort(CODE_BROKEN);
        tracing::debug!(?reply, "a reply out of place");
        CallError::Lost("it answers out of place".to_owned())
    }
}
