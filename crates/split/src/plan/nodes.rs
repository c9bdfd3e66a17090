//! Machines as a user describes them, `128G,64G/400@5ms`: memory, bandwidth in GB/s, round trip. For
//! plans without a mesh.

use std::time::Duration;

use thiserror::Error;

use super::candidate::{CANDIDATES_MAX, Candidate, Pool, PoolError};
use super::speed::{Speed, SpeedError};

/// Bandwidth of a machine that does not say: a desktop with two channels of DDR5, GB/s.
pub const BANDWIDTH_GB_S_DEFAULT: f64 = 100.0;

/// Round trip to a machine that does not say: a local network.
pub const ROUND_TRIP_DEFAULT: Duration = Duration::from_millis(1);

/// One machine of the list.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NodeSpec {
    /// Memory for the model, bytes.
    pub memory_bytes: u64,
    /// Bandwidth of that memory, GB/s.
    pub bandwidth_gb_s: f64,
    /// How far it is from every other machine. Of two machines, the farther one counts.
    pub round_trip: Duration,
}

/// Why a list can't be read.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum NodesError {
    /// No machine, or one without text.
    #[error("a machine is missing in {list:?}; hint: list memory sizes, as in 128G,64G@5ms")]
    Empty {
        /// The list.
        list: String,
    },
    /// More than can be planned.
    #[error("{count} machines are more than the {CANDIDATES_MAX} that a plan looks at")]
    TooMany {
        /// How many.
        count: usize,
    },
    /// Not a size.
    #[error(
        "{text:?} is no memory size; hint: write 64G or 1.5T for binary units, 64GB for decimal ones"
    )]
    Memory {
        /// The text.
        text: String,
    },
    /// Not a bandwidth.
    #[error(
        "{text:?} is no bandwidth in GB/s; hint: write 64G/400 for memory that reads 400 GB a second"
    )]
    Bandwidth {
        /// The text.
        text: String,
    },
    /// Not a round trip.
    #[error("{text:?} is no round trip; hint: write 64G@5ms or 64G@300us")]
    RoundTrip {
        /// The text.
        text: String,
    },
}

/// Reads a list of machines.
///
/// # Errors
/// [`NodesError`], with the part that can't be read.
pub fn parse(list: &str) -> Result<Vec<NodeSpec>, NodesError> {
    let count = list.split(',').count();
    if count > CANDIDATES_MAX {
        return Err(NodesError::TooMany { count });
    }
    list.split(',')
        .map(|text| node(text.trim(), list))
        .collect()
}

/// The machines as a pool, numbered from 1.
///
/// # Errors
/// [`SpeedError`] when a bandwidth that was not read from a list makes no sense.
pub fn pool(nodes: &[NodeSpec]) -> Result<Pool<u32>, SpeedError> {
    let numbered = || (1u32..).zip(nodes);
    let candidates = numbered().map(|(id, node)| {
        Ok(Candidate {
            id,
            memory_bytes: node.memory_bytes,
            speed: Speed::from_bandwidth(node.bandwidth_gb_s * 1e9)?,
            has_weights: false,
        })
    });
    let candidates = candidates.collect::<Result<Vec<_>, _>>()?;
    let linked = || -> Result<Pool<u32>, PoolError<u32>> {
        let mut pool = Pool::new(candidates.iter().copied())?;
        for (a, from) in numbered() {
            for (b, to) in numbered().skip(a as usize) {
                pool.link(a, b, from.round_trip.max(to.round_trip))?;
            }
        }
        Ok(pool)
    };
    // Numbers are unique, and every link is between two of them.
    Ok(linked().unwrap_or_else(|error| unreachable!("{error}")))
}

fn node(text: &str, list: &str) -> Result<NodeSpec, NodesError> {
    if text.is_empty() {
        let list = list.to_owned();
        return Err(NodesError::Empty { list });
    }
    let (rest, round_trip) = match text.split_once('@') {
        Some((rest, time)) => (rest, parse_round_trip(time)?),
        None => (text, ROUND_TRIP_DEFAULT),
    };
    let (memory, bandwidth_gb_s) = match rest.split_once('/') {
        Some((memory, bandwidth)) => (memory, parse_bandwidth(bandwidth)?),
        None => (rest, BANDWIDTH_GB_S_DEFAULT),
    };
    Ok(NodeSpec {
        memory_bytes: parse_memory(memory)?,
        bandwidth_gb_s,
        round_trip,
    })
}

/// A number and the unit behind it.
fn number(text: &str) -> Option<(f64, &str)> {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    let value: f64 = text[..end].parse().ok()?;
    value.is_finite().then(|| (value, text[end..].trim()))
}

fn parse_memory(text: &str) -> Result<u64, NodesError> {
    let bad = || NodesError::Memory {
        text: text.to_owned(),
    };
    let (value, unit) = number(text.trim()).ok_or_else(bad)?;
    let unit_bytes = match unit.to_ascii_lowercase().as_str() {
        // Memory comes in binary units, whatever the box says.
        "m" | "mib" => 1024f64.powi(2),
        "g" | "gib" => 1024f64.powi(3),
        "t" | "tib" => 1024f64.powi(4),
        "mb" => 1e6,
        "gb" => 1e9,
        "tb" => 1e12,
        _ => return Err(bad()),
    };
    let bytes = value * unit_bytes;
    // The largest machine has some terabytes.
    if !(1.0..=1e16).contains(&bytes) {
        return Err(bad());
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 1 and 1e16"
    )]
    Ok(bytes as u64)
}

fn parse_bandwidth(text: &str) -> Result<f64, NodesError> {
    let bad = || NodesError::Bandwidth {
        text: text.to_owned(),
    };
    let (value, unit) = number(text.trim()).ok_or_else(bad)?;
    let known = ["", "gb/s", "gbps", "gb"].contains(&unit.to_ascii_lowercase().as_str());
    // Below 1 MB/s and above 1 PB/s is a slip of the pen.
    if !known || !(1e-3..=1e6).contains(&value) {
        return Err(bad());
    }
    Ok(value)
}

fn parse_round_trip(text: &str) -> Result<Duration, NodesError> {
    let bad = || NodesError::RoundTrip {
        text: text.to_owned(),
    };
    let (value, unit) = number(text.trim()).ok_or_else(bad)?;
    let seconds = match unit.to_ascii_lowercase().as_str() {
        "us" | "µs" => value / 1e6,
        "ms" => value / 1e3,
        "s" => value,
        _ => return Err(bad()),
    };
    // A minute is longer than any link that still works.
    if seconds > 60.0 {
        return Err(bad());
    }
    Duration::try_from_secs_f64(seconds).map_err(|_| bad())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(list: &str, wanted: &[(f64, f64, u64)]) {
        let nodes = parse(list).unwrap();
        let found: Vec<_> = nodes
            .iter()
            .map(|node| {
                let gib = node.memory_bytes as f64 / f64::from(1 << 30);
                (gib, node.bandwidth_gb_s, node.round_trip.as_micros() as u64)
            })
            .collect();
        assert_eq!(found, wanted, "{list}");
    }

    #[test]
    fn lists_are_read() {
        check("128G", &[(128.0, 100.0, 1000)]);
        check("128G,64G@5ms", &[(128.0, 100.0, 1000), (64.0, 100.0, 5000)]);
        check(
            " 1.5T/400@300us , 512M ",
            &[(1536.0, 400.0, 300), (0.5, 100.0, 1000)],
        );
        check("64GiB/273.5GB/s@0ms", &[(64.0, 273.5, 0)]);
        assert_eq!(parse("64GB").unwrap()[0].memory_bytes, 64_000_000_000);
    }

    #[test]
    fn the_bad_part_is_named() {
        for (list, part) in [
            ("", "missing"),
            ("64G,", "missing"),
            ("64", "\"64\" is no memory"),
            ("G", "\"G\" is no memory"),
            ("-1G", "\"-1G\" is no memory"),
            ("0G", "\"0G\" is no memory"),
            ("1e9G", "\"1e9G\" is no memory"),
            ("99999999T", "no memory"),
            ("64G/", "\"\" is no bandwidth"),
            ("64G/0", "\"0\" is no bandwidth"),
            ("64G/fast", "\"fast\" is no bandwidth"),
            ("64G@", "\"\" is no round trip"),
            ("64G@5", "\"5\" is no round trip"),
            ("64G@90000ms", "no round trip"),
            ("64G@1.2.3ms", "no round trip"),
        ] {
            let error = parse(list).unwrap_err().to_string();
            assert!(error.contains(part), "{list}: {error}");
            assert!(error.contains("hint: "), "{error}");
        }
        let many = vec!["1G"; CANDIDATES_MAX + 1].join(",");
        assert_eq!(
            parse(&many),
            Err(NodesError::TooMany {
                count: CANDIDATES_MAX + 1
            })
        );
    }

    #[test]
    fn the_farther_of_two_machines_counts() {
        let pool = pool(&parse("8G,8G@5ms,8G@20ms").unwrap()).unwrap();
        for (a, b, ms) in [(1, 2, 5), (1, 3, 20), (2, 3, 20), (3, 1, 20)] {
            assert_eq!(pool.round_trip(a, b), Some(Duration::from_millis(ms)));
        }
    }

    proptest::proptest! {
        #[test]
        fn nothing_that_is_typed_panics(list in ".{0,40}") {
            if let Ok(nodes) = parse(&list) {
                proptest::prop_assert!(pool(&nodes).is_ok());
            }
        }
    }
}
