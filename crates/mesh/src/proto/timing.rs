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

/// Up to so many members the shortest of these holds.
const REFRESH_MEMBERS: u64 = 30;

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
    // With the square root of the size: a quiet mesh of ten times as many nodes then costs each of
    // them three times as much, and who joined when it was small renews in time.
    let (shortest, longest) = REFRESH_MS;
    let members = members as u64;
    (shortest * shortest * members / REFRESH_MEMBERS)
        .isqrt()
        .clamp(shortest, longest)
}

/// Renewals within the time that an announcement holds, of which all but one may be lost.
pub const RENEWALS: u64 = 4;

/// How long an announcement holds.
#[must_use]
pub fn ttl_ms(members: usize) -> u64 {
    (refresh_ms(members) * RENEWALS).clamp(TTL_MS_MIN, TTL_MS_MAX)
}

/// How long hashes of ordinary news wait for company: the more members there are, the more news there
/// is to keep them company, and the rarer each of them speaks.
#[must_use]
pub fn offer_ms(members: usize) -> u64 {
    let (shortest, longest) = super::OFFER_MS;
    (members as u64 * 5).clamp(shortest, longest)
}

/// Time between two comparisons of tables with a neighbour.
#[must_use]
pub fn compare_ms(members: usize) -> u64 {
    (members as u64 * 100).clamp(COMPARE_MS.0, COMPARE_MS.1)
}

/// The longest time until a former member is dialled again: the mesh as a whole looks for it about
/// every ten seconds, whatever its size, until that time is ten minutes.
#[must_use]
pub fn seek_again_ms(members: usize) -> u64 {
    let (shortest, longest) = super::SEEK_AGAIN_MS;
    (members as u64 * super::SEEK_MS).clamp(shortest, longest)
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
