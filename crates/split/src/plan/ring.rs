//! The order of machines around the ring: which of them is the host, and who pushes to whom.

/// Members up to which every order is tried: 120 of them. Beyond, the shortest cycle is found first
/// and every member of it tried as host.
const EXHAUSTIVE_MAX: usize = 5;

/// One order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ring {
    /// Attoseconds of all hops.
    pub(super) delay: u128,
    /// Workers from the first layers on, then the host.
    pub(super) order: Vec<usize>,
}

/// Orders of the members, nearest first. `hop` gives the attoseconds from one member to another.
pub(super) fn rings(
    members: &[usize],
    host: Option<usize>,
    hop: &impl Fn(usize, usize) -> u128,
) -> Vec<Ring> {
    let orders = if members.len() <= EXHAUSTIVE_MAX {
        permutations(members)
    } else {
        turns(&shortest_cycle(members, hop))
    };
    let mut rings: Vec<Ring> = orders
        .into_iter()
        .filter(|order| host.is_none() || order.last().copied() == host)
        .map(|order| Ring {
            delay: delay(&order, hop),
            order,
        })
        .collect();
    rings.sort_by(|a, b| (a.delay, &a.order).cmp(&(b.delay, &b.order)));
    rings
}

fn delay(order: &[usize], hop: &impl Fn(usize, usize) -> u128) -> u128 {
    let next = order.iter().cycle().skip(1);
    order
        .iter()
        .zip(next)
        .map(|(&from, &to)| hop(from, to))
        .sum()
}

fn permutations(members: &[usize]) -> Vec<Vec<usize>> {
    let mut orders = vec![Vec::new()];
    for _ in members {
        let longer = orders.iter().flat_map(|order: &Vec<usize>| {
            let rest = members.iter().filter(|member| !order.contains(member));
            rest.map(|&member| [order.as_slice(), &[member]].concat())
        });
        orders = longer.collect();
    }
    orders
}

/// A cycle in every rotation, both ways round.
fn turns(cycle: &[usize]) -> Vec<Vec<usize>> {
    let backward: Vec<usize> = cycle.iter().rev().copied().collect();
    let rotations = |cycle: &[usize]| {
        let mut orders = Vec::new();
        for first in 0..cycle.len() {
            orders.push([&cycle[first..], &cycle[..first]].concat());
        }
        orders
    };
    [rotations(cycle), rotations(&backward)].concat()
}

/// The cycle with the least delay, by Held and Karp: for each set of members and each last one of
/// them, the shortest way from the first through the set. 8 members take 8² × 2⁷ steps.
fn shortest_cycle(members: &[usize], hop: &impl Fn(usize, usize) -> u128) -> Vec<usize> {
    let count = members.len() - 1;
    let (first, others) = (members[0], &members[1..]);
    let mut least = vec![vec![(u128::MAX, usize::MAX); count]; 1 << count];
    for (last, &member) in others.iter().enumerate() {
        least[1 << last][last] = (hop(first, member), usize::MAX);
    }
    for set in 1..1usize << count {
        for last in (0..count).filter(|last| set & (1 << last) != 0) {
            let so_far = least[set][last].0;
            for next in (0..count).filter(|next| set & (1 << next) == 0) {
                let longer = so_far.saturating_add(hop(others[last], others[next]));
                let place = &mut least[set | (1 << next)][next];
                *place = (*place).min((longer, last));
            }
        }
    }
    let mut set = (1 << count) - 1;
    let way_back = |&last: &usize| least[set][last].0.saturating_add(hop(others[last], first));
    let mut last = (0..count).min_by_key(way_back).unwrap_or(0);
    let mut cycle = vec![first];
    while set != 0 {
        cycle.push(others[last]);
        let before = least[set][last].1;
        set &= !(1 << last);
        last = before;
    }
    cycle
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Machines on a line, so that the shortest cycle is twice its length.
    fn line(a: usize, b: usize) -> u128 {
        a.abs_diff(b) as u128
    }

    #[test]
    fn the_nearest_order_comes_first() {
        for members in [
            vec![4, 0, 2],
            vec![7, 1, 3, 0, 9, 4],
            vec![5, 2, 8, 1, 9, 3, 0, 6],
        ] {
            let rings = rings(&members, None, &line);
            let length = (members.iter().max().unwrap() - members.iter().min().unwrap()) as u128;
            assert_eq!(rings[0].delay, 2 * length, "{members:?}");
            for ring in &rings {
                let mut sorted = ring.order.clone();
                sorted.sort_unstable();
                let mut wanted = members.clone();
                wanted.sort_unstable();
                assert_eq!(sorted, wanted);
            }
        }
    }

    #[test]
    fn a_wanted_host_is_last() {
        for count in 2..=7 {
            let members: Vec<usize> = (0..count).collect();
            let rings = rings(&members, Some(1), &line);
            assert!(!rings.is_empty());
            assert!(rings.iter().all(|ring| ring.order.last() == Some(&1)));
        }
    }
}
