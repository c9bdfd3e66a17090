//! Owns the list of everything that reads foreign bytes, each as a function that may be given any
//! bytes: it must not panic, and what it reads must survive being written and read again.
//!
//! The targets in `fuzz/` and the property tests call the same functions.

use std::time::Duration;

use gguf::Fingerprint;
use mesh::NodeId;

use crate::fault::{Fault, Refusal};
use crate::layers::Loading;
use crate::pace::Work;
use crate::spec::{Precision, RingId, StageSpec};
use crate::weights::Phase;
use crate::weights::fuzzing as weights;
use crate::wire::{
    Alive, Answer, CacheOp, FRAME_VERSION, Frame, FrameFormat, FromWorker, Lease, Opening, Outcome,
    Pace, Ready, ToWorker, decode_frame, encode_frame, read_answer, read_from_worker, read_opening,
    read_pace, read_to_worker,
};

/// Something that reads foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// The name of its fuzz target.
    pub name: &'static str,
    /// Reads; true if the bytes were accepted.
    pub read: fn(&[u8]) -> bool,
    /// Bytes that are accepted, to begin with.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const DECODERS: [Decoder; 10] = [
    Decoder {
        name: "frame",
        read: frame,
        samples: frames,
    },
    Decoder {
        name: "opening",
        read: opening,
        samples: || openings().iter().map(Opening::to_bytes).collect(),
    },
    Decoder {
        name: "to_worker",
        read: to_worker,
        samples: || to_workers().iter().map(ToWorker::to_bytes).collect(),
    },
    Decoder {
        name: "from_worker",
        read: from_worker,
        samples: || from_workers().iter().map(FromWorker::to_bytes).collect(),
    },
    Decoder {
        name: "answer",
        read: answer,
        samples: || {
            [Answer::Welcome, Answer::NotExpected]
                .map(|a| a.to_bytes())
                .into()
        },
    },
    Decoder {
        name: "to_holder",
        read: to_holder,
        samples: weights::asks,
    },
    Decoder {
        name: "from_holder",
        read: from_holder,
        samples: weights::answers,
    },
    Decoder {
        name: "headers",
        read: headers,
        samples: weights::headers_of_a_model,
    },
    Decoder {
        name: "content_range",
        read: content_range,
        samples: || vec![b"bytes 0-99/1000".to_vec()],
    },
    Decoder {
        name: "pace",
        read: pace,
        samples: || vec![SAMPLE_PACE.to_bytes()],
    },
];

/// Bytes that the decoder of this name accepts; none if there is no such decoder.
#[must_use]
pub fn samples(name: &str) -> Vec<Vec<u8>> {
    let named = DECODERS.iter().find(|decoder| decoder.name == name);
    named.map_or_else(Vec::new, |decoder| (decoder.samples)())
}

const SAMPLE_PACE: Pace = Pace {
    decode_bytes_per_s: 80_000_000_000,
    prefill_bytes_per_s: u64::MAX,
};

/// What frames of the samples look like.
const FORMAT: FrameFormat = FrameFormat {
    width: 3,
    rows_max: 8,
};

/// A data frame. Numbers that are none compare as their bits.
pub fn frame(bytes: &[u8]) -> bool {
    let Ok(read) = decode_frame(bytes, &FORMAT) else {
        return false;
    };
    for precision in [Precision::F32, Precision::F16] {
        let again = encode_frame(&read, FORMAT.width, precision);
        let Ok(again) = decode_frame(&again, &FORMAT) else {
            panic!("what was read can't be written");
        };
        assert_eq!(again.ops, read.ops);
        assert_eq!(again.positions, read.positions);
        assert_eq!(again.sequences, read.sequences);
        assert_eq!(
            (again.epoch, again.number, again.outcome),
            (read.epoch, read.number, read.outcome)
        );
        assert_eq!(again.hidden.len(), read.hidden.len());
        if precision == Precision::F32 {
            let bits = |frame: &Frame| frame.hidden.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
            assert_eq!(bits(&again), bits(&read));
        }
    }
    true
}

/// The beginning of a stream.
pub fn opening(bytes: &[u8]) -> bool {
    let Ok(read) = read_opening(bytes) else {
        return false;
    };
    assert_eq!(read_opening(&read.to_bytes()), Ok(read));
    true
}

/// From a host.
pub fn to_worker(bytes: &[u8]) -> bool {
    let Ok(read) = read_to_worker(bytes) else {
        return false;
    };
    if let ToWorker::Lease(lease) = &read {
        let _ = lease.spec.check();
    }
    assert_eq!(read_to_worker(&read.to_bytes()), Ok(read));
    true
}

/// From a worker.
pub fn from_worker(bytes: &[u8]) -> bool {
    let Ok(read) = read_from_worker(bytes) else {
        return false;
    };
    assert_eq!(read_from_worker(&read.to_bytes()), Ok(read));
    true
}

/// To the opener of a data stream.
pub fn answer(bytes: &[u8]) -> bool {
    let Ok(read) = read_answer(bytes) else {
        return false;
    };
    assert_eq!(read_answer(&read.to_bytes()), Ok(read));
    true
}

/// What a member asks for weights.
pub fn to_holder(bytes: &[u8]) -> bool {
    weights::ask(bytes)
}

/// The answer to it.
pub fn from_holder(bytes: &[u8]) -> bool {
    weights::answer(bytes)
}

/// A model's headers, as a member or a hub sends them.
pub fn headers(bytes: &[u8]) -> bool {
    weights::headers(bytes)
}

/// What a hub says of the bytes that it sends.
pub fn content_range(bytes: &[u8]) -> bool {
    weights::range(bytes)
}

/// How fast a machine computes.
pub fn pace(bytes: &[u8]) -> bool {
    let Ok(read) = read_pace(bytes) else {
        return false;
    };
    assert_eq!(read_pace(&read.to_bytes()), Ok(read));
    true
}

fn frames() -> Vec<Vec<u8>> {
    let mut frame = Frame {
        epoch: 3,
        number: u64::MAX - 1,
        ops: vec![
            CacheOp::Clear,
            CacheOp::Copy {
                from: 1,
                to: 2,
                tokens: 77,
            },
            CacheOp::Cut {
                sequence: 2,
                from: 70,
            },
            CacheOp::Replay {
                fresh: [0, 15].into_iter().collect(),
            },
        ],
        outcome: Outcome::Rows,
        busy_us: 0,
        positions: vec![70, 71],
        sequences: vec![2, 2],
        hidden: vec![1.0, -2.5, 1e9, 0.0, 65_504.0, -0.125],
    };
    let full = encode_frame(&frame, FORMAT.width, Precision::F32);
    frame.hidden[2] = 1.0;
    let half = encode_frame(&frame, FORMAT.width, Precision::F16);
    frame.hidden.clear();
    let bare = encode_frame(&frame, FORMAT.width, Precision::F32);
    frame.refuse_rows();
    let refused = encode_frame(&frame, FORMAT.width, Precision::F16);
    vec![full, half, bare, refused]
}

fn openings() -> [Opening; 3] {
    let data = Opening::Data {
        ring: RingId([7; 16]),
        epoch: 4,
        place: 1,
    };
    let measure = Opening::Measure {
        model: Fingerprint([3; 32]),
    };
    [Opening::Control, data, measure]
}

fn to_workers() -> Vec<ToWorker> {
    let lease = Lease {
        ring: RingId([7; 16]),
        epoch: 4,
        spec: StageSpec {
            model: Fingerprint([3; 32]),
            layers: 4..9,
            width: 4_096,
            kv_tokens: 8_192,
            sequences: 8,
            rows_max: 512,
        },
        precision: Precision::F16,
        lease: Duration::from_secs(30),
        place: 1,
        previous: NodeId::from_bytes([1; 32]),
        next: NodeId::from_bytes([2; 32]),
        keeps: true,
        frames: FRAME_VERSION,
    };
    let lease = ToWorker::Lease(Box::new(lease));
    vec![lease, ToWorker::Renew, ToWorker::Start, ToWorker::Release]
}

fn from_workers() -> Vec<FromWorker> {
    let refusals = [
        Refusal::NoMemory {
            needed_bytes: 10,
            free_bytes: 9,
        },
        Refusal::Full,
        Refusal::Taken,
        Refusal::OldEpoch { epoch: 9 },
        Refusal::OutOfRange { text: "x".into() },
        Refusal::NoModel { text: "y".into() },
        Refusal::Replaced,
    ];
    let faults = [
        Fault::Own,
        Fault::Previous,
        Fault::PreviousGone,
        Fault::NextGone,
        Fault::Ended,
    ];
    let failed = faults.map(|fault| FromWorker::Failed {
        fault,
        text: "it broke".into(),
    });
    let ready = Ready {
        memory_bytes: 1 << 40,
        kv_tokens: 8_192,
        width: 4_096,
        is_recurrent: true,
        remembers: Some(3),
    };
    let alive = FromWorker::Alive(Alive {
        received: 8,
        sent: 7,
        work: Work {
            batches: 7,
            rows: 20,
            busy: Duration::from_millis(12),
            singles: 4,
            singles_busy: Duration::from_millis(5),
        },
        is_leaving: true,
    });
    let mut all = vec![
        FromWorker::Loading(Loading::of(Phase::Fetching, 1, 2)),
        FromWorker::Ready(ready),
        FromWorker::Joined,
        alive,
    ];
    all.extend(refusals.map(FromWorker::Refused));
    all.extend(failed);
    all
}
