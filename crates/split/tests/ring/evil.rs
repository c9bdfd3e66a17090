//! A worker that speaks the protocol, and breaks it.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use mesh::NodeId;
use split::fault::Fault;
use split::transport::{Duplex, Transport};
use split::wire::{
    Alive, Answer, CacheOp, Frame, FrameFormat, FromWorker, Lease, Opening, Ready, ToWorker,
    encode_frame, read_answer, read_frame, read_message, read_opening, read_to_worker,
    write_message,
};
use tokio::io::AsyncWriteExt;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, interval};

use crate::fake::{Batch, WIDTH, plan};
use crate::loss::lose;
use crate::net::{Net, node};
use crate::rig::Rig;
use split::spec::Precision;

/// What it does with the second frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Evil {
    Nothing,
    Garbage,
    WrongWidth,
    FewerRows,
    MoreRows,
    BareRows,
    Infinity,
    OldEpoch,
    NextEpoch,
    WrongNumber,
    Twice,
    HugeLength,
    Accuse,
    EndsStream,
    Mumbles,
}

/// Passes frames on as they are, until it turns evil.
fn install(net: &Net, number: u8, evil: Evil) {
    let transport = net.transport(number);
    let (sender, receiver) = mpsc::channel::<Duplex>(4);
    let receiver = Arc::new(tokio::sync::Mutex::new(receiver));
    let accept = move |_: NodeId, stream: Duplex| {
        let (transport, sender) = (Arc::clone(&transport), sender.clone());
        let receiver = Arc::clone(&receiver);
        async move {
            let mut stream = stream;
            let bytes = read_message(&mut stream.read).await.unwrap().unwrap();
            match read_opening(&bytes).unwrap() {
                Opening::Control => {
                    let mut receiver = receiver.lock().await;
                    control(stream, transport, &mut receiver, evil).await;
                }
                Opening::Data { .. } => {
                    let welcome = Answer::Welcome.to_bytes();
                    write_message(&mut stream.write, &welcome).await.unwrap();
                    let _ = sender.send(stream).await;
                }
                // Nobody asks in these tests.
                Opening::Measure { .. } => {}
            }
        }
        .boxed()
    };
    net.add(number, Arc::new(accept));
}

async fn control(
    mut stream: Duplex,
    transport: Arc<dyn Transport>,
    data: &mut mpsc::Receiver<Duplex>,
    evil: Evil,
) {
    let bytes = read_message(&mut stream.read).await.unwrap().unwrap();
    let ToWorker::Lease(lease) = read_to_worker(&bytes).unwrap() else {
        panic!("no lease");
    };
    let ready = FromWorker::Ready(Ready {
        memory_bytes: 1,
        kv_tokens: lease.spec.kv_tokens,
        width: WIDTH,
        is_recurrent: false,
        remembers: None,
    });
    write_message(&mut stream.write, &ready.to_bytes())
        .await
        .unwrap();
    let bytes = read_message(&mut stream.read).await.unwrap().unwrap();
    assert_eq!(read_to_worker(&bytes), Ok(ToWorker::Start));
    let from = data.recv().await.unwrap();
    let to = dial(transport.as_ref(), &lease).await;
    write_message(&mut stream.write, &FromWorker::Joined.to_bytes())
        .await
        .unwrap();
    let (turned, mut turns) = oneshot::channel();
    let task = tokio::spawn(flow(from, to, *lease, evil, turned));
    let mut alive = interval(Duration::from_secs(1));
    let mut sent = 0;
    loop {
        tokio::select! {
            _ = alive.tick() => {
                let says = FromWorker::Alive(Alive { received: sent, sent, ..Alive::default() });
                if write_message(&mut stream.write, &says.to_bytes()).await.is_err() {
                    break;
                }
            }
            turned = &mut turns, if sent == 0 => {
                // It has passed the first frame on, and never says more.
                sent = 1;
                if turned.is_err() {
                    continue;
                }
                let bytes = match evil {
                    Evil::Accuse => FromWorker::Failed {
                        fault: Fault::Previous,
                        text: "not me".into(),
                    }.to_bytes(),
                    Evil::Mumbles => vec![0xff; 20],
                    _ => continue,
                };
                let _ = write_message(&mut stream.write, &bytes).await;
            }
        }
    }
    task.abort();
}

async fn dial(transport: &dyn Transport, lease: &Lease) -> Duplex {
    let opening = Opening::Data {
        ring: lease.ring,
        epoch: lease.epoch,
        place: lease.place + 1,
    };
    let mut to = transport.open(lease.next).await.unwrap();
    write_message(&mut to.write, &opening.to_bytes())
        .await
        .unwrap();
    let bytes = read_message(&mut to.read).await.unwrap().unwrap();
    assert_eq!(read_answer(&bytes), Ok(Answer::Welcome));
    to
}

async fn flow(
    mut from: Duplex,
    mut to: Duplex,
    lease: Lease,
    evil: Evil,
    turned: oneshot::Sender<()>,
) {
    let format = FrameFormat::from(&lease.spec);
    let encode = |frame: &Frame| encode_frame(frame, WIDTH, Precision::F32);
    let first = read_frame(&mut from.read, &format).await.unwrap().unwrap();
    to.write.write_all(&encode(&first)).await.unwrap();
    let mut frame = read_frame(&mut from.read, &format).await.unwrap().unwrap();
    let _ = turned.send(());
    let bytes = match evil {
        Evil::Nothing | Evil::Accuse | Evil::Mumbles => std::future::pending().await,
        Evil::EndsStream => return,
        Evil::Garbage => vec![0x55; 64],
        Evil::WrongWidth => encode_frame(&frame, WIDTH + 1, Precision::F32),
        Evil::FewerRows => {
            frame.positions.clear();
            frame.sequences.clear();
            frame.hidden.clear();
            encode(&frame)
        }
        Evil::MoreRows => {
            frame.positions.push(9);
            frame.sequences.push(0);
            frame.hidden.extend([0.0; WIDTH as usize]);
            encode(&frame)
        }
        Evil::BareRows => {
            frame.hidden.clear();
            encode(&frame)
        }
        Evil::Infinity => {
            frame.hidden[0] = f32::INFINITY;
            encode(&frame)
        }
        Evil::OldEpoch => {
            // Dropped without a word; then nothing comes.
            frame.epoch -= 1;
            encode(&frame).repeat(3)
        }
        Evil::NextEpoch => {
            frame.epoch += 1;
            encode(&frame)
        }
        Evil::WrongNumber => {
            frame.number += 1;
            encode(&frame)
        }
        Evil::Twice => encode(&frame).repeat(2),
        Evil::HugeLength => {
            frame.ops.push(CacheOp::Clear);
            let mut bytes = encode(&frame);
            bytes[20..24].copy_from_slice(&u32::MAX.to_le_bytes());
            bytes
        }
    };
    let _ = to.write.write_all(&bytes).await;
    std::future::pending::<()>().await;
}

const ALL: [Evil; 15] = [
    Evil::Nothing,
    Evil::Garbage,
    Evil::WrongWidth,
    Evil::FewerRows,
    Evil::MoreRows,
    Evil::BareRows,
    Evil::Infinity,
    Evil::OldEpoch,
    Evil::NextEpoch,
    Evil::WrongNumber,
    Evil::Twice,
    Evil::HugeLength,
    Evil::Accuse,
    Evil::EndsStream,
    Evil::Mumbles,
];

/// Evil is the first, the middle or the last of three.
#[tokio::test(start_paused = true)]
async fn whatever_a_worker_does_the_ring_ends_and_the_right_one_is_suspected() {
    for evil in ALL {
        for bad in 1..=3 {
            let rig = Rig::new(3);
            install(&rig.net, bad, evil);
            let mut ring = rig.raise(&plan(1, 7, 3)).await.unwrap();
            let began = Instant::now();
            let loss = lose(&mut ring, Duration::from_secs(130)).await;
            let what = format!("{evil:?} at {bad}: {loss:?}");
            match (evil, bad) {
                // Nobody can tell who of the two lies; the accuser is noted.
                (Evil::Accuse, 1) => {
                    assert_eq!((loss.suspect, loss.accuser), (None, Some(node(1))))
                }
                (Evil::Accuse, _) => {
                    assert_eq!(loss.suspect, Some(node(bad - 1)), "{what}");
                    assert_eq!(loss.accuser, Some(node(bad)), "{what}");
                }
                // A frame without rows is no breach for whoever is in the middle.
                (Evil::FewerRows, 1 | 2) => assert_eq!(loss.suspect, Some(node(3)), "{what}"),
                _ => assert_eq!(loss.suspect, Some(node(bad)), "{what}"),
            }
            let at_once = !matches!(evil, Evil::Nothing | Evil::OldEpoch);
            assert!(
                !at_once || began.elapsed() < Duration::from_secs(2),
                "{what}"
            );
            drop(ring);
            tokio::time::sleep(Duration::from_secs(31)).await;
            for (number, fake) in rig.fakes.iter().enumerate() {
                assert_eq!(fake.bytes(), 0, "{number} after {what}");
            }
        }
    }
}

/// A last worker that takes nothing: what waits is bounded all the way to the host.
#[tokio::test(start_paused = true)]
async fn back_pressure_bounds_what_waits() {
    let rig = Rig::new(3);
    install(&rig.net, 3, Evil::Nothing);
    let mut plan = plan(1, 1, 3);
    plan.kv_tokens = 1_024;
    let mut ring = rig.raise(&plan).await.unwrap();
    let frames = i32::try_from(ring.frames_max()).unwrap();
    for frame in 0..frames {
        // 64 rows of 40 bytes: two of them fill a pipe.
        let batch = Batch::new(0, frame * 64, 64);
        ring.submit(&batch.rows()).await.unwrap();
    }
    let more = ring.submit(&Batch::new(1, 0, 1).rows()).await;
    assert!(matches!(more, Err(split::ring::RingError::Full { .. })));
    let mut out = Vec::new();
    ring.receive(&mut out).await.unwrap();
    tokio::time::sleep(Duration::from_secs(2)).await;
    let status = ring.watch().workers();
    assert!(status[1].sent < 8, "{status:?}");
    let lost = ring.receive(&mut out).await.unwrap_err();
    assert!(lost.to_string().contains("missing"), "{lost}");
}
