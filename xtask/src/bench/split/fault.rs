//! How long a stream pauses when a machine of its ring is lost.

use std::sync::mpsc;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, ensure};
use serde::Serialize;

use super::super::metric::median;
use super::super::prompt::Digits;
use super::machines::Machines;
use super::ring::{Node, Ring, Wish};

/// Distance of the machines from each other.
pub(super) const ROUND_TRIP_MS: u64 = 20;

/// Machines beside the host. One has layers, the other one could take them over.
const WORKERS: usize = 2;

/// Tokens that are there before the harm.
const TOKENS_BEFORE: usize = 8;

/// Tokens of the whole answer.
const TOKENS: usize = 40;

/// A stream that has no tokens by then never gets any.
const BEGIN_WAIT_MAX: Duration = Duration::from_secs(30);

/// What is done to a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Harm {
    KillWorker,
    StopWorker,
    LeaveWorker,
    CutWorker,
    KillHost,
    StopHost,
    CutHost,
}

/// One kind of harm, and how long streams paused for it.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Fault {
    pub(super) harm: Harm,
    pub(super) pauses_s: Vec<f64>,
    /// How streams ended that did not go on.
    pub(super) problems: Vec<String>,
}

impl Harm {
    pub(super) const ALL: [Self; 7] = [
        Self::KillWorker,
        Self::StopWorker,
        Self::LeaveWorker,
        Self::CutWorker,
        Self::KillHost,
        Self::StopHost,
        Self::CutHost,
    ];

    pub(super) fn label(self) -> &'static str {
        match self {
            Self::KillWorker => "a worker is killed (SIGKILL)",
            Self::StopWorker => "a worker falls silent (SIGSTOP)",
            Self::LeaveWorker => "a worker leaves (SIGTERM)",
            Self::CutWorker => "the cable of a worker is cut",
            Self::KillHost => "the host is killed; asked through another machine",
            Self::StopHost => "the host falls silent; asked through another machine",
            Self::CutHost => "the cable of the host is cut; asked through another machine",
        }
    }

    fn needs_links(self) -> bool {
        matches!(self, Self::CutWorker | Self::CutHost)
    }

    fn is_of_host(self) -> bool {
        matches!(self, Self::KillHost | Self::StopHost | Self::CutHost)
    }
}

impl Fault {
    pub(super) fn new(harm: Harm) -> Self {
        Self {
            harm,
            pauses_s: Vec::new(),
            problems: Vec::new(),
        }
    }

    pub(super) fn median_s(&self) -> Option<f64> {
        median(&self.pauses_s)
    }

    /// Measures once more; says it in a word.
    pub(super) fn measure(&mut self, machines: &Machines, wish: &Wish<'_>, round: usize) -> String {
        if self.harm.needs_links() && !machines.are_apart() {
            return "skipped".to_owned();
        }
        match pause(machines, wish, self.harm, round) {
            Ok(pause) => {
                self.pauses_s.push(pause.as_secs_f64());
                format!("a pause of {:.1} s", pause.as_secs_f64())
            }
            Err(error) => {
                let text = format!("{error:#}");
                self.problems.push(text.clone());
                text
            }
        }
    }
}

/// The longest time without a token from the harm on, of a stream that comes to its end.
fn pause(machines: &Machines, wish: &Wish<'_>, harm: Harm, round: usize) -> Result<Duration> {
    let wish = Wish {
        workers: WORKERS,
        gigabytes: None,
        ..*wish
    };
    let ring = Ring::start(machines, &wish)?;
    let busy = ring.first_worker()?;
    let mut others = ring.workers.iter().filter(|node| node.name != busy.name);
    let spare = others.next().context("there is no spare machine")?;
    let asked = if harm.is_of_host() {
        ring.is_known_to(spare)?;
        spare
    } else {
        &ring.host
    };
    let endpoint = ring.endpoint_at(asked);
    let prompt = Digits::for_round(round).take(TOKENS_BEFORE);
    let (begun, begins) = mpsc::channel();
    let (stream, harmed_at) = thread::scope(|scope| {
        let asking = scope.spawn(|| {
            machines.inside(asked.machine, || {
                endpoint.chat_with(&prompt, TOKENS, |pieces| {
                    if pieces == TOKENS_BEFORE {
                        // Nobody listens any more once the wait below has failed.
                        let _ = begun.send(());
                    }
                })
            })
        });
        let harmed = begins
            .recv_timeout(BEGIN_WAIT_MAX)
            .context("the stream does not begin")
            .and_then(|()| inflict(machines, harm, busy, &ring.host));
        let stream = asking
            .join()
            .map_err(|_| anyhow!("a client thread panicked"));
        (stream, harmed)
    });
    for machine in [busy.machine, ring.host.machine] {
        machines.rejoin(machine);
    }
    let (stream, harmed_at) = (stream??, harmed_at?);
    ring.end();
    let gap_ms = stream.longest_gap_ms(harmed_at);
    let gap_ms = gap_ms.context("the stream was over before the harm")?;
    ensure!(gap_ms.is_finite(), "the stream has no tokens");
    Ok(Duration::from_secs_f64(gap_ms / 1e3))
}

fn inflict(machines: &Machines, harm: Harm, worker: &Node, host: &Node) -> Result<Instant> {
    match harm {
        Harm::KillWorker => worker.program.signal("KILL")?,
        Harm::StopWorker => worker.program.signal("STOP")?,
        Harm::LeaveWorker => worker.program.signal("TERM")?,
        Harm::KillHost => host.program.signal("KILL")?,
        Harm::StopHost => host.program.signal("STOP")?,
        Harm::CutWorker | Harm::CutHost => {
            let cut = if harm.is_of_host() { host } else { worker };
            ensure!(machines.isolate(cut.machine), "the machines have no cables");
        }
    }
    Ok(Instant::now())
}
