//! Who may use how much of a worker, and for how long.

use std::sync::atomic::Ordering;
use std::time::Duration;

use split::fault::Refusal;
use split::layers::Loading;
use split::ring::RaiseError;
use split::spec::{Precision, RingId, StageSpec};
use split::station::Station;
use split::wire::{
    FRAME_VERSION, FromWorker, Lease, Opening, ToWorker, read_from_worker, read_message,
    write_message,
};

use crate::fake::{BUDGET, Batch, MODEL, WIDTH, plan};
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
async fn ten_terabytes_are_not_given() {
    const TEN_TERABYTES: u64 = 10_000_000_000_000;
    let rig = Rig::new(1);
    rig.fakes[0]
        .more_bytes
        .store(TEN_TERABYTES, Ordering::SeqCst);
    let error = rig.raise(&plan(1, 1, 1)).await.unwrap_err();
    let Refusal::NoMemory {
        needed_bytes,
        free_bytes,
    } = refusal(error)
    else {
        panic!("another reason");
    };
    assert!(needed_bytes > TEN_TERABYTES && free_bytes <= BUDGET);
    assert_eq!(rig.fakes[0].loads(), 0);
    rig.assert_free().await;
    // Nor does the worker trust its host to look at its own numbers.
    let changes: [fn(&mut Lease); 8] = [
        |lease| lease.spec.kv_tokens = u32::MAX,
        |lease| lease.spec.width = u32::MAX,
        |lease| lease.spec.rows_max = u32::MAX,
        |lease| lease.spec.layers = 0..u32::MAX,
        |lease| lease.spec.sequences = u32::MAX,
        |lease| lease.place = 16,
        |lease| lease.place = u32::MAX,
        // Nor that it is of the same version.
        |lease| lease.frames += 1,
    ];
    for (number, change) in (1..).zip(changes) {
        let mut lease = Lease {
            ring: RingId([number; 16]),
            epoch: 1,
            spec: StageSpec {
                model: MODEL,
                layers: 0..2,
                width: WIDTH,
                kv_tokens: 256,
                sequences: 4,
                rows_max: 64,
            },
            precision: Precision::F32,
            lease: Duration::from_secs(30),
            place: 1,
            previous: node(0),
            next: node(0),
            keeps: false,
            frames: FRAME_VERSION,
        };
        change(&mut lease);
        let lease = ToWorker::Lease(Box::new(lease));
        let mut stream = rig.net.transport(0).open(node(1)).await.unwrap();
        for message in [Opening::Control.to_bytes(), lease.to_bytes()] {
            write_message(&mut stream.write, &message).await.unwrap();
        }
        let mut answer = FromWorker::Loading(Loading::default());
        while answer == FromWorker::Loading(Loading::default()) {
            let message = read_message(&mut stream.read).await.unwrap().unwrap();
            answer = read_from_worker(&message).unwrap();
        }
        let refused = matches!(&answer, FromWorker::Refused(Refusal::OutOfRange { .. }));
        assert!(refused, "{answer:?}");
    }
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

#[tokio::test(start_paused = true)]
async fn a_new_host_of_the_model_gets_what_a_dead_one_left_without_loading() {
    let rig = Rig::new(2);
    let heir: Station = rig.net.station(8, None);
    let of = |ring: u8| {
        let mut plan = plan(ring, 1, 2);
        plan.workers[0].layers = 0..3;
        plan.workers[1].layers = 3..6;
        plan
    };
    let mut ring = rig.raise(&of(1)).await.unwrap();
    let (mut out, mut again) = (Vec::new(), Vec::new());
    let batch = Batch::new(0, 0, 5);
    ring.run(&batch.rows(), &mut out).await.unwrap();
    rig.net.set(0, Link::Cut);
    tokio::time::sleep(Duration::from_secs(1)).await;
    // The leases of the dead host have not ended, and there is no room for a second ring.
    let used = rig.workers[0].usage().await;
    assert!(used.used_bytes > used.free_bytes, "{used:?}");
    let mut next = heir.raise(of(2), &mut |_, _| {}).await.unwrap();
    assert_eq!((rig.fakes[0].loads(), rig.fakes[1].loads()), (1, 1));
    // What the layers remember of the first ring is gone.
    next.run(&batch.rows(), &mut again).await.unwrap();
    assert_eq!(out, again);
    drop(ring);
    rig.end(next).await;
}

#[tokio::test(start_paused = true)]
async fn a_dead_hosts_layers_make_room_for_others_of_the_same_model_alone() {
    let rig = Rig::new(1);
    let heir: Station = rig.net.station(8, None);
    let mut large = plan(1, 1, 1);
    large.workers[0].layers = 0..3;
    let ring = rig.raise(&large).await.unwrap();
    // As long as its host uses it, nobody takes it away.
    let mut other = plan(2, 1, 1);
    other.workers[0].layers = 0..4;
    let error = heir.raise(other.clone(), &mut |_, _| {}).await.unwrap_err();
    assert!(matches!(refusal(error), Refusal::NoMemory { .. }));
    rig.net.set(0, Link::Cut);
    tokio::time::sleep(Duration::from_secs(1)).await;
    other.epoch = 2;
    let next = heir.raise(other, &mut |_, _| {}).await.unwrap();
    assert_eq!(rig.fakes[0].loads(), 2);
    drop(ring);
    rig.end(next).await;
    // What a machine that becomes the host itself has of it goes at once.
    rig.net.set(0, Link::Up);
    let ring = rig.raise(&plan(3, 1, 1)).await.unwrap();
    rig.net.set(0, Link::Cut);
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert!(rig.fakes[0].bytes() > 0);
    rig.workers[0].free_parked(MODEL).await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    rig.assert_free().await;
    drop(ring);
}
