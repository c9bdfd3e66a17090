//! Owns emulated networks: hosts that are Linux network namespaces, joined by links whose delay,
//! loss and rate can be set, for real processes with real sockets. Linux only.
//!
//! A host's packets go through a TUN device to one thread of this process and from there to the other
//! host. It neither needs `tc netem`, which not every kernel has, nor any program. Sockets cannot
//! get around it, because there is no other way out of a host.
//!
//! ```no_run
//! use std::process::Command;
//! use testkit::net::{Lab, Link, gain_rights};
//!
//! // First in `main`, while there is one thread: only root may do without.
//! gain_rights();
//! let lab = Lab::new(3)?;
//! lab.set_all(Link::round_trip_ms(20).with_loss(0.01));
//!
//! // A process; `stdout` and the like as of any other.
//! let mut command = Command::new("mesh-llm");
//! command.args(["--no-relay", "--model", "model.gguf"]);
//! let first = lab.host(0).spawn(command)?;
//!
//! // A client inside the host: `127.0.0.1` is the host's own. Any async client works; its
//! // futures run on threads inside the host, and the result can be awaited anywhere.
//! let tokio = tokio::runtime::Builder::new_current_thread().build()?;
//! let connected = tokio.block_on(lab.host(0).run(async {
//!     tokio::net::TcpStream::connect("127.0.0.1:9337").await.is_ok()
//! }));
//!
//! // What no process can do: pull the cable, and put it back.
//! lab.cut(0, 1);
//! lab.restore(0, 1);
//!
//! first.pause()?;
//! first.resume()?;
//! // Whatever still runs in the lab ends with it.
//! drop(lab);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod host;
mod interface;
mod lab;
mod link;
mod namespace;
mod path;
mod switch;
mod system;

pub use host::{Harm, Host, Process};
pub use lab::{Lab, LabError, supported};
pub use link::{Counters, Link};
pub use namespace::gain_rights;
