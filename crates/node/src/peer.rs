//! Calls between nodes: one stream each, over the mesh's connection to the peer.
//!
//! Owns the order of frames and every deadline. What a call means is in `wire`; who is called is
//! decided in `route`.

mod caller;
mod host;

pub(crate) use caller::{CallError, Replies, call};
pub(crate) use host::{Calls, Hosting, Refused, TakingUp, answer};

use std::time::Duration;

use mesh::net::StreamKind;

/// Streams with calls. Other kinds belong to other protocols.
pub(crate) const CALLS: StreamKind = StreamKind(1);

/// A host with nothing to say sends a sign of life so often.
const ALIVE_INTERVAL: Duration = Duration::from_secs(2);

/// An ingress that hears nothing for so long gives the host up. Several signs of life; a connection
/// that is really dead is noticed before, by the mesh.
const SILENCE_MAX: Duration = Duration::from_secs(12);

/// How long signs of life alone may come before, or within, an answer: waiting in a queue and then the
/// longest prompt on a slow machine.
const PROMPT_MAX: Duration = Duration::from_secs(3_600);

/// The same for questions that need no model's time.
const QUESTION_MAX: Duration = Duration::from_secs(60);

/// The same for a model that a host loads because it was asked to: a terabyte from a hard disk takes three hours. Its
/// signs of life say that it loads still; one whose load does not get on ends the call by itself.
const TAKE_UP_MAX: Duration = Duration::from_secs(4 * 3_600);

/// How long a call may take to arrive: 24 MiB over 20 Mbit/s.
const CALL_READ_MAX: Duration = Duration::from_secs(10);

/// Code with which a stream is ended that broke a rule or a deadline.
const CODE_BROKEN: u32 = 1;
