//! Chunks from members: several, corrupt, dying, silent; and what is left after a break.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gguf::SliceRole;
use split::weights::{FetchError, Holding, Tier};
use tokio::time::Duration;

use crate::world::{Member, Way, World};

#[tokio::test]
async fn a_slice_from_several_members_is_the_one_cut_from_the_file() {
    for (layers, role) in [
        (1..3, SliceRole::Stage),
        (2..4, SliceRole::Tail),
        (0..4, SliceRole::Whole),
    ] {
        let world = World::of(layers, role);
        let member = world.member();
        let sources = ["a", "b", "c"].map(|name| world.source(name, member.way()));
        let cache = world.cache("cache");
        let (slice, progress) = world.fetch(&cache, sources.to_vec()).await;
        let slice = slice.unwrap();
        assert_eq!(std::fs::read(slice.path()).unwrap(), world.expected());
        assert_eq!(progress.bytes_done, world.job.chunk_bytes());
        assert_eq!(progress.bytes_total, progress.bytes_done);
        let given: u64 = progress.sources.iter().map(|s| s.bytes).sum();
        assert_eq!(given, progress.bytes_done);
        assert!(progress.sources.iter().all(|s| s.tier == Tier::Peer));
        // Nothing else is left in the folder.
        let files = std::fs::read_dir(cache.folder()).unwrap().count();
        assert_eq!(files, 1);
    }
}

#[tokio::test]
async fn wrong_bytes_are_fetched_from_elsewhere() {
    let world = World::new();
    let sources = vec![
        world.source("liar", world.liar().way()),
        world.source("honest", world.member().way()),
    ];
    let (slice, progress) = world.fetch(&world.cache("cache"), sources).await;
    assert_eq!(
        std::fs::read(slice.unwrap().path()).unwrap(),
        world.expected()
    );
    assert_eq!(progress.sources[0].bytes, 0);
    let why = progress.sources[0].left_out.as_deref();
    assert_eq!(why, Some("it sends wrong bytes"));
    assert_eq!(progress.sources[1].left_out, None);
}

#[tokio::test]
async fn a_liar_alone_gives_an_error_and_no_slice() {
    let world = World::new();
    let cache = world.cache("cache");
    let sources = vec![world.source("liar", world.liar().way())];
    let (slice, _) = world.fetch(&cache, sources).await;
    let error = slice.unwrap_err();
    assert!(matches!(error, FetchError::Stuck { .. }), "{error}");
    assert!(
        error.to_string().contains("liar: it sends wrong bytes"),
        "{error}"
    );
    assert!(cache.lookup(world.job.key()).unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_member_that_dies_and_one_that_is_silent_hold_nobody_up() {
    let world = World::new();
    let member = world.member();
    let dying = member.way_of(2_500_000);
    let opened = Arc::clone(&dying.opened);
    let sources = vec![
        world.source("dying", dying),
        world.source("silent", Way::silent()),
        world.source("honest", member.way()),
    ];
    let start = tokio::time::Instant::now();
    let (slice, progress) = world.fetch(&world.cache("cache"), sources).await;
    assert_eq!(
        std::fs::read(slice.unwrap().path()).unwrap(),
        world.expected()
    );
    assert!(
        start.elapsed() < Duration::from_secs(30),
        "{:?}",
        start.elapsed()
    );
    assert!(opened.load(Ordering::SeqCst) > 1);
    assert_eq!(progress.sources[1].bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn silence_alone_ends_in_an_error() {
    let world = World::new();
    let sources = vec![world.source("silent", Way::silent())];
    let (slice, _) = world.fetch(&world.cache("cache"), sources).await;
    assert!(matches!(slice.unwrap_err(), FetchError::Stuck { .. }));
}

#[tokio::test(start_paused = true)]
async fn a_fetch_goes_on_where_it_broke_off() {
    let world = World::new();
    let member = world.member();
    let cache = world.cache("cache");
    let breaking = vec![world.source("dying", member.way_of(3_500_000))];
    let (slice, before) = world.fetch(&cache, breaking).await;
    assert!(matches!(slice.unwrap_err(), FetchError::Stuck { .. }));
    assert!(before.bytes_done > 1_000_000, "{before:?}");

    // A chunk that the disk lost meanwhile is noticed.
    let partial = std::fs::read_dir(cache.folder()).unwrap();
    let partial = partial.map(|f| f.unwrap().path());
    let partial = partial
        .into_iter()
        .find(|p| p.extension().unwrap() == "part")
        .unwrap();
    let mut bytes = std::fs::read(&partial).unwrap();
    let header = world.job.plan().header().unwrap().len();
    bytes[..header].fill(9);
    let chunks = world.job.chunks().iter();
    let mut whole = chunks.filter(|c| {
        let at = c.target as usize..c.target as usize + c.len() as usize;
        let from = c.origin.bytes.start as usize..c.origin.bytes.end as usize;
        bytes[at] == world.file[from]
    });
    let lost = whole.next_back().unwrap();
    bytes[lost.target as usize] ^= 1;
    let lost_bytes = u64::from(lost.len());
    std::fs::write(&partial, bytes).unwrap();

    let (slice, after) = world
        .fetch(&cache, vec![world.source("honest", member.way())])
        .await;
    assert_eq!(
        std::fs::read(slice.unwrap().path()).unwrap(),
        world.expected()
    );
    assert_eq!(after.bytes_resumed, before.bytes_done - lost_bytes);
    assert_eq!(
        after.sources[0].bytes,
        after.bytes_total - after.bytes_resumed
    );
}

#[tokio::test]
async fn a_dropped_fetch_keeps_what_has_come_and_frees_the_slice() {
    let world = World::new();
    let member = world.member();
    let cache = world.cache("cache");
    {
        let fetching = world.fetch(&cache, vec![world.source("slow", member.way())]);
        let mut fetching = std::pin::pin!(fetching);
        // Some turns of the loop, then no more.
        for _ in 0..40 {
            let turn = tokio::time::timeout(Duration::from_millis(1), &mut fetching);
            if turn.await.is_ok() {
                return;
            }
        }
    }
    // The last write may be under way for a moment.
    for _ in 0..1_000 {
        let (slice, _) = world
            .fetch(&cache, vec![world.source("b", member.way())])
            .await;
        match slice {
            Ok(slice) => {
                assert_eq!(std::fs::read(slice.path()).unwrap(), world.expected());
                return;
            }
            Err(FetchError::Cache(error)) => {
                assert!(error.to_string().contains("being made already"), "{error}");
                tokio::task::yield_now().await;
            }
            Err(error) => panic!("{error}"),
        }
    }
    panic!("the slice stays locked");
}

#[tokio::test]
async fn members_with_slices_give_what_they_have() {
    let world = World::new();
    // One has layers 0 and 1 in a stage, another 2 and 3 in a tail; wanted are 1 and 2.
    let mut sources = Vec::new();
    for (name, layers, role) in [("a", 0..2, SliceRole::Stage), ("b", 2..4, SliceRole::Tail)] {
        let path = world.folder.path().join(name);
        let file = gguf::slice(&[world.file.as_slice()], layers, role, Vec::new()).unwrap();
        std::fs::write(&path, file).unwrap();
        let holding = Holding::slice(&world.model, &path).unwrap();
        let has: Vec<_> = holding.tensors().collect();
        assert!(has.contains(&true) && has.contains(&false));
        let member = Member::new(
            Some(holding),
            None,
            world.cache(&format!("cache of {name}")),
        );
        let way = Arc::new(member.way());
        let has = split::weights::ask_holdings(way.as_ref(), &world.job)
            .await
            .unwrap();
        let model = world.model.fingerprint();
        let source = split::weights::PeerSource::new(name.to_owned(), way, model, has);
        sources.push(Arc::new(source) as Arc<dyn split::weights::Source>);
    }
    let (slice, progress) = world.fetch(&world.cache("cache"), sources).await;
    assert_eq!(
        std::fs::read(slice.unwrap().path()).unwrap(),
        world.expected()
    );
    let given: Vec<_> = progress.sources.iter().map(|s| s.bytes).collect();
    assert!(given.iter().all(|&bytes| bytes > 0), "{given:?}");
    assert!(progress.sources.iter().all(|s| s.left_out.is_none()));
}

#[tokio::test]
async fn a_member_may_have_the_model_in_a_file_of_another_order() {
    let world = World::new();
    let (path, file) = world.reordered();
    assert_ne!(file, world.file);
    let model = gguf::Model::open(&path).unwrap();
    assert_eq!(model.fingerprint(), world.model.fingerprint());
    let holding = Holding::whole(&model).unwrap();
    let member = Member::new(Some(holding), Some(path), world.cache("other"));
    // Its hashes are the same too.
    let way = member.way();
    let manifest = split::weights::ask_manifest(&way, &world.job).await;
    assert_eq!(manifest.unwrap(), world.manifest);
    let (slice, progress) = world
        .fetch(&world.cache("cache"), vec![world.source("a", way)])
        .await;
    assert_eq!(
        std::fs::read(slice.unwrap().path()).unwrap(),
        world.expected()
    );
    assert_eq!(progress.sources[0].left_out, None);
}
