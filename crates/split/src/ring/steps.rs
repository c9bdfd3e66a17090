//! Tells steps of single streams apart from others, and times them.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use crate::pace::Steps;
use crate::wire::{Frame, Outcome};

/// No tail takes so long for one token: nobody wanted one meanwhile, or its reader did not read.
const HERE_MAX: Duration = Duration::from_secs(10);

/// A row that came back alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Row {
    sequence: i32,
    position: i32,
    returned: Instant,
}

/// Sees frames come back in their order.
#[derive(Debug)]
pub(super) struct StepClock {
    steps: Arc<Mutex<Steps>>,
    last: Option<Row>,
}

impl StepClock {
    pub(super) fn new(steps: Arc<Mutex<Steps>>) -> Self {
        Self { steps, last: None }
    }

    /// A frame was sent and is back. It is a step of one stream if its only row follows that of the frame
    /// before, and left after that was back.
    pub(super) fn observe(&mut self, frame: &Frame, sent: Instant, returned: Instant) {
        if frame.replay().is_some() {
            self.last = None;
            return;
        }
        let (&[sequence], &[position]) = (&*frame.sequences, &*frame.positions) else {
            // Operations alone are no step, and do not hide one.
            if !frame.positions.is_empty() || frame.outcome == Outcome::NoRoom {
                self.last = None;
            }
            return;
        };
        let row = Row {
            sequence,
            position,
            returned,
        };
        let Some(last) = self.last.replace(row) else {
            return;
        };
        let follows = last.sequence == sequence && last.position.checked_add(1) == Some(position);
        let Some(here) = sent.checked_duration_since(last.returned) else {
            return;
        };
        if !follows || here > HERE_MAX {
            return;
        }
        let mut steps = self.steps.lock().unwrap_or_else(PoisonError::into_inner);
        steps.count = steps.count.saturating_add(1);
        steps.here = steps.here.saturating_add(here);
        steps.away = steps.away.saturating_add(returned.duration_since(sent));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rows as (sequence, position), when they left, and when they were back, ms.
    type Trip<'a> = (&'a [(i32, i32)], u64, u64);

    /// Counted steps, and the time here and away.
    #[track_caller]
    fn check(frames: &[Trip<'_>], wanted: (u64, u64, u64)) {
        let steps = Arc::new(Mutex::new(Steps::default()));
        let mut clock = StepClock::new(Arc::clone(&steps));
        let began = Instant::now();
        let at = |ms: u64| began + Duration::from_millis(ms);
        for (rows, sent, returned) in frames {
            let frame = Frame {
                epoch: 1,
                number: 0,
                ops: Vec::new(),
                outcome: Outcome::Rows,
                busy_us: 0,
                positions: rows.iter().map(|row| row.1).collect(),
                sequences: rows.iter().map(|row| row.0).collect(),
                hidden: Vec::new(),
            };
            clock.observe(&frame, at(*sent), at(*returned));
        }
        let got = *steps.lock().unwrap();
        let ms = |time: Duration| u64::try_from(time.as_millis()).unwrap();
        assert_eq!((got.count, ms(got.here), ms(got.away)), wanted);
    }

    #[test]
    fn only_steps_of_one_stream_count() {
        let prompt: &[_] = &[(0, 0), (0, 1)];
        check(
            &[(prompt, 0, 50), (&[(0, 2)], 60, 80), (&[(0, 3)], 85, 105)],
            (1, 5, 20),
        );
        // Operations alone change nothing; several rows do.
        check(
            &[
                (&[(0, 2)], 0, 20),
                (&[], 21, 22),
                (&[(0, 3)], 25, 45),
                (prompt, 50, 60),
                (&[(0, 4)], 61, 70),
            ],
            (1, 5, 20),
        );
        // Two streams in turns, one that was under way already, another position, a pause.
        check(
            &[(&[(0, 2)], 0, 20), (&[(1, 3)], 25, 45), (&[(0, 3)], 50, 70)],
            (0, 0, 0),
        );
        check(&[(&[(0, 2)], 0, 20), (&[(0, 3)], 15, 45)], (0, 0, 0));
        check(&[(&[(0, 2)], 0, 20), (&[(0, 9)], 25, 45)], (0, 0, 0));
        check(
            &[(&[(0, 2)], 0, 20), (&[(0, 3)], 20_000, 20_020)],
            (0, 0, 0),
        );
        check(&[(&[(0, i32::MAX)], 0, 20), (&[(0, 3)], 25, 45)], (0, 0, 0));
    }
}
