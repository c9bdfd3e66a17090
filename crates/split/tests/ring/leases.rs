//! Who may use how much of a worker, and for how long.

use std::time::Duration;

use split::fault::Refusal;
use split::ring::RaiseError;
use split::station::Station;

use crate::fake::{Batch, plan};
use crate::net::{Link, node};
use crate::rig::Rig;

fn refusal(error: RaiseError) -> Refusal {
    match error {
        RaiseError::Refused { refusal, .. } => refusal,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_hosts_at_once_one_gets_the_memory_and_the_other_a_reason() {
    let rig = Rig::new(1);
    let other: Station = rig.net.station(8, None);
    let mut large = plan(1, 1, 1);
    large.workers[0].layers = 0..3;
    let mut second = large.clone();
    second.ring = plan(2, 1, 1).ring;
    let (mut quiet, mut silent) = (|_, _| {}, |_, _| {});
    let (a, b) = tokio::join!(
        rig.host.raise(large.clone(), &mut quiet),
        other.raise(second.clone(), &mut silent)
    );
    let (won, lost) = match (a, b) {
        (Ok(won), Err(lost)) | (Err(lost), Ok(won)) => (won, lost),
        other => panic!("{other:?}"),
    };
    assert_eq!(lost.suspect(), Some(node(1)));
    assert!(matches!(refusal(lost), Refusal::NoMemory { .. }));
    // The ring's number protects it from others.
    let mut taken = won.plan().clone();
    taken.epoch = 9;
    let thief = rig.net.station(7, None);
    let taken = thief.raise(taken, &mut |_, _| {}).await.unwrap_err();
    assert_eq!(refusal(taken), Refusal::Taken);
    rig.end(won).await;
    let ring = other.raise(second, &mut |_, _| {}).await.unwrap();
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn absurd_wishes_are_refused_before_anything_is_loaded() {
    let rig = Rig::new(1);
    // A context that takes 16 GiB here.
    let mut greedy = plan(1, 1, 1);
    greedy.kv_tokens = 1 << 24;
    let error = rig.raise(&greedy).await.unwrap_err();
    assert!(matches!(refusal(error), Refusal::NoMemory { .. }));
    let mut unknown = plan(1, 2, 1);
    unknown.model.0[0] ^= 1;
    let error = rig.raise(&unknown).await.unwrap_err();
    assert!(matches!(refusal(error), Refusal::NoModel { .. }));
    assert_eq!(rig.fakes[0].loads(), 0);
    rig.assert_free().await;
}

#[tokio::test(start_paused = true)]
async fn a_host_that_vanishes_leaves_nothing_behind() {
    for (link, lease_s) in [(Link::Cut, 30), (Link::Frozen, 0), (Link::Frozen, 1_000)] {
        let rig = Rig::new(3);
        let mut plan = plan(1, 1, 3);
        plan.lease = Duration::from_secs(lease_s);
        let mut ring = rig.raise(&plan).await.unwrap();
        let mut out = Vec::new();
        ring.run(&Batch::new(0, 0, 5).rows(), &mut out)
            .await
            .unwrap();
        tokio::time::sleep(Duration::from_secs(300)).await;
        assert!(rig.fakes.iter().all(|fake| fake.bytes() > 0));
        rig.net.set(0, link);
        tokio::time::sleep(Duration::from_secs(121)).await;
        rig.assert_free().await;
        drop(ring);
    }
}

#[tokio::test(start_paused = true)]
async fn a_worker_without_an_offer_is_not_waited_for() {
    let rig = Rig::new(1);
    rig.net.station(2, None);
    let error = rig.raise(&plan(1, 1, 2)).await.unwrap_err();
    assert_eq!(error.suspect(), Some(node(2)));
}

#[tokio::test(start_paused = true)]
async fn the_next_epoch_finds_what_is_loaded_and_forgets_what_it_held() {
    let rig = Rig::new(2);
    let mut ring = rig.raise(&plan(1, 1, 2)).await.unwrap();
    let mut out = Vec::new();
    ring.run(&Batch::new(0, 0, 5).rows(), &mut out)
        .await
        .unwrap();
    rig.net.set(2, Link::Cut);
    ring.watch().lost().await.unwrap();
    rig.net.set(2, Link::Up);
    let mut next = rig.raise(&plan(1, 2, 2)).await.unwrap();
    // Letting the old one go does not touch the new one.
    drop(ring);
    next.run(&Batch::new(0, 0, 5).rows(), &mut out)
        .await
        .unwrap();
    assert_eq!((rig.fakes[0].loads(), rig.fakes[1].loads()), (1, 1));

    // Also from a ring that stands, and with other layers, which are loaded anew.
    let mut shifted = plan(1, 3, 2);
    shifted.workers[0].layers = 0..3;
    shifted.workers[1].layers = 3..4;
    let mut third = rig.raise(&shifted).await.unwrap();
    drop(next);
    third
        .run(&Batch::new(0, 0, 5).rows(), &mut out)
        .await
        .unwrap();
    assert_eq!((rig.fakes[0].loads(), rig.fakes[1].loads()), (2, 2));
    let old = rig.raise(&plan(1, 3, 2)).await.unwrap_err();
    assert_eq!(refusal(old), Refusal::OldEpoch { epoch: 3 });
    rig.end(third).await;
}
