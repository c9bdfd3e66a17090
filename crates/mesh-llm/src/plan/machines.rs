//! The machines of a plan: described by the user, or this one and the other members of its mesh.

use std::collections::BTreeMap;
use std::time::Duration;

use api::management::{Liveness, Role, Status};
use split::plan::nodes::{self, BANDWIDTH_GB_S_DEFAULT};
use split::plan::{Candidate, Pool, Speed};

use crate::control::{Control, ControlError};
use crate::failure::Failure;
use crate::settings::Settings;

/// This machine's number; peers follow.
const HERE: u32 = 1;

/// Round trip that is assumed to a member where none is measured yet: one on the same network.
const ROUND_TRIP_UNKNOWN: Duration = Duration::from_millis(1);

/// What evaluation reaches of the bandwidth of memory.
const EFFICIENCY: f64 = 0.75;

/// Machines with names.
pub(super) struct Machines {
    pub(super) pool: Pool<u32>,
    names: BTreeMap<u32, String>,
    assumption: &'static str,
}

impl Machines {
    /// Those of a list such as `128G,64G@5ms`.
    pub(super) fn described(list: &str) -> Result<Self, Failure> {
        let wrong = |error: &dyn std::fmt::Display| Failure::settings(format!("--nodes: {error}"));
        let machines = nodes::parse(list).map_err(|error| wrong(&error))?;
        let pool = nodes::pool(&machines).map_err(|error| wrong(&error))?;
        let names = (1..).zip(&machines);
        let names = names.map(|(id, machine)| {
            let memory = node::ByteSize(machine.memory_bytes);
            (id, format!("{id} ({memory})"))
        });
        Ok(Self {
            pool,
            names: names.collect(),
            assumption: "Where --nodes names none, a bandwidth of 100 GB/s and a round trip of 1 ms are assumed.\n",
        })
    }

    /// This machine, and if a node runs on it, the others of its mesh. `is_here`: the model's file is
    /// on this machine's disk.
    pub(super) async fn of_mesh(
        settings: &Settings,
        model: &str,
        is_here: bool,
    ) -> Result<Self, Failure> {
        let status = match Control::new(settings)?.get::<Status>("/api/status").await {
            Ok(status) => Some(status),
            Err(ControlError::NobodyThere(_)) => None,
            Err(error) => return Err(error.into()),
        };
        let mut machines = vec![Machine {
            name: "this machine".to_owned(),
            memory_bytes: node::available_bytes(),
            has_weights: is_here,
            bandwidth_mb_s: status
                .as_ref()
                .and_then(|status| status.node.bandwidth_mb_s),
            round_trip: Duration::ZERO,
        }];
        for peer in status.iter().flat_map(|status| &status.peers) {
            let computes = peer.role != Role::Client && peer.liveness == Liveness::Alive;
            if computes {
                let measured = peer.round_trip_us.map(u64::from).map(Duration::from_micros);
                machines.push(Machine {
                    name: peer.name.clone(),
                    memory_bytes: peer.memory_free_bytes,
                    has_weights: peer.local.iter().any(|local| local == model),
                    bandwidth_mb_s: peer.bandwidth_mb_s,
                    round_trip: measured.unwrap_or(ROUND_TRIP_UNKNOWN),
                });
            }
        }
        Self::measured(machines)
    }

    fn measured(mut machines: Vec<Machine>) -> Result<Self, Failure> {
        machines.truncate(split::plan::CANDIDATES_MAX);
        let numbered = || (HERE..).zip(&machines);
        let candidates = numbered().map(|(id, machine)| {
            Ok(Candidate {
                id,
                memory_bytes: machine.memory_bytes,
                speed: machine.speed()?,
                has_weights: machine.has_weights,
            })
        });
        let candidates = candidates.collect::<Result<Vec<_>, Failure>>()?;
        let all = machines
            .iter()
            .all(|machine| machine.bandwidth_mb_s.is_some());
        let failed = |error: split::plan::PoolError<u32>| Failure::other(error.to_string());
        let mut pool = Pool::new(candidates).map_err(failed)?;
        for (a, from) in numbered() {
            for (b, to) in numbered().filter(|(b, _)| *b > a) {
                // Between two others no more is known here than how far each of them is.
                let round_trip = from.round_trip.max(to.round_trip);
                pool.link(a, b, round_trip).map_err(failed)?;
            }
        }
        Ok(Self {
            names: numbered()
                .map(|(id, machine)| (id, machine.name.clone()))
                .collect(),
            pool,
            assumption: match all {
                true => "From measured memory bandwidths; --nodes describes other machines.\n",
                false => {
                    "Where no node has measured it, a memory bandwidth of 100 GB/s is assumed; --nodes describes other machines.\n"
                }
            },
        })
    }

    /// What to call a machine.
    pub(super) fn name(&self, id: u32) -> String {
        let name = self.names.get(&id).cloned();
        name.unwrap_or_else(|| id.to_string())
    }

    /// What the prediction rests on.
    pub(super) fn assumption(&self) -> &'static str {
        self.assumption
    }
}

struct Machine {
    name: String,
    memory_bytes: u64,
    has_weights: bool,
    /// As it was measured there.
    bandwidth_mb_s: Option<u32>,
    round_trip: Duration,
}

impl Machine {
    fn speed(&self) -> Result<Speed, Failure> {
        let measured = self.bandwidth_mb_s.filter(|mb_s| *mb_s > 0);
        let bytes_per_s = match measured {
            Some(mb_s) => f64::from(mb_s) * 1e6 * EFFICIENCY,
            None => BANDWIDTH_GB_S_DEFAULT * 1e9,
        };
        Speed::from_bandwidth(bytes_per_s).map_err(|error| Failure::other(error.to_string()))
    }
}
