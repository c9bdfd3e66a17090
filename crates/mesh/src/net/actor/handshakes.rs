//! Owns the places of connections that are being let in: how many there are, and who loses his to a
//! newcomer.
//!
//! Strangers who say nothing must keep nobody out. Their keys and ports cost them nothing, so they
//! are told apart by where they come from, and nobody is refused: when all places are taken, the
//! origin that has most of them loses its oldest. So one address may hold all places only as long as
//! nobody else wants one, and whoever says what he is to say needs his for moments only.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};

use iroh::endpoint::IncomingAddr;
use tokio::sync::oneshot;

/// Connections that are being let in at once: a mesh that comes back to a restarted member, with
/// room for silent strangers. Each costs memory and cryptography.
pub(super) const HANDSHAKES_MAX: usize = 128;

/// What is said to who lost his place.
pub(crate) const CROWDED: &str = "others wait to be let in";

/// Where a connection comes from, as far as its sender can't choose that freely.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Origin {
    /// An IPv4 address.
    V4(Ipv4Addr),
    /// The first half of an IPv6 address: whoever has one address of such a network has all.
    V6([u16; 4]),
    /// Through a relay, whichever: its addresses are keys, which cost nothing.
    Relayed,
}

impl Origin {
    pub(super) fn of(address: &IncomingAddr) -> Self {
        match address {
            IncomingAddr::Ip(address) => address.ip().into(),
            _ => Self::Relayed,
        }
    }
}

impl From<IpAddr> for Origin {
    fn from(ip: IpAddr) -> Self {
        match ip.to_canonical() {
            IpAddr::V4(ip) => Self::V4(ip),
            IpAddr::V6(ip) => {
                let [a, b, c, d, ..] = ip.segments();
                Self::V6([a, b, c, d])
            }
        }
    }
}

/// A connection that is being let in.
struct Waiting {
    origin: Origin,
    /// Dropped to take the place away; closed once the place was given back.
    mark: oneshot::Sender<()>,
}

/// All of them, the oldest first; at most [`HANDSHAKES_MAX`].
#[derive(Default)]
pub(super) struct Handshakes {
    waiting: Vec<Waiting>,
}

impl Handshakes {
    /// A place for a newcomer, which another one may lose for it.
    pub(super) fn enter(&mut self, origin: Origin) -> Place {
        self.waiting.retain(|waiting| !waiting.mark.is_closed());
        if self.waiting.len() >= HANDSHAKES_MAX {
            let origins: Vec<Origin> = self.waiting.iter().map(|one| one.origin).collect();
            if let Some(index) = loser(&origins, origin) {
                let lost = self.waiting.remove(index);
                tracing::debug!(from = ?lost.origin, "a connection that was being let in makes way for another");
            }
        }
        let (mark, kept) = oneshot::channel();
        self.waiting.push(Waiting { origin, mark });
        Place(kept)
    }
}

/// Which of those that wait, the oldest first, makes way for a newcomer: the oldest of the origin
/// that has most, the newcomer counted.
fn loser(waiting: &[Origin], newcomer: Origin) -> Option<usize> {
    let mut counts: BTreeMap<Origin, usize> = BTreeMap::new();
    for origin in waiting.iter().chain([&newcomer]) {
        *counts.entry(*origin).or_default() += 1;
    }
    let most = counts.values().max()?;
    waiting
        .iter()
        .position(|origin| counts.get(origin) == Some(most))
}

/// A place among the connections that are being let in. Dropping it gives it back.
pub(crate) struct Place(oneshot::Receiver<()>);

impl Place {
    /// Does `work` for as long as the place is held; `None` once it was taken away, and then the
    /// place is of no use any more.
    pub(crate) async fn hold<T>(&mut self, work: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            // What was done in the same moment counts.
            biased;
            done = work => Some(done),
            _ = &mut self.0 => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot::error::TryRecvError;

    use super::*;

    fn v4(last: u8) -> Origin {
        IpAddr::from([10, 0, 0, last]).into()
    }

    fn is_held(place: &mut Place) -> bool {
        place.0.try_recv() == Err(TryRecvError::Empty)
    }

    #[test]
    fn the_oldest_of_the_origin_with_most_places_makes_way() {
        let check = |waiting: &[u8], newcomer: u8, expected: Option<usize>| {
            let origins: Vec<Origin> = waiting.iter().map(|last| v4(*last)).collect();
            let found = loser(&origins, v4(newcomer));
            assert_eq!(found, expected, "{waiting:?} and {newcomer}");
        };
        check(&[], 1, None);
        check(&[1, 2, 3], 4, Some(0));
        check(&[1, 2, 2, 3], 4, Some(1));
        check(&[1, 1, 2, 2, 2], 1, Some(0));
        check(&[2, 1, 1, 2], 3, Some(0));
        // A newcomer does not make way for others of its origin at their cost.
        check(&[1, 2, 3], 3, Some(2));
        check(&[1, 1, 2, 2], 2, Some(2));
    }

    #[test]
    fn an_origin_is_what_its_owner_can_not_choose_freely() {
        let origin = |ip: &str| -> Origin { ip.parse::<IpAddr>().unwrap().into() };
        assert_ne!(origin("10.0.0.1"), origin("10.0.0.2"));
        assert_eq!(origin("10.0.0.1"), origin("::ffff:10.0.0.1"));
        assert_eq!(origin("2001:db8:1:2::1"), origin("2001:db8:1:2:ffff::2"));
        assert_ne!(origin("2001:db8:1:2::1"), origin("2001:db8:1:3::1"));
        let address = "10.0.0.1:9".parse().unwrap();
        assert_eq!(Origin::of(&IncomingAddr::Ip(address)), v4(1));
    }

    #[test]
    fn a_newcomer_always_finds_a_place() {
        let mut handshakes = Handshakes::default();
        let mut silent: Vec<Place> = (0..HANDSHAKES_MAX)
            .map(|_| handshakes.enter(v4(1)))
            .collect();
        // One that was given back costs nobody his.
        drop(silent.remove(5));
        let mut first = handshakes.enter(v4(2));
        assert!(silent.iter_mut().all(is_held));
        // Now each costs the oldest of the many his, also where it is one of them itself.
        let mut second = handshakes.enter(v4(3));
        let mut third = handshakes.enter(v4(1));
        let held: Vec<bool> = silent.iter_mut().map(is_held).collect();
        assert_eq!(held[..3], [false, false, true]);
        assert!(held[3..].iter().all(|held| *held));
        for place in [&mut first, &mut second, &mut third] {
            assert!(is_held(place));
        }
        assert_eq!(handshakes.waiting.len(), HANDSHAKES_MAX);
    }

    #[tokio::test]
    async fn work_ends_with_the_place() {
        let mut handshakes = Handshakes::default();
        let mut place = handshakes.enter(Origin::Relayed);
        assert_eq!(place.hold(async { 7 }).await, Some(7));
        drop(handshakes);
        assert_eq!(place.hold(std::future::pending::<u8>()).await, None);
    }
}
