//! Small models and machines for tests.

use std::time::Duration;

use split::plan::{Candidate, Layer, ModelShape, Parts, Pool, Request, Speed};

pub(crate) const MIB: u64 = 1 << 20;

/// A machine: memory in MiB, bandwidth in MB/s.
pub(crate) type Machine = (u64, u32);

pub(crate) fn layer(weight_mib: u64, active_mib: u64, kv_token_bytes: u64) -> Layer {
    Layer {
        weight_bytes: weight_mib * MIB,
        active_bytes: active_mib.min(weight_mib) * MIB,
        kv_token_bytes,
        kv_tokens_max: None,
        state_bytes: 0,
    }
}

pub(crate) fn model(layers: Vec<Layer>, cuts: Vec<u32>) -> ModelShape {
    ModelShape::new(Parts {
        architecture: "test".to_owned(),
        layers,
        embedding_bytes: MIB,
        head_bytes: MIB,
        head_active_bytes: MIB,
        width: 64,
        cuts,
    })
    .unwrap()
}

/// Layers of `weight_mib` each, with cuts everywhere.
pub(crate) fn even(layers: u32, weight_mib: u64) -> ModelShape {
    let all = vec![layer(weight_mib, weight_mib, 0); layers as usize];
    model(all, ModelShape::cuts_every(layers, 1))
}

/// Machines numbered from 0, `round_trip_us` apart as the matrix says; a negative entry is unknown.
pub(crate) fn pool(machines: &[Machine], round_trip_us: &[Vec<i64>]) -> Pool<usize> {
    let candidates = machines.iter().enumerate();
    let mut pool = Pool::new(candidates.map(|(id, &(mib, mb_per_s))| Candidate {
        id,
        memory_bytes: mib * MIB,
        speed: Speed::from_bandwidth(f64::from(mb_per_s) * 1e6).unwrap(),
        has_weights: false,
    }))
    .unwrap();
    for (a, row) in round_trip_us.iter().enumerate().take(machines.len()) {
        for (b, &us) in row.iter().enumerate().take(machines.len()).skip(a + 1) {
            if let Ok(us) = u64::try_from(us) {
                pool.link(a, b, Duration::from_micros(us)).unwrap();
            }
        }
    }
    pool
}

/// All machines so many milliseconds apart.
pub(crate) fn apart(machines: &[Machine], ms: i64) -> Pool<usize> {
    pool(
        machines,
        &vec![vec![ms * 1000; machines.len()]; machines.len()],
    )
}

pub(crate) fn request() -> Request<usize> {
    Request::new(16)
}
