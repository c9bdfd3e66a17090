//! A ring gives what its layers give when they are put together directly.

use split::layers::{Layers, LayersError};
use split::ring::{Ring, RingError};
use split::spec::Precision;

use crate::fake::{BUDGET, Batch, Fake, Sums, plan, whole};
use crate::net::Net;
use crate::rig::Rig;

/// What both are put through.
async fn check(ring: &mut Ring, whole: &mut Sums, exact: bool) {
    let (mut got, mut wanted) = (Vec::new(), Vec::new());
    let mut run = async |ring: &mut Ring, whole: &mut Sums, batch: Batch| {
        ring.run(&batch.rows(), &mut got).await.unwrap();
        whole.run(&batch.rows(), &mut wanted).unwrap();
        if exact {
            assert_eq!(got, wanted);
        }
        assert_eq!(got.len(), wanted.len());
        for (a, b) in got.iter().zip(&wanted) {
            assert!((a - b).abs() < 0.01, "{a} instead of {b}");
        }
    };
    run(ring, whole, Batch::new(0, 0, 20)).await;
    run(ring, whole, Batch::new(1, 0, 3)).await;
    run(ring, whole, Batch::new(0, 20, 1)).await;
    ring.copy(0, 2, 15).await.unwrap();
    whole.copy(0, 2, 15).unwrap();
    run(ring, whole, Batch::new(2, 15, 4)).await;
    ring.cut(2, 16).await.unwrap();
    whole.cut(2, 16).unwrap();
    ring.copy(2, 3, 16).await.unwrap();
    whole.copy(2, 3, 16).unwrap();
    run(ring, whole, Batch::new(3, 16, 2)).await;
    run(ring, whole, Batch::new(2, 16, 1)).await;
    ring.clear().await.unwrap();
    whole.clear();
    run(ring, whole, Batch::new(1, 0, 5)).await;
}

#[tokio::test(start_paused = true)]
async fn one_two_and_three_workers_give_what_the_whole_gives() {
    for workers in 1..=3 {
        let rig = Rig::new(workers);
        let plan = plan(1, 1, workers);
        let mut ring = rig.raise(&plan).await.unwrap();
        check(&mut ring, &mut whole(&plan), true).await;
        let status = ring.watch().workers();
        assert_eq!(status.len(), usize::from(workers));
        rig.end(ring).await;
    }
}

#[tokio::test(start_paused = true)]
async fn half_precision_is_close_and_falls_back_for_large_values() {
    let rig = Rig::new(2);
    let mut plan = plan(1, 1, 2);
    plan.precision = Precision::F16;
    let mut ring = rig.raise(&plan).await.unwrap();
    let mut whole = whole(&plan);
    check(&mut ring, &mut whole, false).await;
    let mut batch = Batch::new(0, 0, 1);
    batch.hidden[3] = 1e9;
    let (mut got, mut wanted) = (Vec::new(), Vec::new());
    ring.run(&batch.rows(), &mut got).await.unwrap();
    whole.run(&batch.rows(), &mut wanted).unwrap();
    assert_eq!(got, wanted);
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn frames_follow_each_other_before_the_first_is_back() {
    let rig = Rig::new(3);
    let plan = plan(1, 1, 3);
    let mut ring = rig.raise(&plan).await.unwrap();
    let mut whole = whole(&plan);
    let batches: Vec<_> = (0..9).map(|i| Batch::new(0, i * 4, 4)).collect();
    assert_eq!(ring.frames_max(), 9);
    for batch in &batches {
        ring.submit(&batch.rows()).await.unwrap();
    }
    let full = ring.submit(&Batch::new(1, 0, 1).rows()).await;
    assert_eq!(full, Err(RingError::Full { frames: 9 }));
    let (mut got, mut wanted) = (Vec::new(), Vec::new());
    for batch in &batches {
        ring.receive(&mut got).await.unwrap();
        whole.run(&batch.rows(), &mut wanted).unwrap();
        assert_eq!(got, wanted);
    }
    let none = ring.receive(&mut got).await;
    assert!(matches!(none, Err(RingError::Input(_))));
    // More operations than one frame holds go ahead of the rows.
    for _ in 0..3_000 {
        ring.copy(0, 1, 7).await.unwrap();
    }
    whole.copy(0, 1, 7).unwrap();
    let batch = Batch::new(1, 7, 1);
    ring.run(&batch.rows(), &mut got).await.unwrap();
    whole.run(&batch.rows(), &mut wanted).unwrap();
    assert_eq!(got, wanted);
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn a_full_cache_is_told_and_the_ring_goes_on() {
    let rig = Rig::new(2);
    let mut plan = plan(1, 1, 2);
    plan.kv_tokens = 30;
    let mut ring = rig.raise(&plan).await.unwrap();
    let mut whole = whole(&plan);
    let (mut got, mut wanted) = (Vec::new(), Vec::new());
    let run =
        |whole: &mut Sums, batch: &Batch, wanted: &mut Vec<f32>| whole.run(&batch.rows(), wanted);
    let first = Batch::new(0, 0, 20);
    ring.run(&first.rows(), &mut got).await.unwrap();
    run(&mut whole, &first, &mut wanted).unwrap();
    let second = Batch::new(1, 0, 11);
    let full = ring.run(&second.rows(), &mut got).await;
    assert_eq!(full, Err(RingError::NoRoom));
    assert_eq!(
        run(&mut whole, &second, &mut wanted),
        Err(LayersError::NoRoom)
    );
    ring.cut(1, 0).await.unwrap();
    ring.cut(0, 10).await.unwrap();
    whole.cut(0, 10).unwrap();
    ring.run(&second.rows(), &mut got).await.unwrap();
    run(&mut whole, &second, &mut wanted).unwrap();
    assert_eq!(got, wanted);
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn what_can_t_be_sent_is_refused_and_changes_nothing() {
    let rig = Rig::new(1);
    let plan = plan(1, 1, 1);
    let mut ring = rig.raise(&plan).await.unwrap();
    let good = Batch::new(0, 0, 2);
    let mut out = Vec::new();
    let mut check = async |change: fn(&mut Batch)| {
        let mut batch = good.clone();
        change(&mut batch);
        let refused = ring.run(&batch.rows(), &mut out).await;
        assert!(matches!(refused, Err(RingError::Input(_))), "{refused:?}");
    };
    check(|b| b.positions.clear()).await;
    check(|b| *b = Batch::new(0, 0, 65)).await;
    check(|b| b.sequences.push(0)).await;
    check(|b| b.sequences[1] = 4).await;
    check(|b| b.sequences[1] = -1).await;
    check(|b| b.positions[0] = -1).await;
    check(|b| b.hidden.truncate(15)).await;
    check(|b| b.hidden[3] = f32::INFINITY).await;
    let unknown = ring.copy(0, 4, 1).await;
    assert!(matches!(unknown, Err(RingError::Input(_))));
    ring.run(&good.rows(), &mut out).await.unwrap();
    rig.end(ring).await;
}

#[tokio::test(start_paused = true)]
async fn a_machine_may_host_one_ring_and_work_for_another() {
    let net = Net::default();
    let fakes = [Fake::default(), Fake::default()];
    let stations = [1, 2].map(|n| net.station(n, Some((&fakes[usize::from(n) - 1], BUDGET))));
    let mut plan_1 = plan(1, 1, 1);
    plan_1.workers[0].node = crate::net::node(2);
    let plan_2 = plan(2, 1, 1);
    let mut ring_1 = stations[0]
        .raise(plan_1.clone(), &mut |_, _| {})
        .await
        .unwrap();
    let mut ring_2 = stations[1]
        .raise(plan_2.clone(), &mut |_, _| {})
        .await
        .unwrap();
    check(&mut ring_1, &mut whole(&plan_1), true).await;
    check(&mut ring_2, &mut whole(&plan_2), true).await;
    drop((ring_1, ring_2));
    for station in stations {
        station.close().await;
    }
    assert_eq!(fakes.map(|fake| fake.bytes()), [0, 0]);
}
