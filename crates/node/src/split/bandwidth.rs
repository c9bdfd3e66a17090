//! How fast this machine reads weights, whatever the model: a pass over more memory than caches hold, with as
//! many threads as inference has.

use std::hint::black_box;
use std::time::Instant;

/// More than most processors cache; reading it takes 10 ms on a desktop.
const BYTES: usize = 256 << 20;

/// Passes, of which the fastest counts: the others were disturbed.
const PASSES: usize = 6;

/// Most threads; beyond, memory is the limit whatever comes.
const THREADS_MAX: u32 = 256;

/// Memory that is larger than the caches.
pub(super) struct Field(Vec<u64>);

impl Field {
    /// Takes the memory, and touches all of it.
    pub(super) fn new() -> Self {
        Self(vec![1; BYTES / size_of::<u64>()])
    }

    /// Reads all of it once, so that nothing else is left in the caches.
    pub(super) fn read(&self, threads: u32) {
        let threads = threads.clamp(1, THREADS_MAX) as usize;
        let part = self.0.len().div_ceil(threads);
        std::thread::scope(|scope| {
            for part in self.0.chunks(part) {
                scope.spawn(move || black_box(sum(part)));
            }
        });
    }

    /// Bytes a second.
    #[expect(clippy::cast_precision_loss, reason = "three digits are plenty")]
    pub(super) fn bytes_per_s(&self, threads: u32) -> f64 {
        let pass = |_| {
            let began = Instant::now();
            self.read(threads);
            BYTES as f64 / began.elapsed().as_secs_f64().max(1e-9)
        };
        (0..PASSES).map(pass).fold(0.0, f64::max)
    }
}

/// Reads memory as fast as it comes: several sums side by side, which the compiler makes vectors of.
fn sum(numbers: &[u64]) -> u64 {
    let (chunks, rest) = numbers.as_chunks::<32>();
    let mut sums = [0u64; 32];
    for chunk in chunks {
        for (sum, number) in sums.iter_mut().zip(chunk) {
            *sum = sum.wrapping_add(*number);
        }
    }
    let rest = rest
        .iter()
        .fold(0u64, |sum, number| sum.wrapping_add(*number));
    sums.iter()
        .fold(rest, |sum, number| sum.wrapping_add(*number))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_of_the_memory_is_read() {
        let numbers: Vec<u64> = (0..1_003).collect();
        assert_eq!(sum(&numbers), 1_003 * 1_002 / 2);
        assert_eq!(sum(&[]), 0);
        let bytes_per_s = Field::new().bytes_per_s(2);
        // Any machine, and no cache.
        assert!((1e8..1e13).contains(&bytes_per_s), "{bytes_per_s}");
    }
}
