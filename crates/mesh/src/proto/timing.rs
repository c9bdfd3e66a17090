//! Owns how often things are said, by the size of the mesh. Pure.
//!
//! Everybody receives what everybody announces. Were the interval fixed, each node's traffic would
//! grow with the mesh; as it grows with the mesh itself, traffic stays nearly the same.

use crate::announcement::{TTL_MS_MAX, TTL_MS_MIN};

/// Announcements of changed load that the mesh as a whole makes in a second, at most: ten of 600
/// bytes are 6 kB/s, which a slow home connection carries beside its work.
const ANNOUNCEMENTS_PER_SECOND: u64 = 10;

/// Shortest time between two announcements that nothing urgent causes.
const ROUTINE_MS_MIN: u64 = 5_000;

/// Shortest and longest time between two announcements when nothing changes at all.
const REFRESH_MS: (u64, u64) = (60_000, 420_000);

/// Shortest and longest time between two comparisons of tables with a neighbour.
const COMPARE_MS: (u64, u64) = (10_000, 30_000);

/// Time between announcements of load, memory and rates in a mesh of `members`.
#[must_use]
pub fn routine_ms(members: usize) -> u64 {
    (members as u64 * 1000 / ANNOUNCEMENTS_PER_SECOND).max(ROUTINE_MS_MIN)
}

/// Time after which an unchanged announcement is renewed.
#[must_use]
pub fn refresh_ms(members: usize) -> u64 {
    (routine_ms(members) * 3).clamp(REFRESH_MS.0, REFRESH_MS.1)
}

/// How long an announcement holds: four refreshes, so that three may be lost.
#[must_use]
pub fn ttl_ms(members: usize) -> u64 {
    (refresh_ms(members) * 4).clamp(TTL_MS_MIN, TTL_MS_MAX)
}

/// Time between two comparisons of tables with a neighbour.
#[must_use]
pub fn compare_ms(members: usize) -> u64 {
    (members as u64 * 100).clamp(COMPARE_MS.0, COMPARE_MS.1)
}

/// What the pulls of `clients` should leave between two of them.
#[must_use]
pub fn pull_ms(clients: usize) -> u64 {
    (clients as u64 * 1000 / super::PULLS_PER_SECOND).clamp(super::PULL_MS, super::PULL_MS_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mesh_as_a_whole_says_no_more_when_it_grows() {
        for members in [50, 100, 1_000, 4_096] {
            let per_second = members as f64 * 1000.0 / routine_ms(members) as f64;
            assert!(
                per_second <= ANNOUNCEMENTS_PER_SECOND as f64,
                "{members}: {per_second}"
            );
        }
    }

    #[test]
    fn an_announcement_outlives_lost_refreshes() {
        for members in [0, 1, 10, 1_000, 4_096] {
            assert!(ttl_ms(members) >= 3 * refresh_ms(members), "{members}");
            assert!(
                (TTL_MS_MIN..=TTL_MS_MAX).contains(&ttl_ms(members)),
                "{members}"
            );
        }
    }
}
