//! Every plan there is, for small inputs: what the planner must not be worse than.

use std::time::Duration;

use split::plan::{HOP_OVERHEAD, ModelShape, Pool, ROUND_TRIP_MAX, Request, Room};

/// Fewest machines that suffice, and the least seconds a token with so many.
pub(crate) fn best(
    model: &ModelShape,
    pool: &Pool<usize>,
    bandwidths: &[f64],
    request: &Request<usize>,
) -> Option<(usize, f64)> {
    let places: Vec<usize> = (0..bandwidths.len()).collect();
    let first = if request.force_split { 2 } else { 1 };
    (first..=places.len()).find_map(|count| {
        let mut least: Option<f64> = None;
        each_order(&places, count, &mut Vec::new(), &mut |order| {
            if request.host.is_some_and(|host| order.last() != Some(&host)) {
                return;
            }
            let Some(delay) = delay(pool, order) else {
                return;
            };
            each_share(model, count, &mut vec![0], &mut |ends| {
                if let Some(time) = compute(model, pool, bandwidths, request, order, ends) {
                    let total = time + delay;
                    least = Some(least.map_or(total, |best| best.min(total)));
                }
            });
        });
        Some((count, least?))
    })
}

fn each_order(
    places: &[usize],
    count: usize,
    order: &mut Vec<usize>,
    visit: &mut impl FnMut(&[usize]),
) {
    if order.len() == count {
        return visit(order);
    }
    for &place in places {
        if !order.contains(&place) {
            order.push(place);
            each_order(places, count, order, visit);
            order.pop();
        }
    }
}

fn each_share(
    model: &ModelShape,
    count: usize,
    ends: &mut Vec<u32>,
    visit: &mut impl FnMut(&[u32]),
) {
    let last = *ends.last().unwrap();
    if ends.len() == count {
        ends.push(model.layer_count());
        visit(ends);
        ends.pop();
        return;
    }
    for &cut in model.parts().cuts.iter().filter(|cut| **cut > last) {
        ends.push(cut);
        each_share(model, count, ends, visit);
        ends.pop();
    }
}

fn delay(pool: &Pool<usize>, order: &[usize]) -> Option<f64> {
    if order.len() == 1 {
        return Some(0.0);
    }
    for &a in order {
        for &b in order {
            if a != b && pool.round_trip(a, b)? > ROUND_TRIP_MAX {
                return None;
            }
        }
    }
    let hops = (0..order.len()).map(|at| {
        let next = order[(at + 1) % order.len()];
        let half = pool.round_trip(order[at], next).unwrap() / 2;
        half + HOP_OVERHEAD
    });
    Some(hops.sum::<Duration>().as_secs_f64())
}

fn compute(
    model: &ModelShape,
    pool: &Pool<usize>,
    bandwidths: &[f64],
    request: &Request<usize>,
    order: &[usize],
    ends: &[u32],
) -> Option<f64> {
    let parts = model.parts();
    let room = Room {
        context_tokens: request.context_tokens,
        sequences: request.sequences.max(1),
    };
    let mut time = 0.0;
    for (at, &place) in order.iter().enumerate() {
        let layers = &parts.layers[ends[at] as usize..ends[at + 1] as usize];
        let host = at + 1 == order.len();
        let mut weights: u64 = layers.iter().map(|layer| layer.weight_bytes).sum();
        let mut active: u64 = layers.iter().map(|layer| layer.active_bytes).sum();
        if host {
            weights += parts.embedding_bytes + parts.head_bytes;
            active += parts.head_active_bytes;
        }
        let kv: u64 = layers.iter().map(|layer| layer.kv_bytes(room)).sum();
        let memory = pool.candidates()[place].memory_bytes;
        if u128::from(weights) * 11 + u128::from(kv) * 10 > u128::from(memory) * 10 {
            return None;
        }
        time += active as f64 / bandwidths[place];
    }
    Some(time)
}
