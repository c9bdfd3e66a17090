//! The holder's side against peers of every kind.

use std::sync::Arc;

use gguf::Fingerprint;
use split::weights::{
    AskError, Grant, Holding, ServeError, ask_headers, ask_holdings, ask_manifest, shares_weights,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Duration, timeout};

use crate::world::{Member, World};

/// Sends bytes and ends; what the holder says of it, and what it answers.
async fn say(member: &Member, bytes: &[u8]) -> (Result<(), ServeError>, Vec<u8>) {
    let (mut ours, theirs) = tokio::io::duplex(64 << 10);
    ours.write_all(bytes).await.unwrap();
    let (recv, send) = tokio::io::split(theirs);
    let mut answer = Vec::new();
    let (result, _) = tokio::join!(
        async {
            let (recv, send) = (recv, send);
            member.0.answer(&7, recv, send).await
        },
        async {
            ours.shutdown().await.unwrap();
            ours.read_to_end(&mut answer).await.unwrap()
        }
    );
    (result, answer)
}

fn frame(body: &[u8]) -> Vec<u8> {
    [&(body.len() as u32).to_le_bytes(), body].concat()
}

/// An ask for chunks.
fn chunks(model: Fingerprint, ids: &[(u32, u32)]) -> Vec<u8> {
    let mut body = [&[1, 3], model.0.as_slice()].concat();
    for (tensor, number) in ids {
        body.extend(tensor.to_le_bytes());
        body.extend(number.to_le_bytes());
    }
    frame(&body)
}

#[tokio::test]
async fn nonsense_is_cut_off() {
    let world = World::new();
    let member = world.member();
    let model = world.model.fingerprint();
    for bytes in [
        vec![255; 64],
        frame(&[]),
        frame(&[1, 0]),
        frame(&[&[2, 0], model.0.as_slice()].concat()),
        frame(&[&[1, 9], model.0.as_slice()].concat()),
        frame(&[&[1, 0], model.0.as_slice(), &[1]].concat()),
        frame(&[&[1, 2], model.0.as_slice(), &[255; 9]].concat()),
        chunks(model, &[]),
        chunks(model, &[(0, 0); 65]),
        vec![40, 0, 0, 0, 1],
        Vec::new(),
    ] {
        let (result, answer) = say(&member, &bytes).await;
        assert!(result.is_err(), "{bytes:?}");
        assert!(answer.is_empty(), "{bytes:?}");
    }
}

#[tokio::test]
async fn only_chunks_that_are_there_are_given() {
    const UNKNOWN: [u8; 6] = [2, 0, 0, 0, 0, 0];
    let world = World::new();
    let member = world.member();
    let model = world.model.fingerprint();
    let first = &world.job.chunks()[0];
    let id = (first.id.tensor, first.id.number);
    let none = [(u32::MAX, 0), (0, u32::MAX), (id.0, 1 << 12)];
    let (result, answer) = say(&member, &chunks(model, &[none[0], none[1], none[2], id])).await;
    result.unwrap();
    let (refused, given) = answer.split_at(18);
    assert_eq!(refused, UNKNOWN.repeat(3));
    let range = first.origin.bytes.start as usize..first.origin.bytes.end as usize;
    assert_eq!(&given[5..], &world.file[range]);
    let (result, answer) = say(&member, &chunks(Fingerprint([3; 32]), &[id])).await;
    result.unwrap();
    assert_eq!(answer, UNKNOWN);
}

#[tokio::test]
async fn weights_stay_where_they_are_unless_they_are_shared() {
    let world = World::new();
    let model = world.model.fingerprint();
    let member = |grant| {
        let holding = Holding::whole(&world.model).unwrap();
        let cache = world.cache("member");
        Member::granting(grant, Some(holding), Some(world.path.clone()), cache)
    };
    let proof = member(Grant::Proof).way();
    assert!(ask_headers(&proof, model).await.is_ok());
    assert_eq!(
        ask_manifest(&proof, &world.job).await.unwrap(),
        world.manifest
    );
    let closed = ask_holdings(&proof, &world.job).await.unwrap_err();
    assert!(matches!(closed, AskError::Refused(_)), "{closed}");
    let nothing = member(Grant::Nothing).way();
    assert!(ask_headers(&nothing, model).await.is_err());
    assert!(ask_manifest(&nothing, &world.job).await.is_err());

    let sources = vec![world.source("closed", proof)];
    let (slice, progress) = world.fetch(&world.cache("cache"), sources).await;
    assert!(slice.is_err());
    let why = progress.sources[0].left_out.clone().unwrap();
    assert_eq!(why, "it does not share that");
}

#[test]
fn sharing_is_on_in_private_meshes_and_elsewhere_if_asked_for() {
    for (published, asked, expected) in [
        (false, None, true),
        (true, None, false),
        (true, Some(true), true),
        (false, Some(false), false),
    ] {
        assert_eq!(shares_weights(published, asked), expected);
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_can_neither_hoard_asks_nor_hold_them_for_ever() {
    let world = World::new();
    let member = Arc::new(world.member());
    let mut streams = Vec::new();
    let mut tasks = Vec::new();
    for _ in 0..8 {
        let (ours, theirs) = tokio::io::duplex(1 << 10);
        streams.push(ours);
        let member = Arc::clone(&member);
        let (recv, send) = tokio::io::split(theirs);
        tasks.push(tokio::spawn(async move {
            member.0.answer(&7, recv, send).await
        }));
    }
    tokio::task::yield_now().await;
    // The ninth ask of this peer is refused at once; another peer's is not.
    let (result, answer) = say(&member, &[]).await;
    result.unwrap();
    assert_eq!(answer, [2, 0, 0, 0, 0, 2]);
    assert!(ask_holdings(&member.way(), &world.job).await.is_ok());
    for task in tasks {
        let ended = timeout(Duration::from_secs(60), task)
            .await
            .unwrap()
            .unwrap();
        assert!(matches!(ended, Err(ServeError::Silent)), "{ended:?}");
    }
    let (result, _) = say(&member, &chunks(world.model.fingerprint(), &[(0, 0)])).await;
    result.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_read_is_cut_off() {
    let world = World::new();
    let member = world.member();
    let (mut ours, theirs) = tokio::io::duplex(1 << 10);
    let long = world
        .job
        .chunks()
        .iter()
        .find(|c| c.len() > 1 << 19)
        .unwrap()
        .id;
    let ask = chunks(world.model.fingerprint(), &[(long.tensor, long.number); 60]);
    let (recv, send) = tokio::io::split(theirs);
    let answering = tokio::spawn(async move { member.0.answer(&7, recv, send).await });
    ours.write_all(&ask).await.unwrap();
    let ended = timeout(Duration::from_secs(300), answering)
        .await
        .unwrap()
        .unwrap();
    assert!(matches!(ended, Err(ServeError::Silent)), "{ended:?}");
    drop(ours);
}
