//! Filling the stages of a ring that are new, when others still remember what the ring before has evaluated: only
//! the new ones compute, on the rows that those in front of them have kept.
//!
//! A frame that replays goes round the whole ring like any other. Stages that remember pass it on without
//! values, unless the next one is new: then they put in the rows that they sent before.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use mesh::NodeId;
use tokio::time::{Instant, timeout_at};

use super::handle::{Ring, RingError};
use super::ledger::Ledger;
use crate::trail::Trail;
use crate::wire::{CacheOp, OPS_MAX, Outcome, Places};

/// Rows of one call. Large ones compute fast, and the last bits of few rows depend on it.
const ROWS_MAX: u32 = 256;

/// What outlives a ring: what its workers remember, and the rows that went to the first of them.
#[derive(Debug)]
pub struct Memory {
    /// Epochs in which that came about.
    pub(super) epochs: Vec<u32>,
    /// Workers that remember all of it.
    pub(super) nodes: BTreeSet<NodeId>,
    pub(super) ledger: Ledger,
    pub(super) trail: Trail,
}

impl Memory {
    /// As [`Ring::hold`].
    pub fn hold(&mut self, held: &mut [u32]) {
        for (sequence, held) in (0..).zip(held) {
            self.ledger.cut(sequence, *held);
            *held = self.ledger.certain(sequence).min(*held);
        }
    }

    /// As [`Ring::copy`], of a ring that is not there: the copy is forgotten with all that waits.
    pub fn copy(&mut self, from: u32, to: u32, tokens: u32) {
        self.ledger.copy(from, to, tokens);
    }

    /// As [`Ring::cut`], of a ring that is not there.
    pub fn cut(&mut self, sequence: u32, from: u32) {
        self.ledger.cut(sequence, from);
    }

    pub(super) fn settle(&mut self) {
        self.ledger.settle();
        for sequence in 0..self.ledger.sequences() {
            self.trail.cut(sequence, self.ledger.length(sequence));
        }
    }
}

/// A step on the way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Piece {
    /// A sequence begins like another one, which comes before it.
    Copy { from: u32, to: u32, tokens: u32 },
    /// Positions of a sequence.
    Rows { sequence: u32, from: u32, end: u32 },
}

/// The way from a ring that has been raised to one that holds what the ring before held.
#[derive(Debug)]
pub struct Replay {
    fresh: Places,
    /// What goes with the next frame, in front of its rows.
    ops: Vec<CacheOp>,
    pieces: VecDeque<Piece>,
    /// The sequence of each frame in flight, if it has rows.
    in_flight: VecDeque<Option<u32>>,
    /// Sequences whose rows somebody lacks, or has no room for.
    lost: BTreeSet<u32>,
    rows: u64,
}

impl Replay {
    /// Stages that had to be filled.
    #[must_use]
    pub fn filled(&self) -> u32 {
        self.fresh.0.count_ones()
    }

    /// Rows that they were filled with.
    #[must_use]
    pub fn rows(&self) -> u64 {
        self.rows
    }

    fn new(fresh: Places, ledger: &Ledger) -> Self {
        let cuts = (0..ledger.sequences()).map(|sequence| CacheOp::Cut {
            sequence,
            from: ledger.length(sequence),
        });
        let mut ops: Vec<_> = cuts.collect();
        let mut pieces = VecDeque::new();
        if fresh != Places::default() {
            ops.extend([CacheOp::Replay { fresh }, CacheOp::Clear]);
            pieces = pieces_of(ledger);
        }
        Self {
            fresh,
            ops,
            pieces,
            in_flight: VecDeque::new(),
            lost: BTreeSet::new(),
            rows: 0,
        }
    }

    /// Goes on for about so long. True: all is done, and [`Ring::adopt`] follows.
    ///
    /// # Errors
    /// [`RingError::Lost`].
    pub async fn advance(
        &mut self,
        ring: &mut Ring,
        memory: &Memory,
        pause: Duration,
    ) -> Result<bool, RingError> {
        let until = Instant::now() + pause;
        loop {
            while self.in_flight.len() < ring.depth() && self.send(ring, memory).await? {}
            let Some(&sequence) = self.in_flight.front() else {
                return Ok(true);
            };
            let Ok(frame) = timeout_at(until, ring.next()).await else {
                return Ok(false);
            };
            self.in_flight.pop_front();
            if frame?.outcome == Outcome::NoRoom {
                self.lost.extend(sequence);
            }
        }
    }

    /// Sends the next frame. False: there is none.
    async fn send(&mut self, ring: &mut Ring, memory: &Memory) -> Result<bool, RingError> {
        while let Some(piece) = self.pieces.pop_front() {
            match piece {
                Piece::Copy { from, to, tokens } if self.lost.contains(&from) => {
                    let (sequence, from, end) = (to, 0, tokens);
                    self.pieces.push_front(Piece::Rows {
                        sequence,
                        from,
                        end,
                    });
                }
                Piece::Copy { from, to, tokens } => {
                    self.push(CacheOp::Copy { from, to, tokens });
                    if self.ops.len() >= OPS_MAX as usize {
                        break;
                    }
                }
                Piece::Rows { sequence, .. } if self.lost.contains(&sequence) => {}
                Piece::Rows {
                    sequence,
                    from,
                    end,
                } => {
                    let here = end.min(from + ring.plan().rows_max.min(ROWS_MAX));
                    if here < end {
                        let from = here;
                        self.pieces.push_front(Piece::Rows {
                            sequence,
                            from,
                            end,
                        });
                    }
                    if self.send_rows(ring, memory, sequence, from..here).await? {
                        return Ok(true);
                    }
                }
            }
        }
        if self.ops.is_empty() {
            return Ok(false);
        }
        let ops = std::mem::take(&mut self.ops);
        ring.send(ops, Vec::new(), Vec::new(), Vec::new()).await?;
        self.in_flight.push_back(None);
        Ok(true)
    }

    /// Operations for the new stages.
    fn push(&mut self, op: CacheOp) {
        self.replays();
        self.ops.push(op);
    }

    /// What follows is for the new stages.
    fn replays(&mut self) {
        let replay = CacheOp::Replay { fresh: self.fresh };
        if !self.ops.contains(&replay) {
            self.ops.push(replay);
        }
    }

    /// False: this machine has not kept them.
    async fn send_rows(
        &mut self,
        ring: &mut Ring,
        memory: &Memory,
        sequence: u32,
        positions: std::ops::Range<u32>,
    ) -> Result<bool, RingError> {
        let number = |value: u32| i32::try_from(value).unwrap_or(i32::MAX);
        let positions: Vec<_> = positions.map(number).collect();
        let sequences = vec![number(sequence); positions.len()];
        let hidden = match self.fresh.has(0) {
            true => memory.trail.rows(&positions, &sequences),
            false => Some(Vec::new()),
        };
        let Some(hidden) = hidden else {
            self.lost.insert(sequence);
            return Ok(false);
        };
        self.replays();
        self.rows += positions.len() as u64;
        let ops = std::mem::take(&mut self.ops);
        ring.send(ops, positions, sequences, hidden).await?;
        self.in_flight.push_back(Some(sequence));
        Ok(true)
    }
}

/// What is to be sent, each sequence behind those that it shares its beginning with.
fn pieces_of(ledger: &Ledger) -> VecDeque<Piece> {
    let mut pieces = VecDeque::new();
    let mut left: Vec<u32> = (0..ledger.sequences())
        .filter(|sequence| ledger.length(*sequence) > 0)
        .collect();
    while !left.is_empty() {
        let shared = |sequence: u32| {
            let (of, tokens) = ledger.shared(sequence)?;
            let tokens = tokens.min(ledger.length(of)).min(ledger.length(sequence));
            (tokens > 0).then_some((of, tokens))
        };
        let waits = |sequence: &u32| shared(*sequence).is_some_and(|(of, _)| left.contains(&of));
        // Two can't have their beginning from each other; should they, one goes alone.
        let at = left.iter().position(|sequence| !waits(sequence));
        let is_circle = at.is_none();
        let sequence = left.remove(at.unwrap_or(0));
        let (mut from, end) = (0, ledger.length(sequence));
        if let Some((of, tokens)) = shared(sequence).filter(|_| !is_circle) {
            pieces.push_back(Piece::Copy {
                from: of,
                to: sequence,
                tokens,
            });
            from = tokens;
        }
        if from < end {
            pieces.push_back(Piece::Rows {
                sequence,
                from,
                end,
            });
        }
    }
    pieces
}

impl Ring {
    /// What outlives it. Whatever is in flight is lost.
    #[must_use]
    pub fn into_memory(self) -> Memory {
        let nodes = self.plan().workers.iter().map(|seat| seat.node).collect();
        let epochs = vec![self.plan().epoch];
        let (ledger, trail) = self.into_parts();
        let mut memory = Memory {
            epochs,
            nodes,
            ledger,
            trail,
        };
        memory.settle();
        memory
    }

    /// Begins to bring a ring that has just been raised to where the one before stood. Until
    /// [`adopt`](Self::adopt), nothing else goes through it. Should it break meanwhile, `memory` is good for
    /// the next one.
    pub fn restore(&mut self, memory: &mut Memory) -> Replay {
        memory.settle();
        memory.ledger.mark_recurrent(self.ledger().is_recurrent());
        let remembered = self.remembered().to_vec();
        let nodes: Vec<NodeId> = self.plan().workers.iter().map(|seat| seat.node).collect();
        let is_fresh = |(node, epoch): (&NodeId, &Option<u32>)| {
            let knows = epoch.is_some_and(|epoch| memory.epochs.contains(&epoch));
            !knows || !memory.nodes.contains(node)
        };
        let fresh: Vec<bool> = nodes.iter().zip(&remembered).map(is_fresh).collect();
        let places = (0..).zip(&fresh).filter(|(_, fresh)| **fresh);
        let places: Places = places.map(|(place, _)| place).collect();
        let whole = nodes.iter().zip(&fresh).filter(|(_, fresh)| !**fresh);
        memory.nodes = whole.map(|(node, _)| *node).collect();
        memory.epochs.push(self.plan().epoch);
        self.forget_ops();
        Replay::new(places, &memory.ledger)
    }

    /// Takes over what the ring before held, when the replay is done.
    pub fn adopt(&mut self, replay: Replay, mut memory: Memory) {
        for sequence in replay.lost {
            memory.ledger.cut(sequence, 0);
        }
        memory.settle();
        // What was cut meanwhile goes here, too.
        for sequence in 0..memory.ledger.sequences() {
            let from = memory.ledger.length(sequence);
            self.push_op(CacheOp::Cut { sequence, from });
        }
        self.take_over(memory.ledger, memory.trail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sequences_follow_those_they_begin_like() {
        let mut ledger = Ledger::new(4, false);
        let rows = |ledger: &mut Ledger, sequence: i32, range: std::ops::Range<i32>| {
            let positions: Vec<_> = range.collect();
            ledger.rows(&positions, &vec![sequence; positions.len()]);
            ledger.sent();
            ledger.returned(true);
        };
        rows(&mut ledger, 2, 0..5);
        ledger.copy(2, 0, 4);
        rows(&mut ledger, 0, 4..6);
        ledger.copy(0, 3, 6);
        ledger.sent();
        ledger.returned(true);
        let pieces: Vec<_> = pieces_of(&ledger).into();
        let rows = |sequence, from, end| Piece::Rows {
            sequence,
            from,
            end,
        };
        let copy = |from, to, tokens| Piece::Copy { from, to, tokens };
        let wanted = [rows(2, 0, 5), copy(2, 0, 4), rows(0, 4, 6), copy(0, 3, 6)];
        assert_eq!(pieces, wanted);
    }
}
