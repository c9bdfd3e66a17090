//! What machines said of the ways between them when they were asked. Pure.

use std::collections::BTreeMap;
use std::time::Duration;

use mesh::NodeId;

use crate::wire::trips::TRIPS_MAX;

/// Ways that are remembered, each direction by itself: those of many plans. The ones that were asked about longest ago
/// go first.
const WAYS_MAX: usize = 1_024;

/// How long an answer counts. Machines seldom move; the way of their packets may.
const KEPT: Duration = Duration::from_secs(600);

/// After so long an answer is asked for anew, so that there is none that runs out while a ring runs.
const FRESH: Duration = Duration::from_secs(300);

/// After so long a machine that gave no answer is asked again: it may have been busy.
const AGAIN: Duration = Duration::from_secs(60);

/// Longest round trip that is believed, microseconds. Whoever is asked has given up before.
const US_MAX: u32 = 10_000_000;

/// Whether a round trip of so many microseconds can be a measured one.
pub(in crate::split) fn is_plausible(us: u32) -> bool {
    (1..=US_MAX).contains(&us)
}

/// The ways that were asked about, each from the machine that was asked. Times are those since any one moment.
#[derive(Debug, Default)]
pub(super) struct Table {
    ways: BTreeMap<(NodeId, NodeId), Way>,
}

#[derive(Debug, Clone, Copy)]
struct Way {
    /// When it was asked about last.
    asked: Duration,
    /// What was said, microseconds, and when.
    said: Option<(u32, Duration)>,
}

impl Table {
    /// Whom to ask about whom, so that of each pair one says how far the other is. A question about nobody is one of
    /// how far the machine that is asked is from here, `me`.
    pub(super) fn questions(
        &self,
        me: NodeId,
        pairs: &[(NodeId, NodeId)],
        now: Duration,
    ) -> BTreeMap<NodeId, Vec<NodeId>> {
        let mut questions: BTreeMap<NodeId, Vec<NodeId>> = BTreeMap::new();
        for &(one, other) in pairs {
            let ways = [(other, one), (one, other)];
            if one == other || ways.iter().any(|way| self.is_fresh(*way, now)) {
                continue;
            }
            if one == me || other == me {
                let peer = if one == me { other } else { one };
                if self.may_ask((me, peer), now) {
                    questions.entry(peer).or_default();
                }
                continue;
            }
            let asked = |node: &NodeId| questions.get(node).map_or(0, Vec::len);
            // The work is shared out. Where one end gave no answer, the other is asked.
            let way = ways
                .into_iter()
                .filter(|way| self.may_ask(*way, now) && asked(&way.0) < TRIPS_MAX)
                .min_by_key(|way| asked(&way.0));
            if let Some((from, to)) = way {
                questions.entry(from).or_default().push(to);
            }
        }
        questions
    }

    fn is_fresh(&self, way: (NodeId, NodeId), now: Duration) -> bool {
        let said = self.ways.get(&way).and_then(|way| way.said);
        said.is_some_and(|(_, at)| now.saturating_sub(at) < FRESH)
    }

    fn may_ask(&self, way: (NodeId, NodeId), now: Duration) -> bool {
        let known = self.ways.get(&way);
        known.is_none_or(|way| now.saturating_sub(way.asked) >= AGAIN)
    }

    /// Notes that `from` is asked how far `to` is.
    pub(super) fn asked(&mut self, from: NodeId, to: NodeId, now: Duration) {
        let new = Way {
            asked: now,
            said: None,
        };
        self.ways.entry((from, to)).or_insert(new).asked = now;
        while self.ways.len() > WAYS_MAX {
            let oldest = self.ways.iter().min_by_key(|(_, way)| way.asked);
            let Some(oldest) = oldest.map(|(ends, _)| *ends) else {
                break;
            };
            self.ways.remove(&oldest);
        }
    }

    /// Takes an answer, microseconds. One that nobody asked for, or that makes no sense, is none.
    pub(super) fn answered(&mut self, from: NodeId, to: NodeId, us: u32, now: Duration) {
        if let Some(way) = self.ways.get_mut(&(from, to))
            && is_plausible(us)
        {
            way.said = Some((us, now));
        }
    }

    /// How far `to` is from `from`, microseconds, as that one said not too long ago.
    pub(super) fn us(&self, from: NodeId, to: NodeId, now: Duration) -> Option<u32> {
        let (us, at) = self.ways.get(&(from, to))?.said?;
        (now.saturating_sub(at) < KEPT).then_some(us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: Duration = Duration::ZERO;
    const MOMENT: Duration = Duration::from_millis(1);

    fn node(number: usize) -> NodeId {
        let mut bytes = [0; 32];
        bytes[..8].copy_from_slice(&(number as u64).to_be_bytes());
        NodeId::from_bytes(bytes)
    }

    /// All pairs of machines 0, which asks, to `count` - 1.
    fn pairs(count: usize) -> Vec<(NodeId, NodeId)> {
        let with_smaller = |one: usize| (0..one).map(move |other| (node(one), node(other)));
        (0..count).flat_map(with_smaller).collect()
    }

    /// Asks all, as a host does; gives whom about whom.
    fn ask(table: &mut Table, pairs: &[(NodeId, NodeId)], now: Duration) -> Vec<(NodeId, NodeId)> {
        let questions = table.questions(node(0), pairs, now);
        let mut ways = Vec::new();
        for (from, about) in questions {
            table.asked(node(0), from, now);
            assert!(about.len() <= TRIPS_MAX);
            for to in about {
                table.asked(from, to, now);
                ways.push((from, to));
            }
        }
        ways
    }

    #[test]
    fn each_pair_is_asked_about_once_and_the_work_is_shared_out() {
        let table = Table::default();
        let questions = table.questions(node(0), &pairs(9), START);
        let asked: Vec<_> = questions.keys().copied().collect();
        assert_eq!(asked, (1..9).map(node).collect::<Vec<_>>());
        let most = questions.values().map(Vec::len).max();
        assert!(most <= Some(5), "{questions:?}");
        let mut ends: Vec<_> = questions
            .iter()
            .flat_map(|(from, about)| {
                let ends = |to: &NodeId| (*from.max(to), *from.min(to));
                about.iter().map(ends).collect::<Vec<_>>()
            })
            .collect();
        ends.sort();
        let mut wanted = pairs(9);
        wanted.retain(|(_, other)| *other != node(0));
        wanted.sort();
        assert_eq!(ends, wanted);
        let itself = [(node(1), node(1))];
        assert!(table.questions(node(0), &itself, START).is_empty());
    }

    #[test]
    fn the_way_from_here_is_asked_for_by_a_question_about_nobody() {
        let mut table = Table::default();
        let pair = [(node(0), node(1))];
        let wanted = BTreeMap::from([(node(1), Vec::new())]);
        assert_eq!(table.questions(node(0), &pair, START), wanted);
        assert!(ask(&mut table, &pair, START).is_empty());
        assert!(table.questions(node(0), &pair, MOMENT).is_empty());
        table.answered(node(0), node(1), 70, MOMENT);
        assert_eq!(table.us(node(0), node(1), MOMENT), Some(70));
        assert!(table.questions(node(0), &pair, AGAIN).is_empty());
    }

    #[test]
    fn answers_are_kept_for_a_while_and_asked_for_anew_before_they_run_out() {
        let mut table = Table::default();
        let pair = [(node(1), node(2))];
        let (from, to) = ask(&mut table, &pair, START)[0];
        assert_eq!(table.us(from, to, START), None);
        table.answered(from, to, 900, START);
        assert_eq!(table.us(from, to, KEPT - MOMENT), Some(900));
        assert_eq!(table.us(to, from, START), None);
        assert!(ask(&mut table, &pair, FRESH - MOMENT).is_empty());
        assert_eq!(ask(&mut table, &pair, FRESH).len(), 1);
        // The old answer counts until there is another one.
        assert_eq!(table.us(from, to, FRESH), Some(900));
        assert_eq!(table.us(from, to, KEPT), None);
    }

    #[test]
    fn who_gives_no_answer_is_left_alone_and_the_other_end_is_asked() {
        let mut table = Table::default();
        let pair = [(node(1), node(2))];
        let first = ask(&mut table, &pair, START);
        let second = ask(&mut table, &pair, START);
        assert_eq!(
            (first, second),
            (vec![(node(2), node(1))], vec![(node(1), node(2))])
        );
        assert!(ask(&mut table, &pair, AGAIN - MOMENT).is_empty());
        assert_eq!(ask(&mut table, &pair, AGAIN).len(), 1);
    }

    #[test]
    fn nonsense_is_no_answer() {
        let mut table = Table::default();
        let (from, to) = ask(&mut table, &[(node(1), node(2))], START)[0];
        for us in [0, US_MAX + 1, u32::MAX] {
            table.answered(from, to, us, START);
            assert_eq!(table.us(from, to, START), None, "{us}");
        }
        // Nobody asked for these.
        table.answered(to, from, 5, START);
        table.answered(from, node(3), 5, START);
        assert_eq!(table.us(to, from, START), None);
        assert_eq!(table.us(from, node(3), START), None);
        table.answered(from, to, US_MAX, START);
        assert_eq!(table.us(from, to, START), Some(US_MAX));
    }

    #[test]
    fn no_more_ways_are_kept_than_some() {
        let mut table = Table::default();
        let at = |number: usize| Duration::from_millis(number as u64);
        for number in 1..=WAYS_MAX + 1 {
            table.asked(node(0), node(number), at(number));
            table.answered(node(0), node(number), 7, at(number));
        }
        assert_eq!(table.ways.len(), WAYS_MAX);
        assert_eq!(table.us(node(0), node(1), at(WAYS_MAX)), None);
        assert_eq!(table.us(node(0), node(2), at(WAYS_MAX)), Some(7));
    }
}
