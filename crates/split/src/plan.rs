//! The planner: which machines run which layers of a model, and how fast that will be, or why it
//! can't be. Pure: the same input gives the same plan, on every machine.
//!
//! The ring: host → worker 1 → … → worker w → host. The host embeds tokens, workers run layers from the
//! first on, and the host runs the last layers and the head. A token goes round once, so it costs
//! the sum of all layers' times plus half a round trip for each hop.
//!
//! ```
//! use std::time::Duration;
//! use split::plan::{Candidate, Pool, Request, Speed, make};
//! use split::published;
//!
//! let model = published::parse("Llama-3.3-70B:Q4_K_M").unwrap();
//! let machine = |id| Candidate {
//!     id,
//!     memory_bytes: 32 << 30,
//!     speed: Speed::from_bandwidth(100e9).unwrap(),
//!     has_weights: false,
//! };
//! let mut pool = Pool::new([machine(1), machine(2)])?;
//! pool.link(1, 2, Duration::from_millis(5))?;
//! let plan = make(&model.shape(), &pool, &Request::new(8192)).unwrap();
//! assert_eq!(plan.stages.len(), 2);
//! # Ok::<(), split::plan::PoolError<i32>>(())
//! ```

mod candidate;
mod diagnosis;
mod header;
mod memory;
pub mod nodes;
mod outcome;
mod problem;
mod refusal;
pub mod render;
mod ring;
mod search;
mod settled;
mod shape;
mod share;
mod speed;
mod track;

pub use candidate::{CANDIDATES_MAX, Candidate, Pool, PoolError};
pub use header::{HeaderError, WindowCache};
pub use memory::{KvBytes, Room};
pub use outcome::{Plan, Stage};
pub use refusal::Refusal;
pub use render::ByteSize;
pub use search::{BALANCE_PERCENT, FETCH_PERCENT, Request, STAGES_MAX, make};
pub use settled::{Pinned, settled};
pub use shape::{LAYERS_MAX, Layer, ModelShape, Parts, ShapeError};
pub use speed::{Speed, SpeedError};

/// Longest round trip between two machines of a plan. Beyond it two hops alone cost 80 ms a token, and
/// no share of layers makes up for that.
pub const ROUND_TRIP_MAX: std::time::Duration = std::time::Duration::from_millis(80);

/// What one hop costs beyond half a round trip: QUIC, waking up, copying. An echo of 16 KiB over a link of
/// 20 ms was measured at 21.1 ms, which is two hops.
pub const HOP_OVERHEAD: std::time::Duration = std::time::Duration::from_micros(500);

/// Prompt rows that travel together, so that all stages work at once.
pub const PREFILL_CHUNK_ROWS: u32 = 128;
