//! The host's side of a call: only models of this process answer, so that no call goes in circles.

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use engine::{Backend, EmbedRequest, Error, EventStream, ModelInfo};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use mesh::NodeId;
use mesh::net::{IncomingStream, RecvStream, SendStream};
use tokio::sync::watch;
use tokio::time::timeout;

use super::{ALIVE_INTERVAL, CALL_READ_MAX, CODE_BROKEN};
use crate::wire::{
    self, CALL_BYTES_MAX, Call, FrameError, Reply, TakeUp, read_frame_if, write_frames,
};

/// Calls of one peer at a time. An ingress with many users has some dozens.
const CALLS_PER_PEER_MAX: u32 = 64;

/// Calls in all: far more than slots and queues hold.
const CALLS_MAX: u32 = 1_024;

/// Bytes of all calls of one peer that are held at a time: two of the longest, or many short ones.
const BYTES_PER_PEER_MAX: usize = 2 * CALL_BYTES_MAX;

/// Bytes of all calls in all.
const BYTES_MAX: usize = 512 << 20;

/// When a peer that has too many calls may try again, s.
const RETRY_AFTER_S: u32 = 1;

/// Events that are written in one go.
const EVENTS_PER_WRITE: usize = 64;

/// Finds the model in this process that a peer asks for.
pub(crate) trait Hosting: Send + Sync + 'static {
    /// The backend, or why there is none.
    fn backend(&self, call: &Call) -> Result<Arc<dyn Backend>, Error>;

    /// Brings up a model that `peer` asks for.
    fn take_up(&self, peer: NodeId, wanted: TakeUp) -> TakingUp;
}

/// A model that is brought up because a peer asks for it.
pub(crate) struct TakingUp {
    /// Gives what the model is once it answers, or why it will not.
    pub(crate) loading: BoxFuture<'static, Result<Arc<ModelInfo>, Refused>>,
    /// Hundredths of the model's file that are here, where it is fetched first; 100 at most.
    pub(crate) fetched: watch::Receiver<u8>,
}

/// Why a model is not brought up.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Refused {
    /// The reason.
    pub(crate) error: Error,
    /// With so many tokens of context at most it would be, or is served already; 0: with none, or context is not the
    /// reason.
    pub(crate) context_tokens_max: u32,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self {
            error,
            context_tokens_max: 0,
        }
    }
}

impl Refused {
    /// What the peer is told. `with_context`: it takes in how much context would have room.
    fn replies(self, with_context: bool) -> Vec<Reply> {
        let tokens = Some(self.context_tokens_max).filter(|tokens| with_context && *tokens > 0);
        let context = tokens.map(Reply::ContextMax);
        context
            .into_iter()
            .chain([Reply::Failed(self.error)])
            .collect()
    }
}

/// Counts the calls that run.
#[derive(Debug)]
pub(crate) struct Calls {
    running: Arc<Mutex<BTreeMap<NodeId, InUse>>>,
    /// How long a peer may read nothing of an answer.
    unread_max: Duration,
}

/// What the calls of one peer take.
#[derive(Debug, Default, Clone, Copy)]
struct InUse {
    calls: u32,
    bytes: usize,
}

/// One running call.
pub(crate) struct Running {
    calls: Arc<Mutex<BTreeMap<NodeId, InUse>>>,
    peer: NodeId,
    bytes: usize,
}

/// The way back to the peer.
struct Back<'a> {
    stream: &'a mut SendStream,
    unread_max: Duration,
}

impl Calls {
    /// None yet.
    pub(crate) fn new(unread_max: Duration) -> Self {
        Self {
            running: Arc::default(),
            unread_max,
        }
    }

    /// Counts one more, as long as what comes back lives; `None` if the peer has too many.
    pub(crate) fn begin(&self, peer: NodeId) -> Option<Running> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        let own = running.get(&peer).map_or(0, |own| own.calls);
        let all = running.values().map(|one| one.calls).sum::<u32>();
        if own >= CALLS_PER_PEER_MAX || all >= CALLS_MAX {
            return None;
        }
        running.entry(peer).or_default().calls += 1;
        drop(running);
        Some(Running {
            calls: Arc::clone(&self.running),
            peer,
            bytes: 0,
        })
    }
}

impl Running {
    /// Takes room for the call's bytes, once; false if there is none.
    fn claim(&mut self, bytes: usize) -> bool {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let all = calls.values().map(|one| one.bytes).sum::<usize>();
        let Some(own) = calls.get_mut(&self.peer) else {
            return false;
        };
        if own.bytes + bytes > BYTES_PER_PEER_MAX || all + bytes > BYTES_MAX {
            return false;
        }
        own.bytes += bytes;
        self.bytes = bytes;
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(own) = calls.get_mut(&self.peer) {
            own.calls -= 1;
            own.bytes -= self.bytes;
            if own.calls == 0 {
                calls.remove(&self.peer);
            }
        }
    }
}

/// What a peer is told that asks for too much at once.
const FULL: Error = Error::QueueFull {
    waiting: CALLS_PER_PEER_MAX,
    retry_after_s: RETRY_AFTER_S,
};

/// Why a call was cut off.
#[derive(Debug, thiserror::Error)]
enum Cut {
    #[error("{0}")]
    Broken(String),
    #[error("it does not read")]
    Stalled,
    /// The peer wants no more: it left, or has what it needs.
    #[error("it asks for no more")]
    Stopped,
}

/// Answers one call of a peer, to its end.
pub(crate) async fn answer(mut stream: IncomingStream, host: impl Hosting, calls: Arc<Calls>) {
    let peer = stream.peer;
    let mut back = Back {
        stream: &mut stream.send,
        unread_max: calls.unread_max,
    };
    let answered = match calls.begin(peer) {
        Some(mut running) => run(&mut stream.recv, &mut back, &host, &mut running).await,
        None => say(&mut back, &[Reply::Failed(FULL)]).await,
    };
    match answered {
        Ok(()) => {
            // Fails only on a stream that the peer has ended.
            let _ = stream.send.finish();
        }
        Err(Cut::Stopped) => tracing::debug!(peer = peer.short(), "a call was cancelled"),
        Err(cut) => {
            tracing::warn!(peer = peer.short(), reason = %cut, "a call was cut off");
            stream.recv.abort(CODE_BROKEN);
            stream.send.abort(CODE_BROKEN);
        }
    }
}

async fn run(
    recv: &mut RecvStream,
    send: &mut Back<'_>,
    host: &impl Hosting,
    running: &mut Running,
) -> Result<(), Cut> {
    let has_room = |bytes| running.claim(bytes);
    let reading = read_frame_if(recv, CALL_BYTES_MAX, has_room);
    let frame = match timeout(CALL_READ_MAX, reading).await {
        Ok(Ok(frame)) => frame.ok_or(Cut::Stopped)?,
        Ok(Err(FrameError::NoRoom { .. })) => {
            recv.abort(CODE_BROKEN);
            return say(send, &[Reply::Failed(FULL)]).await;
        }
        Ok(Err(error)) => return Err(Cut::Broken(error.to_string())),
        Err(_) => return Err(Cut::Broken("the call does not arrive".to_owned())),
    };
    let call = wire::read_call(&frame).map_err(|error| Cut::Broken(error.to_string()))?;
    drop(frame);
    let call = match call {
        Call::TakeUp(wanted) => {
            let tells_context = wanted.tell_context;
            let taking_up = host.take_up(running.peer, wanted);
            return take_up(send, taking_up, tells_context).await;
        }
        call => call,
    };
    let backend = match host.backend(&call) {
        Ok(backend) => backend,
        Err(error) => return say(send, &[Reply::Failed(error)]).await,
    };
    match call {
        Call::Generate(request) => match backend.generate(*request).await {
            Ok(events) => generate(send, events).await,
            Err(error) => say(send, &[Reply::Failed(error)]).await,
        },
        Call::Embed(request) => embed(send, backend.as_ref(), request).await,
        Call::Describe { .. } => {
            let info = Reply::Model(Box::new(backend.info().as_ref().clone()));
            say(send, &[Reply::Accepted, info]).await
        }
        Call::Tokenize {
            text,
            add_special,
            parse_special,
            ..
        } => {
            let tokens = backend.tokenize(text, add_special, parse_special).await;
            say_result(send, tokens.map(Reply::Tokens)).await
        }
        Call::TokenBytes { tokens, .. } => {
            let bytes = backend.token_bytes(tokens).await;
            say_result(send, bytes.map(Reply::Bytes)).await
        }
        Call::Render { chat, .. } => {
            let text = backend.render(chat).await;
            say_result(send, text.map(Reply::Text)).await
        }
        Call::TakeUp(_) => Err(Cut::Broken("no backend brings up a model".to_owned())),
    }
}

/// Tells a peer once the model answers that it has asked for. Whoever hangs up has asked all the same.
async fn take_up(send: &mut Back<'_>, taking_up: TakingUp, tells_context: bool) -> Result<(), Cut> {
    let TakingUp { loading, fetched } = taking_up;
    say(send, &[Reply::Accepted]).await?;
    let mut told = 0;
    let sign = || {
        let percent = *fetched.borrow();
        let is_news = percent > told;
        told = percent.max(told);
        match is_news {
            true => Reply::Fetching(percent),
            false => Reply::Alive,
        }
    };
    let replies = match waiting_with(send, loading, sign).await? {
        Ok(info) => vec![Reply::Model(Box::new(info.as_ref().clone()))],
        Err(refused) => refused.replies(tells_context),
    };
    say(send, &replies).await
}

async fn say_result(send: &mut Back<'_>, result: Result<Reply, Error>) -> Result<(), Cut> {
    match result {
        Ok(reply) => say(send, &[Reply::Accepted, reply]).await,
        Err(error) => say(send, &[Reply::Failed(error)]).await,
    }
}

/// Passes events on as they come. When the peer stops reading for good, dropping them cancels the
/// generation.
async fn generate(send: &mut Back<'_>, mut events: EventStream) -> Result<(), Cut> {
    say(send, &[Reply::Accepted]).await?;
    loop {
        let first = waiting(send, events.next()).await?;
        let Some(first) = first else {
            return Err(Cut::Broken("the answer has no end".to_owned()));
        };
        let mut replies = Vec::new();
        let mut next = Some(first);
        let mut ended = false;
        while let Some(event) = next.take() {
            ended = matches!(event, Err(_) | Ok(engine::Event::Done(_)));
            replies.push(event.map_or_else(Reply::Failed, Reply::Event));
            if ended || replies.len() >= EVENTS_PER_WRITE {
                break;
            }
            next = events.next().now_or_never().flatten();
        }
        say(send, &replies).await?;
        if ended {
            return Ok(());
        }
    }
}

async fn embed(
    send: &mut Back<'_>,
    backend: &dyn Backend,
    request: EmbedRequest,
) -> Result<(), Cut> {
    say(send, &[Reply::Accepted]).await?;
    match waiting(send, backend.embed(request)).await? {
        Ok(embeddings) => {
            for vector in embeddings.vectors {
                say(send, &[Reply::Vector(vector)]).await?;
            }
            say(send, &[Reply::Embedded(embeddings.prompt_tokens)]).await
        }
        Err(error) => say(send, &[Reply::Failed(error)]).await,
    }
}

/// Waits for `work` and gives signs of life meanwhile; ends when the peer stops the stream.
async fn waiting<T>(send: &mut Back<'_>, work: impl Future<Output = T>) -> Result<T, Cut> {
    waiting_with(send, work, || Reply::Alive).await
}

/// The same with other signs.
async fn waiting_with<T>(
    send: &mut Back<'_>,
    work: impl Future<Output = T>,
    mut sign: impl FnMut() -> Reply,
) -> Result<T, Cut> {
    let mut work = std::pin::pin!(work);
    let mut stopped = std::pin::pin!(send.stream.stopped());
    loop {
        tokio::select! {
            done = &mut work => return Ok(done),
            _ = &mut stopped => return Err(Cut::Stopped),
            () = tokio::time::sleep(ALIVE_INTERVAL) => say(send, &[sign()]).await?,
        }
    }
}

async fn say(send: &mut Back<'_>, replies: &[Reply]) -> Result<(), Cut> {
    let frames: Vec<_> = replies.iter().map(wire::reply_bytes).collect();
    match timeout(send.unread_max, write_frames(send.stream, &frames)).await {
        Ok(Ok(())) => Ok(()),
        // The peer stopped the stream or is gone: either way nobody reads.
        Ok(Err(_)) => Err(Cut::Stopped),
        Err(_) => Err(Cut::Stalled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_takes_it_in_is_told_how_much_context_would_have_room() {
        let failed = || Reply::Failed(Error::Unsupported("no room".into()));
        let check = |tokens: u32, with_context: bool, expected: Vec<Reply>| {
            let refused = Refused {
                error: Error::Unsupported("no room".into()),
                context_tokens_max: tokens,
            };
            assert_eq!(refused.replies(with_context), expected, "{tokens}");
        };
        check(8_192, true, vec![Reply::ContextMax(8_192), failed()]);
        // A member of an earlier version would take it for nonsense.
        check(8_192, false, vec![failed()]);
        check(0, true, vec![failed()]);
    }
}
