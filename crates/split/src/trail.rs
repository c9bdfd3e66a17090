//! Rows that a stage, or the host, has passed on. While they are kept, the stage behind can be another machine
//! tomorrow without anybody in front computing them again. Pure.
//!
//! All trails of a machine share one [`TrailRoom`]. What finds no room is not kept, and whoever needs it then is
//! given the rows from the beginning, as if there were no trail.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// Most bytes that a machine keeps rows in: 8,192 rows of a model that is 8,192 wide.
pub const TRAIL_BYTES_MAX: u64 = 256 << 20;

/// A trail takes no more than this part of the memory that a machine gives.
const TRAIL_SHARE: u64 = 16;

/// Room for rows on one machine.
#[derive(Debug)]
pub struct TrailRoom {
    bytes_max: AtomicU64,
    bytes: AtomicU64,
}

impl TrailRoom {
    /// Room for so many bytes of rows.
    #[must_use]
    pub fn new(bytes_max: u64) -> Self {
        Self {
            bytes_max: AtomicU64::new(bytes_max),
            bytes: AtomicU64::new(0),
        }
    }

    /// Room on a machine that gives so much memory in all.
    #[must_use]
    pub(crate) fn beside(budget_bytes: u64) -> Self {
        Self::new((budget_bytes / TRAIL_SHARE).min(TRAIL_BYTES_MAX))
    }

    /// The machine gives another amount; what is kept stays.
    pub(crate) fn set_beside(&self, budget_bytes: u64) {
        let bytes_max = (budget_bytes / TRAIL_SHARE).min(TRAIL_BYTES_MAX);
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
    }

    /// Bytes of rows that are kept.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    fn take(&self, bytes: u64) -> bool {
        let bytes_max = self.bytes_max.load(Ordering::Relaxed);
        let more = |now: u64| Some(now + bytes).filter(|all| *all <= bytes_max);
        let taken = self
            .bytes
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, more);
        taken.is_ok()
    }

    fn give_back(&self, bytes: u64) {
        self.bytes.fetch_sub(bytes, Ordering::Relaxed);
    }
}

/// A row that knows where its room is from. Sequences with a common beginning share rows.
#[derive(Debug)]
struct Row {
    values: Box<[f32]>,
    room: Arc<TrailRoom>,
}

impl Drop for Row {
    fn drop(&mut self) {
        self.room.give_back(size_of_val(&*self.values) as u64);
    }
}

/// The rows of each sequence from position 0 on.
#[derive(Debug)]
pub(crate) struct Trail {
    width: usize,
    room: Arc<TrailRoom>,
    lines: Vec<Vec<Arc<Row>>>,
}

impl Trail {
    pub(crate) fn new(room: Arc<TrailRoom>, width: u32, sequences: u32) -> Self {
        Self {
            width: width as usize,
            room,
            lines: (0..sequences).map(|_| Vec::new()).collect(),
        }
    }

    /// Rows were passed on. Those that do not follow what is kept of their sequence are not kept.
    pub(crate) fn push(&mut self, positions: &[i32], sequences: &[i32], hidden: &[f32]) {
        let rows = hidden.chunks_exact(self.width.max(1));
        for ((&position, &sequence), values) in positions.iter().zip(sequences).zip(rows) {
            let Some(line) = self.lines.get_mut(sequence.unsigned_abs() as usize) else {
                continue;
            };
            if line.len() != position.unsigned_abs() as usize {
                continue;
            }
            if !self.room.take(size_of_val(values) as u64) {
                // A beginning alone serves nobody, and its room may serve another sequence.
                line.clear();
                continue;
            }
            line.push(Arc::new(Row {
                values: values.into(),
                room: Arc::clone(&self.room),
            }));
        }
    }

    /// As [`Layers::copy`](crate::layers::Layers::copy).
    pub(crate) fn copy(&mut self, from: u32, to: u32, tokens: u32) {
        let Some(line) = self.lines.get(from as usize).filter(|_| from != to) else {
            return;
        };
        let beginning = line[..line.len().min(tokens as usize)].to_vec();
        if let Some(line) = self.lines.get_mut(to as usize) {
            *line = beginning;
        }
    }

    /// As [`Layers::cut`](crate::layers::Layers::cut).
    pub(crate) fn cut(&mut self, sequence: u32, from: u32) {
        if let Some(line) = self.lines.get_mut(sequence as usize) {
            line.truncate(from as usize);
        }
    }

    pub(crate) fn clear(&mut self) {
        self.lines.iter_mut().for_each(Vec::clear);
    }

    /// The rows once more, one after the other; `None` if one of them is not kept.
    pub(crate) fn rows(&self, positions: &[i32], sequences: &[i32]) -> Option<Vec<f32>> {
        let mut hidden = Vec::with_capacity(positions.len() * self.width);
        for (&position, &sequence) in positions.iter().zip(sequences) {
            let line = self.lines.get(usize::try_from(sequence).ok()?)?;
            let row = line.get(usize::try_from(position).ok()?)?;
            hidden.extend_from_slice(&row.values);
        }
        Some(hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Room for five rows of two elements.
    fn trail() -> (Arc<TrailRoom>, Trail) {
        let room = Arc::new(TrailRoom::new(40));
        (Arc::clone(&room), Trail::new(room, 2, 3))
    }

    #[test]
    fn rows_come_back_in_any_order() {
        let (_, mut trail) = trail();
        trail.push(&[0, 1, 0], &[0, 0, 1], &[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]);
        let rows = trail.rows(&[0, 1], &[1, 0]).unwrap();
        assert_eq!(rows, [5.0, 6.0, 3.0, 4.0]);
        for (position, sequence) in [(2, 0), (0, 2), (-1, 0), (0, 3), (0, -1)] {
            assert_eq!(trail.rows(&[position], &[sequence]), None);
        }
        trail.cut(0, 1);
        assert_eq!(trail.rows(&[1], &[0]), None);
        assert_eq!(trail.rows(&[0], &[0]).unwrap(), [1.0, 2.0]);
    }

    #[test]
    fn rows_behind_a_gap_are_not_kept() {
        let (room, mut trail) = trail();
        trail.push(&[1], &[0], &[1.0, 2.0]);
        assert_eq!((trail.rows(&[1], &[0]), room.bytes()), (None, 0));
    }

    #[test]
    fn copies_share_their_rows_and_the_last_one_frees_them() {
        let (room, mut trail) = trail();
        trail.push(&[0, 1], &[0, 0], &[1.0, 2.0, 3.0, 4.0]);
        trail.copy(0, 1, 2);
        trail.copy(0, 2, 1);
        assert_eq!(room.bytes(), 16);
        trail.cut(0, 0);
        assert_eq!(
            (room.bytes(), trail.rows(&[1], &[1]).unwrap()),
            (16, vec![3.0, 4.0])
        );
        trail.cut(1, 0);
        assert_eq!(room.bytes(), 8);
        drop(trail);
        assert_eq!(room.bytes(), 0);
    }

    #[test]
    fn a_sequence_without_room_is_given_up_as_a_whole() {
        let (room, mut trail) = trail();
        trail.push(&[0, 1, 2], &[0; 3], &[0.5; 6]);
        trail.push(&[0, 1, 2], &[1; 3], &[0.5; 6]);
        assert_eq!((trail.rows(&[0], &[1]), room.bytes()), (None, 24));
        trail.push(&[3], &[0], &[0.5; 2]);
        assert!(trail.rows(&[0, 1, 2, 3], &[0; 4]).is_some());
    }
}
