//! Machines that go, hang or give nonsense: the host is told, soon, and knows whom to suspect.

use std::time::Duration;

use split::fault::Loss;
use split::ring::{RaiseError, Ring, RingError, RingPlan};
use tokio::time::{Instant, timeout};

use crate::fake::{Batch, Trouble, plan};
use crate::net::{Link, node};
use crate::rig::Rig;

/// Runs rows until the ring is lost; so long it may take.
pub(crate) async fn lose(ring: &mut Ring, limit: Duration) -> Loss {
    let mut out = Vec::new();
    let lose = async {
        for position in 0..50 {
            match ring.run(&Batch::new(0, position, 1).rows(), &mut out).await {
                Ok(()) => {}
                Err(RingError::Lost(loss)) => return loss,
                Err(error) => panic!("{error}"),
            }
        }
        panic!("the ring is not lost");
    };
    timeout(limit, lose).await.expect("it hangs")
}

async fn warmed_up(rig: &Rig) -> Ring {
    let mut ring = rig.raise(&plan(1, 1, 3)).await.unwrap();
    let mut out = Vec::new();
    for position in 0..4 {
        let batch = Batch::new(3, position, 1);
        ring.run(&batch.rows(), &mut out).await.unwrap();
    }
    // Signs of life come now and then.
    tokio::time::sleep(Duration::from_secs(2)).await;
    ring
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_goes_is_noticed_at_once() {
    for gone in 1..=3 {
        let rig = Rig::new(3);
        let mut ring = warmed_up(&rig).await;
        rig.net.set(gone, Link::Cut);
        let began = Instant::now();
        let loss = lose(&mut ring, Duration::from_secs(1)).await;
        assert_eq!(loss.suspect, Some(node(gone)), "{loss}");
        assert!(began.elapsed() < Duration::from_millis(500));
        // Also by whoever only watches, and ever after.
        assert_eq!(ring.watch().lost().await, Some(loss.clone()));
        assert_eq!(ring.clear().await, Err(RingError::Lost(loss)));
        // Those that live keep their stage for the rest of the lease, then they are free.
        tokio::time::sleep(Duration::from_secs(31)).await;
        rig.assert_free().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_is_silent_is_given_up_in_seconds() {
    for silent in 1..=3 {
        let rig = Rig::new(3);
        let mut ring = warmed_up(&rig).await;
        rig.net.set(silent, Link::Frozen);
        let loss = lose(&mut ring, Duration::from_secs(6)).await;
        assert_eq!(loss.suspect, Some(node(silent)), "{loss}");
        tokio::time::sleep(Duration::from_secs(40)).await;
        rig.assert_free().await;
    }
}

#[tokio::test(start_paused = true)]
async fn layers_that_give_nonsense_are_noticed_where_they_are() {
    let troubles = [
        Trouble::WrongSize,
        Trouble::NotANumber,
        Trouble::Panic,
        Trouble::Error,
    ];
    for trouble in troubles {
        for bad in 1..=3 {
            let rig = Rig::new(3);
            let mut ring = warmed_up(&rig).await;
            rig.fakes[usize::from(bad) - 1].trouble(6, trouble);
            let loss = lose(&mut ring, Duration::from_secs(1)).await;
            assert_eq!(loss.suspect, Some(node(bad)), "{trouble:?}: {loss}");
            tokio::time::sleep(Duration::from_secs(31)).await;
            rig.assert_free().await;
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_ring_notices_too() {
    let rig = Rig::new(2);
    let ring = rig.raise(&plan(1, 1, 2)).await.unwrap();
    let mut watch = ring.watch();
    tokio::time::sleep(Duration::from_secs(300)).await;
    rig.net.set(2, Link::Frozen);
    let lost = timeout(Duration::from_secs(6), watch.lost()).await.unwrap();
    assert_eq!(lost.unwrap().suspect, Some(node(2)));
}

#[tokio::test(start_paused = true)]
async fn a_ring_does_not_stand_without_all_its_workers() {
    let rig = Rig::new(3);
    rig.net.set(2, Link::Cut);
    let error = rig.raise(&plan(1, 1, 3)).await.unwrap_err();
    assert_eq!(error.suspect(), Some(node(2)));
    rig.net.set(2, Link::Frozen);
    let error = rig.raise(&plan(1, 2, 3)).await.unwrap_err();
    assert_eq!(error.suspect(), Some(node(2)), "{error}");

    // One that can't be reached by the one before it.
    let rig = Rig::new(2);
    let mut odd = plan(1, 1, 2);
    odd.workers[1].node = node(9);
    let error = rig.raise(&odd).await.unwrap_err();
    assert_eq!(error.suspect(), Some(node(9)));

    let changes: [fn(&mut RingPlan); 4] = [
        |p| p.workers.clear(),
        |p| p.workers[0].layers = 1..2,
        |p| p.workers[1].node = node(1),
        |p| p.width = 0,
    ];
    for change in changes {
        let mut plan = plan(1, 1, 2);
        change(&mut plan);
        let error = rig.raise(&plan).await.unwrap_err();
        assert!(matches!(error, RaiseError::Plan(_)), "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_machine_that_leaves_says_so() {
    let rig = Rig::new(2);
    let mut ring = rig.raise(&plan(1, 1, 2)).await.unwrap();
    rig.workers[0].close().await;
    assert_eq!(rig.fakes[0].bytes(), 0);
    let loss = lose(&mut ring, Duration::from_secs(1)).await;
    assert_eq!(loss.suspect, Some(node(1)));
    rig.host.close().await;
    let stopped = rig.raise(&plan(2, 1, 2)).await;
    assert!(matches!(stopped, Err(RaiseError::Stopped)), "{stopped:?}");
}
