//! Owns the way of weights to the machine that runs them: which bytes a slice needs, where they
//! are, and how they come here whole and unchanged. It loads no model and opens no connection.
//!
//! In this order a slice is looked for, by [`obtain`]:
//! 1. in the [`Cache`], where complete slices lie;
//! 2. in a whole model of the same fingerprint on this machine, from which it is cut;
//! 3. at members that hold its tensors, in a whole model or in a slice ([`PeerSource`]);
//! 4. at the hub, by ranges over HTTP ([`HttpSource`]).
//!
//! All of a model, for a machine that is to serve it, comes in the same way: it is a slice with every layer and the role
//! [`gguf::SliceRole::Whole`], whose file is a file of the model.
//!
//! # Chunks
//! A tensor is divided into [chunks](ChunkId) of [`CHUNK_BYTES`], and a chunk is named by its
//! tensor and its number. Tensors are counted in the order of their names, which the fingerprint of
//! the model fixes. So a chunk means the same bytes to everybody, whether they lie in one file, in
//! parts, or in a slice of other layers, and nobody can ask for anything but weights.
//!
//! # Trust
//! - A model's headers may come from anybody: they are hashed, and the fingerprint must come out.
//! - The weights are not in the fingerprint. The *host* of a split model hashes its own file, chunk
//!   by chunk (BLAKE3), and whoever holds a lease from it asks it for that [`Manifest`], over a
//!   connection that proves who it is. Every chunk, from wherever, must match it. A hash sent along
//!   with a chunk would prove nothing, so none is sent.
//! - A source whose chunk does not match loses that chunk at once and its place after three.
//!
//! # Sharing
//! A [`Keeper`] says what each peer may have. [`shares_weights`] is the rule: yes in private meshes,
//! in published ones only where the owner said so. The manifest and the headers are no weights and
//! go to every worker with a lease, so that it can check what the hub sends.

mod ask;
mod cache;
mod chunk;
mod fetch;
mod file_name;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzzing;
mod headers;
mod holding;
mod http;
mod manifest;
mod obtain;
mod partial;
mod place;
mod progress;
mod schedule;
mod serve;
mod source;
mod wire;

pub use ask::{AskError, Dial, PeerSource, ask_headers, ask_holdings, ask_manifest, ask_place};
pub use cache::{Cache, CacheError, CachedSlice};
pub use chunk::{CHUNK_BYTES, Chunk, ChunkId, JobError, SliceJob, SliceKey, TensorTable};
pub use fetch::{FetchError, fetch};
pub use headers::{Headers, HeadersError};
pub use holding::{Holding, HoldingError};
pub use http::{HttpSource, HubFiles};
pub use manifest::{Hash, Manifest, ManifestError};
pub use obtain::{ObtainError, Suppliers, obtain};
pub use place::HubPlace;
pub use progress::{Phase, Progress, SourceProgress};
pub(crate) use serve::StopOnDrop;
pub use serve::{Grant, Keeper, ServeError, Server, shares_weights};
pub use source::{Fault, Fetching, LocalSource, Sink, Source, Tier};
pub use wire::Garbled;
