//! Several frames in flight: what becomes of them when a stage has no room, or a machine goes.

use std::sync::atomic::Ordering;
use std::time::Duration;

use split::layers::Layers;
use split::ring::{Ring, RingError};
use tokio::time::timeout;

use crate::fake::{Batch, Sums, plan, whole};
use crate::net::{Link, node};
use crate::rig::Rig;

/// Receives the oldest frame, which gives what the whole gives.
async fn same(ring: &mut Ring, whole: &mut Sums, batch: &Batch) {
    let (mut got, mut wanted) = (Vec::new(), Vec::new());
    ring.receive(&mut got).await.unwrap();
    whole.run(&batch.rows(), &mut wanted).unwrap();
    assert_eq!(got, wanted);
}

#[tokio::test(start_paused = true)]
async fn rows_behind_others_that_found_no_room_find_none_either() {
    for workers in 1..=3 {
        let rig = Rig::new(workers);
        let plan = plan(1, 1, workers);
        // Those before the last one have room, and keep the rows until they are cut.
        let last = rig.fakes.last().unwrap();
        last.cells.store(30, Ordering::SeqCst);
        let mut ring = rig.raise(&plan).await.unwrap();
        let mut whole = whole(&plan);
        let mut out = Vec::new();
        let first = Batch::new(0, 0, 10);
        let other = Batch::new(1, 0, 5);
        let behind = Batch::new(1, 5, 1);
        ring.submit(&first.rows()).await.unwrap();
        same(&mut ring, &mut whole, &first).await;
        // Too many rows, one that follows them, and a copy of what is there.
        ring.submit(&Batch::new(0, 10, 21).rows()).await.unwrap();
        ring.submit(&Batch::new(0, 31, 1).rows()).await.unwrap();
        ring.copy(0, 2, 10).await.unwrap();
        let copied = Batch::new(2, 10, 2);
        ring.submit(&copied.rows()).await.unwrap();
        for _ in 0..2 {
            assert_eq!(ring.receive(&mut out).await, Err(RingError::NoRoom));
        }
        whole.copy(0, 2, 10).unwrap();
        same(&mut ring, &mut whole, &copied).await;
        // The sequence goes on where it was cut.
        ring.cut(0, 10).await.unwrap();
        ring.cut(2, 0).await.unwrap();
        whole.cut(2, 0).unwrap();
        let again = Batch::new(0, 10, 1);
        for batch in [&again, &other, &behind] {
            ring.submit(&batch.rows()).await.unwrap();
        }
        for batch in [&again, &other, &behind] {
            same(&mut ring, &mut whole, batch).await;
        }
        rig.end(ring).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_copy_of_rows_that_are_missing_is_missing_too() {
    let rig = Rig::new(2);
    let mut plan = plan(1, 1, 2);
    plan.kv_tokens = 30;
    let mut ring = rig.raise(&plan).await.unwrap();
    let mut whole = whole(&plan);
    let mut out = Vec::new();
    ring.submit(&Batch::new(0, 0, 31).rows()).await.unwrap();
    ring.copy(0, 1, 31).await.unwrap();
    ring.submit(&Batch::new(1, 31, 1).rows()).await.unwrap();
    // Cut where rows are still missing: they stay missing.
    ring.cut(0, 20).await.unwrap();
    ring.submit(&Batch::new(0, 20, 1).rows()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ring.receive(&mut out).await, Err(RingError::NoRoom));
    }
    ring.clear().await.unwrap();
    let batches = [Batch::new(0, 0, 9), Batch::new(1, 0, 9)];
    for batch in &batches {
        ring.submit(&batch.rows()).await.unwrap();
    }
    for batch in &batches {
        same(&mut ring, &mut whole, batch).await;
    }
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn rows_that_share_a_frame_with_refused_ones_are_missing_too() {
    let rig = Rig::new(2);
    let plan = plan(1, 1, 2);
    rig.fakes[1].cells.store(30, Ordering::SeqCst);
    let mut ring = rig.raise(&plan).await.unwrap();
    let mut out = Vec::new();
    ring.submit(&Batch::new(0, 0, 31).rows()).await.unwrap();
    let (mut both, other) = (Batch::new(0, 31, 1), Batch::new(1, 0, 2));
    both.hidden.extend(&other.hidden);
    both.positions.extend(&other.positions);
    both.sequences.extend(&other.sequences);
    ring.submit(&both.rows()).await.unwrap();
    ring.submit(&Batch::new(1, 2, 1).rows()).await.unwrap();
    for _ in 0..3 {
        assert_eq!(ring.receive(&mut out).await, Err(RingError::NoRoom));
    }
    let mut whole = whole(&plan);
    ring.cut(0, 0).await.unwrap();
    ring.cut(1, 0).await.unwrap();
    ring.submit(&other.rows()).await.unwrap();
    same(&mut ring, &mut whole, &other).await;
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn nobody_waits_for_frames_that_were_forgotten() {
    let rig = Rig::new(3);
    let plan = plan(1, 1, 3);
    let mut ring = rig.raise(&plan).await.unwrap();
    let mut whole = whole(&plan);
    assert_eq!(ring.depth(), ring.frames_max() - 1);
    for position in 0..ring.depth() as i32 {
        ring.submit(&Batch::new(0, position, 1).rows())
            .await
            .unwrap();
    }
    ring.clear().await.unwrap();
    let batch = Batch::new(0, 0, 3);
    ring.submit(&batch.rows()).await.unwrap();
    same(&mut ring, &mut whole, &batch).await;
    assert!(ring.trip().computing <= ring.trip().total);
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_goes_takes_everything_in_flight_along() {
    for gone in 1..=3 {
        let rig = Rig::new(3);
        let mut ring = rig.raise(&plan(1, 1, 3)).await.unwrap();
        let mut out = Vec::new();
        for sequence in 0..4 {
            let batch = Batch::new(sequence, 0, 2);
            ring.run(&batch.rows(), &mut out).await.unwrap();
        }
        rig.net.set(gone, Link::Frozen);
        for sequence in 0..4 {
            let batch = Batch::new(sequence, 2, 2);
            ring.submit(&batch.rows()).await.unwrap();
        }
        rig.net.set(gone, Link::Cut);
        let lost = async {
            loop {
                if let Err(error) = ring.receive(&mut out).await {
                    return error;
                }
            }
        };
        let lost = timeout(Duration::from_secs(1), lost)
            .await
            .expect("it hangs");
        let RingError::Lost(loss) = lost else {
            panic!("{lost:?}");
        };
        assert_eq!(loss.suspect, Some(node(gone)), "{loss}");
        assert!(matches!(ring.clear().await, Err(RingError::Lost(_))));
        tokio::time::sleep(Duration::from_secs(31)).await;
        rig.assert_free().await;
    }
}
