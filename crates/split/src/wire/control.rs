//! CBOR messages of a control stream: leases, and what a worker says about its stage.

use std::time::Duration;

use gguf::Fingerprint;
use mesh::NodeId;
use mesh::codec::{self, Fixed};
use serde::{Deserialize, Serialize};

use super::{MESSAGE_BYTES_MAX, WireError, range, shortened};
use crate::fault::{Fault, Refusal};
use crate::layers::Loading;
use crate::pace::Work;
use crate::spec::{Precision, RingId, StageSpec};
use crate::weights::Phase;

/// A host asks for a stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lease {
    /// Which ring.
    pub ring: RingId,
    /// Which life of it.
    pub epoch: u32,
    /// What is to be loaded.
    pub spec: StageSpec,
    /// How rows travel from here on.
    pub precision: Precision,
    /// How long the lease holds unless it is renewed.
    pub lease: Duration,
    /// Place in the ring, from 0.
    pub place: u32,
    /// Whom rows come from: the host, or the worker before.
    pub previous: NodeId,
    /// Whom rows go to: the next worker, or the host.
    pub next: NodeId,
    /// Layers that are still there from an epoch before shall remember what they evaluated in it.
    pub keeps: bool,
    /// How the host writes frames: its [`FRAME_VERSION`](super::FRAME_VERSION).
    pub frames: u8,
}

/// From the host to a worker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToWorker {
    /// The first one, once.
    Lease(Box<Lease>),
    /// The lease begins anew.
    Renew,
    /// Every stage is ready: connect to the next one.
    Start,
    /// The stage is no longer wanted.
    Release,
}

/// A stage is loaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ready {
    /// Bytes that it takes.
    pub memory_bytes: u64,
    /// KV cells that it has, at least as many as were asked for.
    pub kv_tokens: u32,
    /// Elements of its rows.
    pub width: u32,
    /// Whether sequences can't be cut back.
    pub is_recurrent: bool,
    /// The epoch whose frames it remembers; `None`: it is empty.
    pub remembers: Option<u32>,
}

/// A sign of life.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Alive {
    /// Frames that have come.
    pub received: u64,
    /// Frames that were passed on.
    pub sent: u64,
    /// What the stage has computed.
    pub work: Work,
    /// The machine is about to stop, and waits for the host to go elsewhere.
    pub is_leaving: bool,
}

/// From a worker to the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FromWorker {
    /// It is at it; also a sign of life.
    Loading(Loading),
    /// See [`Ready`].
    Ready(Ready),
    /// The connection to the next stage stands.
    Joined,
    /// See [`Alive`].
    Alive(Alive),
    /// There will be no stage.
    Refused(Refusal),
    /// The stage ends.
    Failed {
        /// Whose fault it is, as the worker sees it.
        fault: Fault,
        /// What went wrong.
        text: String,
    },
}

#[derive(Serialize, Deserialize)]
struct LeaseWire {
    ring: Fixed<16>,
    epoch: u32,
    model: Fixed<32>,
    layer_first: u32,
    layer_end: u32,
    width: u32,
    kv_tokens: u32,
    sequences: u32,
    rows_max: u32,
    #[serde(default)]
    f16: bool,
    lease_ms: u64,
    place: u32,
    previous: Fixed<32>,
    next: Fixed<32>,
    #[serde(default)]
    keeps: bool,
    #[serde(default)]
    frames: u8,
}

#[derive(Serialize, Deserialize)]
enum ToWorkerWire {
    Lease(Box<LeaseWire>),
    Renew,
    Start,
    Release,
}

#[derive(Serialize, Deserialize)]
enum FromWorkerWire {
    Loading {
        permille: u16,
        #[serde(default)]
        phase: u8,
    },
    Ready {
        memory_bytes: u64,
        kv_tokens: u32,
        width: u32,
        #[serde(default)]
        recurrent: bool,
        #[serde(default)]
        remembers: Option<u32>,
    },
    Joined,
    Alive {
        received: u64,
        sent: u64,
        #[serde(default)]
        busy_us: u64,
        #[serde(default)]
        batches: u64,
        #[serde(default)]
        rows: u64,
        #[serde(default)]
        singles: u64,
        #[serde(default)]
        singles_us: u64,
        #[serde(default)]
        leaving: bool,
    },
    Refused(RefusalWire),
    Failed {
        fault: FaultWire,
        text: String,
    },
}

#[derive(Serialize, Deserialize)]
enum RefusalWire {
    NoMemory { needed_bytes: u64, free_bytes: u64 },
    Full,
    Taken,
    OldEpoch { epoch: u32 },
    OutOfRange { text: String },
    NoModel { text: String },
    Replaced,
}

#[derive(Serialize, Deserialize)]
enum FaultWire {
    Own,
    Previous,
    PreviousGone,
    NextGone,
    Ended,
}

/// Longest lease that is read. What a worker grants is its own decision.
const LEASE_MS_MAX: u64 = 86_400_000;

impl From<&Lease> for LeaseWire {
    fn from(lease: &Lease) -> Self {
        let spec = &lease.spec;
        Self {
            ring: Fixed(lease.ring.0),
            epoch: lease.epoch,
            model: Fixed(spec.model.0),
            layer_first: spec.layers.start,
            layer_end: spec.layers.end,
            width: spec.width,
            kv_tokens: spec.kv_tokens,
            sequences: spec.sequences,
            rows_max: spec.rows_max,
            f16: lease.precision == Precision::F16,
            lease_ms: u64::try_from(lease.lease.as_millis()).unwrap_or(LEASE_MS_MAX),
            place: lease.place,
            previous: lease.previous.into(),
            next: lease.next.into(),
            keeps: lease.keeps,
            frames: lease.frames,
        }
    }
}

impl TryFrom<LeaseWire> for Lease {
    type Error = WireError;

    fn try_from(wire: LeaseWire) -> Result<Self, WireError> {
        range("lease in milliseconds", wire.lease_ms, LEASE_MS_MAX)?;
        Ok(Self {
            ring: RingId(wire.ring.0),
            epoch: wire.epoch,
            spec: StageSpec {
                model: Fingerprint(wire.model.0),
                layers: wire.layer_first..wire.layer_end,
                width: wire.width,
                kv_tokens: wire.kv_tokens,
                sequences: wire.sequences,
                rows_max: wire.rows_max,
            },
            precision: match wire.f16 {
                true => Precision::F16,
                false => Precision::F32,
            },
            lease: Duration::from_millis(wire.lease_ms),
            place: wire.place,
            previous: wire.previous.into(),
            next: wire.next.into(),
            keeps: wire.keeps,
            frames: wire.frames,
        })
    }
}

impl ToWorker {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&match self {
            Self::Lease(lease) => ToWorkerWire::Lease(Box::new(lease.as_ref().into())),
            Self::Renew => ToWorkerWire::Renew,
            Self::Start => ToWorkerWire::Start,
            Self::Release => ToWorkerWire::Release,
        })
    }
}

/// Reads a [`ToWorker`].
///
/// # Errors
/// [`WireError`].
pub fn read_to_worker(bytes: &[u8]) -> Result<ToWorker, WireError> {
    Ok(match codec::decode(bytes, MESSAGE_BYTES_MAX)? {
        ToWorkerWire::Lease(lease) => ToWorker::Lease(Box::new((*lease).try_into()?)),
        ToWorkerWire::Renew => ToWorker::Renew,
        ToWorkerWire::Start => ToWorker::Start,
        ToWorkerWire::Release => ToWorker::Release,
    })
}

impl FromWorker {
    /// Its bytes.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&match self {
            Self::Loading(loading) => FromWorkerWire::Loading {
                permille: loading.permille,
                phase: phase_number(loading.phase),
            },
            Self::Ready(ready) => FromWorkerWire::Ready {
                memory_bytes: ready.memory_bytes,
                kv_tokens: ready.kv_tokens,
                width: ready.width,
                recurrent: ready.is_recurrent,
                remembers: ready.remembers,
            },
            Self::Joined => FromWorkerWire::Joined,
            Self::Alive(alive) => FromWorkerWire::Alive {
                received: alive.received,
                sent: alive.sent,
                busy_us: microseconds(alive.work.busy),
                batches: alive.work.batches,
                rows: alive.work.rows,
                singles: alive.work.singles,
                singles_us: microseconds(alive.work.singles_busy),
                leaving: alive.is_leaving,
            },
            Self::Refused(refusal) => FromWorkerWire::Refused(refusal.into()),
            Self::Failed { fault, text } => FromWorkerWire::Failed {
                fault: match fault {
                    Fault::Own => FaultWire::Own,
                    Fault::Previous => FaultWire::Previous,
                    Fault::PreviousGone => FaultWire::PreviousGone,
                    Fault::NextGone => FaultWire::NextGone,
                    Fault::Ended => FaultWire::Ended,
                },
                text: shortened(text),
            },
        })
    }
}

/// A worker that does not say what it does loads.
const PHASES: [Phase; 5] = [
    Phase::Opening,
    Phase::Asking,
    Phase::Checking,
    Phase::Fetching,
    Phase::Cutting,
];

fn phase_number(phase: Phase) -> u8 {
    let place = PHASES.iter().position(|known| *known == phase);
    place.and_then(|place| place.try_into().ok()).unwrap_or(0)
}

/// What is not known here comes from a newer version.
fn phase_of(number: u8) -> Phase {
    let known = PHASES.get(usize::from(number));
    known.copied().unwrap_or(Phase::Opening)
}

/// Reads a [`FromWorker`].
///
/// # Errors
/// [`WireError`].
pub fn read_from_worker(bytes: &[u8]) -> Result<FromWorker, WireError> {
    Ok(match codec::decode(bytes, MESSAGE_BYTES_MAX)? {
        FromWorkerWire::Loading { permille, phase } => {
            let phase = phase_of(phase);
            FromWorker::Loading(Loading::of(phase, permille.into(), 1_000))
        }
        FromWorkerWire::Ready {
            memory_bytes,
            kv_tokens,
            width,
            recurrent,
            remembers,
        } => FromWorker::Ready(Ready {
            memory_bytes,
            kv_tokens,
            width,
            is_recurrent: recurrent,
            remembers,
        }),
        FromWorkerWire::Joined => FromWorker::Joined,
        FromWorkerWire::Alive {
            received,
            sent,
            busy_us,
            batches,
            rows,
            singles,
            singles_us,
            leaving,
        } => FromWorker::Alive(Alive {
            received,
            sent,
            work: Work {
                batches,
                rows,
                busy: Duration::from_micros(busy_us),
                singles,
                singles_busy: Duration::from_micros(singles_us),
            },
            is_leaving: leaving,
        }),
        FromWorkerWire::Refused(refusal) => FromWorker::Refused(refusal.into()),
        FromWorkerWire::Failed { fault, text } => FromWorker::Failed {
            fault: match fault {
                FaultWire::Own => Fault::Own,
                FaultWire::Previous => Fault::Previous,
                FaultWire::PreviousGone => Fault::PreviousGone,
                FaultWire::NextGone => Fault::NextGone,
                FaultWire::Ended => Fault::Ended,
            },
            text: shortened(&text),
        },
    })
}

fn microseconds(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

impl From<&Refusal> for RefusalWire {
    fn from(refusal: &Refusal) -> Self {
        match refusal {
            Refusal::NoMemory {
                needed_bytes,
                free_bytes,
            } => Self::NoMemory {
                needed_bytes: *needed_bytes,
                free_bytes: *free_bytes,
            },
            Refusal::Full => Self::Full,
            Refusal::Taken => Self::Taken,
            Refusal::OldEpoch { epoch } => Self::OldEpoch { epoch: *epoch },
            Refusal::OutOfRange { text } => Self::OutOfRange {
                text: shortened(text),
            },
            Refusal::NoModel { text } => Self::NoModel {
                text: shortened(text),
            },
            Refusal::Replaced => Self::Replaced,
        }
    }
}

impl From<RefusalWire> for Refusal {
    fn from(wire: RefusalWire) -> Self {
        match wire {
            RefusalWire::NoMemory {
                needed_bytes,
                free_bytes,
            } => Self::NoMemory {
                needed_bytes,
                free_bytes,
            },
            RefusalWire::Full => Self::Full,
            RefusalWire::Taken => Self::Taken,
            RefusalWire::OldEpoch { epoch } => Self::OldEpoch { epoch },
            RefusalWire::OutOfRange { text } => Self::OutOfRange {
                text: shortened(&text),
            },
            RefusalWire::NoModel { text } => Self::NoModel {
                text: shortened(&text),
            },
            RefusalWire::Replaced => Self::Replaced,
        }
    }
}
