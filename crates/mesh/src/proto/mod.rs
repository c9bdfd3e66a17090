//! Owns membership: who is in the mesh, alive, and says what. A state machine without input or
//! output: [`State::handle`] takes an [`Event`] and the time and returns [`Effect`]s.
//!
//! - Serving and standby nodes *gossip*: each has a few neighbours, passes urgent news along a tree
//!   of them and the hashes of all other news to each, and compares tables with them now and then.
//!   Clients *pull* the table.
//! - A silent node gets a first strike at its neighbour, is looked for through others, named to
//!   the mesh, and declared dead only when nothing came of all that.
//! - Opening connections, checking memberships and reading bytes are the business of `net`.

mod changes;
mod choice;
mod compare;
mod detector;
mod event;
mod limits;
mod link;
mod links;
mod message;
mod missing;
mod past;
mod publish;
mod pull;
mod record;
mod revocations;
mod seek;
mod serve;
mod spread;
mod state;
mod table;
#[cfg(test)]
mod tests;
pub mod timing;
mod view;
mod wire;

pub use event::{Config, Effect, Event, Offence};
pub use limits::*;
pub use message::{Fact, Item, Message, Page, TableVersion};
pub use state::{QueueLengths, State};
pub use view::{Belief, Liveness, Member, View};
pub use wire::MessageError;
