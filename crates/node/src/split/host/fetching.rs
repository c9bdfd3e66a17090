//! Whether a machine that lacks a model's file is to fetch all of it, rather than that several fetch some layers each, and
//! for how long that is waited for. All of it runs faster and takes longer to come. Pure.

use std::ops::Range;
use std::time::Duration;

use mesh::NodeId;
use tokio::time::Instant;

use super::super::pool::Scene;
use super::making::Subject;

/// Bytes a second that weights are taken to come with: 100 Mbit/s. Nobody knows before they do.
const BYTES_PER_S: u64 = 12_500_000;

/// So long is waited for all of a model whatever a ring would take.
const SOON: Duration = Duration::from_secs(60);

/// All of a model may be so many times what a ring would fetch: a trip for each token costs more in a day than that.
const TIMES_MAX: u64 = 2;

/// What takes longer than this is not begun, and not waited for.
const LONGEST: Duration = Duration::from_secs(4 * 3_600);

/// A fetch may take so many times as long as is expected.
const SLOWER_MAX: u32 = 3;

/// What comes before a fetch: this machine reads its file for the hashes.
const BEFORE: Duration = Duration::from_secs(120);

/// How fast a fetch is shows after so long.
const RATED_AFTER: Duration = Duration::from_secs(30);

/// Why a machine that fetches too slowly is given up.
pub(super) const TOO_SLOW: &str = "it fetches the model too slowly";

/// What would have to come to machines that lack a model's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Transfer {
    /// The file, to the one that is to run all of it, bytes.
    whole_bytes: u64,
    /// Layers, to the machines of a ring, bytes. `None`: there is no room for one.
    split_bytes: Option<u64>,
}

impl Transfer {
    /// How long all of the model is expected to take.
    fn time(self) -> Duration {
        Duration::from_secs(self.whole_bytes / BYTES_PER_S)
    }

    /// Whether all of the model is to be fetched.
    pub(super) fn is_worth_it(self) -> bool {
        let is_soon = self.time() <= SOON;
        let is_little =
            |split_bytes: u64| self.whole_bytes <= split_bytes.saturating_mul(TIMES_MAX);
        self.time() <= LONGEST && (is_soon || self.split_bytes.is_none_or(is_little))
    }

    /// How long it may take.
    fn time_max(self) -> Duration {
        let slow = self.time().saturating_mul(SLOWER_MAX);
        slow.saturating_add(BEFORE).min(LONGEST)
    }
}

/// A fetch of another machine, as it says itself.
#[derive(Debug)]
pub(super) struct Headway {
    until: Instant,
    /// The first that it said.
    first: Option<(Instant, u8)>,
    /// The last, hundredths.
    percent: u8,
}

impl Headway {
    pub(super) fn new(transfer: Transfer, now: Instant) -> Self {
        Self {
            until: now + transfer.time_max(),
            first: None,
            percent: 0,
        }
    }

    /// When the file must be there; `None`: it is.
    pub(super) fn until(&self) -> Option<Instant> {
        (self.percent < 100).then_some(self.until)
    }

    /// It says how many hundredths are there.
    ///
    /// # Errors
    /// Why it is given up.
    pub(super) fn observe(&mut self, percent: u8, now: Instant) -> Result<(), &'static str> {
        if self.first.is_some() && percent <= self.percent {
            return Err("it says again how much of the model it has");
        }
        let (began, from) = *self.first.get_or_insert((now, percent));
        self.percent = percent;
        let took = now.saturating_duration_since(began);
        let (come, left) = (percent.saturating_sub(from), 100u8.saturating_sub(percent));
        if come == 0 || took < RATED_AFTER {
            return Ok(());
        }
        let rest = took.saturating_mul(left.into()) / u32::from(come);
        match rest <= self.until.saturating_duration_since(now) {
            true => Ok(()),
            false => Err(TOO_SLOW),
        }
    }
}

/// Bytes that machines of a ring have to fetch. `seats`: who has which layers, without the host.
fn lacked_bytes(
    seats: impl Iterator<Item = (NodeId, Range<u32>)>,
    has_file: impl Fn(NodeId) -> bool,
    weight_bytes: impl Fn(Range<u32>) -> u64,
) -> u64 {
    let lacking = seats.filter(|(node, _)| !has_file(*node));
    let bytes = lacking.map(|(_, layers)| weight_bytes(layers));
    bytes.fold(0, u64::saturating_add)
}

/// Whether a member says that the model of a scene is on its disk.
pub(super) fn has_file(scene: &Scene<'_>, node: NodeId) -> bool {
    let member = scene.view.member(node);
    member.is_some_and(|member| {
        let mut local = member.announcement().info.local.iter();
        local.any(|model| model.fingerprint == scene.fingerprint)
    })
}

impl Subject {
    /// What would have to come to other machines.
    pub(super) fn transfer(&self, scene: &Scene<'_>) -> Transfer {
        let whole_bytes = self.model.file_bytes();
        Transfer {
            whole_bytes: whole_bytes.unwrap_or(u64::MAX),
            split_bytes: self.split_bytes(scene),
        }
    }

    /// The same of a ring; `None`: there is no room for one.
    fn split_bytes(&self, scene: &Scene<'_>) -> Option<u64> {
        let start = self.first_plan(scene, false).ok()?.start;
        let share = self.share(scene, start).ok()?;
        let seats = share.seats.into_iter();
        Some(lacked_bytes(
            seats.map(|seat| (seat.node, seat.layers)),
            |node| has_file(scene, node),
            |layers| self.weight_bytes(layers),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GB: u64 = 1_000_000_000;

    fn transfer(whole_bytes: u64, split_bytes: Option<u64>) -> Transfer {
        Transfer {
            whole_bytes,
            split_bytes,
        }
    }

    #[test]
    fn all_of_a_model_is_fetched_if_it_comes_soon_or_is_not_much_more_than_its_layers() {
        let check = |whole: u64, split: Option<u64>, expected: bool| {
            let transfer = transfer(whole, split);
            assert_eq!(transfer.is_worth_it(), expected, "{transfer:?}");
        };
        // A minute at 100 Mbit/s, whatever a ring takes.
        check(0, Some(0), true);
        check(750_000_000, Some(0), true);
        check(763_000_000, Some(0), false);
        // An hour, where a ring takes so much.
        check(40 * GB, Some(20 * GB), true);
        check(40 * GB, Some(20 * GB - 1), false);
        check(40 * GB, Some(u64::MAX), true);
        // Where there is no ring at all an hour is better than nothing.
        check(40 * GB, None, true);
        check(180 * GB, None, true);
        check(181 * GB, None, false);
        check(u64::MAX, Some(u64::MAX), false);
    }

    #[test]
    fn a_fetch_may_take_some_times_what_is_expected() {
        let time_max = |bytes| transfer(bytes, None).time_max().as_secs();
        assert_eq!(time_max(0), 120);
        assert_eq!(time_max(10 * GB), 3 * 800 + 120);
        assert_eq!(time_max(u64::MAX), 14_400);
    }

    #[test]
    fn only_layers_of_machines_without_the_file_have_to_come() {
        let node = |number| NodeId::from_bytes([number; 32]);
        let seats = [(node(1), 0..4), (node(2), 4..5), (node(3), 5..8)];
        let bytes = lacked_bytes(
            seats.into_iter(),
            |asked| asked == node(2),
            |layers| u64::from(layers.end - layers.start) * 10,
        );
        assert_eq!(bytes, 70);
    }

    /// What becomes of a fetch of 10 GB that says these hundredths at these seconds: the second at which it is given up.
    fn given_up(says: &[(u64, u8)]) -> Option<u64> {
        let start = Instant::now();
        let mut headway = Headway::new(transfer(10 * GB, None), start);
        let mut says = says.iter();
        let ended = says.find(|(second, percent)| {
            let now = start + Duration::from_secs(*second);
            headway.observe(*percent, now).is_err()
        });
        ended.map(|(second, _)| *second)
    }

    #[test]
    fn a_machine_that_fetches_too_slowly_or_tells_nothing_new_is_given_up() {
        // 2,520 s are allowed.
        assert_eq!(
            given_up(&[(60, 1), (860, 50), (1_660, 99), (1_690, 100)]),
            None
        );
        // It begins slowly, which shows nothing.
        assert_eq!(given_up(&[(10, 1), (39, 2), (100, 40)]), None);
        assert_eq!(given_up(&[(10, 1), (40, 2)]), Some(40));
        assert_eq!(given_up(&[(10, 1), (400, 20), (1_400, 40)]), Some(1_400));
        // What was there before tells nothing of the speed.
        assert_eq!(given_up(&[(10, 90), (400, 95)]), None);
        for again in [0, 49, 50] {
            assert_eq!(given_up(&[(10, 50), (11, again)]), Some(11));
        }
    }

    #[test]
    fn what_is_there_is_loaded_without_haste() {
        let now = Instant::now();
        let mut headway = Headway::new(transfer(10 * GB, None), now);
        assert_eq!(headway.until(), Some(now + Duration::from_secs(2_520)));
        assert_eq!(headway.observe(99, now), Ok(()));
        assert!(headway.until().is_some());
        assert_eq!(headway.observe(100, now), Ok(()));
        assert_eq!(headway.until(), None);
    }
}
