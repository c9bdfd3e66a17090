//! Meshes to begin with, and the bounds that all properties share.

use mesh::sim::{IDLE_MS, Quality, Settings, Simulation};

/// How soon news that is passed on at once is known to a mesh of at most a hundred nodes.
pub(crate) const SPREAD_MS: u64 = 3_000;

/// The same where messages are lost: what the tree loses is asked for, or found when tables are compared.
pub(crate) const SPREAD_ROUGH_MS: u64 = 40_000;

/// How soon a dead node is in no table any more, as ARCHITECTURE.md says.
pub(crate) const DEATH_MS: u64 = IDLE_MS + mesh::proto::DEAD_AFTER_MS + SPREAD_MS;

/// A simulated network.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Weather {
    Clear,
    /// In twenty messages one is lost, one doubled, one late.
    Rough,
}

impl Weather {
    pub(crate) fn quality(self) -> Quality {
        match self {
            Self::Clear => Quality::default(),
            Self::Rough => Quality::rough(0.05),
        }
    }

    pub(crate) fn spread_ms(self) -> u64 {
        match self {
            Self::Clear => SPREAD_MS,
            Self::Rough => SPREAD_ROUGH_MS,
        }
    }
}

/// A mesh that nobody has joined for a minute, and that agrees.
pub(crate) fn settled(nodes: usize, weather: Weather, seed: u64) -> Simulation {
    let mut simulation = Simulation::new(Settings {
        quality: weather.quality(),
        ..Settings::new(seed)
    });
    simulation.grow(nodes, 50);
    simulation.run_for(60_000);
    assert!(
        simulation.agree(),
        "{nodes} nodes, {weather:?}, seed {seed}: no agreement"
    );
    simulation
}

/// What holds at the end of every run.
pub(crate) fn check_bounds(simulation: &Simulation) {
    let peaks = simulation.peaks();
    assert!(peaks.are_bounded(), "{peaks:?}");
    assert_eq!(simulation.faults(), &[] as &[String]);
}

/// Runs for `ms` and fails as soon as `holds` does not, which is asked every 100 ms.
pub(crate) fn always(
    simulation: &mut Simulation,
    ms: u64,
    what: &str,
    mut holds: impl FnMut(&mut Simulation) -> bool,
) {
    let broken = simulation.run_until(ms, |sim| !holds(sim));
    assert!(
        broken.is_none(),
        "{what}: not so after {} ms",
        broken.unwrap_or(0)
    );
}

/// Runs until `done` and fails if that takes longer than `ms_max`. Says how long it took.
pub(crate) fn within(
    simulation: &mut Simulation,
    ms_max: u64,
    what: &str,
    done: impl FnMut(&mut Simulation) -> bool,
) -> u64 {
    let took = simulation.run_until(ms_max, done);
    assert!(took.is_some(), "{what}: not within {ms_max} ms");
    took.unwrap()
}
