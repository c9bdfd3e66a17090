//! The order in which a slice is looked for.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use gguf::{Model, SliceRole};
use split::weights::{
    Cache, Grant, Holding, HubFiles, ObtainError, Progress, SliceKey, Suppliers, Tier, obtain,
};
use tokio::sync::watch;

use crate::world::{Member, Way, World, roomy};

/// Nobody has anything, and the host is silent.
fn nobody() -> Suppliers<Way> {
    Suppliers {
        own: None,
        host: Arc::new(Way::silent()),
        peers: Vec::new(),
        hub: None,
    }
}

async fn get(
    world: &World,
    cache: &Cache,
    suppliers: Suppliers<Way>,
) -> (Result<Vec<u8>, ObtainError>, Progress) {
    let (progress, seen) = watch::channel(Progress::default());
    let key = world.job.key();
    let slice = obtain(key, suppliers, cache, &roomy, &progress).await;
    let bytes = slice.map(|slice| std::fs::read(slice.path()).unwrap());
    let seen = seen.borrow().clone();
    (bytes, seen)
}

#[tokio::test]
async fn the_own_file_is_cut_and_then_the_cache_answers() {
    let world = World::new();
    let cache = world.cache("cache");
    let suppliers = Suppliers {
        own: Some(world.path.clone()),
        ..nobody()
    };
    let opened = Arc::clone(&suppliers.host.opened);
    let (bytes, progress) = get(&world, &cache, suppliers).await;
    assert_eq!(bytes.unwrap(), world.expected());
    assert_eq!(progress.bytes_done, world.job.chunk_bytes());
    assert_eq!(progress.sources[0].tier, Tier::Local);
    // From now on nobody is needed.
    let (bytes, _) = get(&world, &cache, nobody()).await;
    assert_eq!(bytes.unwrap(), world.expected());
    assert_eq!(opened.load(Ordering::SeqCst), 0);
}

#[tokio::test]
async fn members_are_asked_when_the_own_file_is_gone_or_another() {
    for other in [None, Some("nonsense")] {
        let world = World::new();
        let member = world.member();
        let own = world.folder.path().join("own.gguf");
        if let Some(other) = other {
            std::fs::write(&own, other).unwrap();
        }
        let way = Arc::new(member.way());
        let suppliers = Suppliers {
            own: Some(own),
            host: Arc::clone(&way),
            peers: vec![("host".to_owned(), way)],
            hub: None,
        };
        let (bytes, progress) = get(&world, &world.cache("cache"), suppliers).await;
        assert_eq!(bytes.unwrap(), world.expected());
        assert_eq!(progress.sources.len(), 1);
        assert_eq!(progress.sources[0].bytes, progress.bytes_total);
    }
}

#[tokio::test]
async fn layers_of_another_slice_in_the_cache_are_not_fetched_again() {
    let world = World::new();
    let cache = world.cache("cache");
    let way = Arc::new(world.member().way());
    let suppliers = || Suppliers {
        host: Arc::clone(&way),
        peers: vec![("host".to_owned(), Arc::clone(&way))],
        ..nobody()
    };
    let (progress, _) = watch::channel(Progress::default());
    let before = SliceKey {
        layers: 0..2,
        ..world.job.key().clone()
    };
    drop(
        obtain(&before, suppliers(), &cache, &roomy, &progress)
            .await
            .unwrap(),
    );
    let (bytes, progress) = get(&world, &cache, suppliers()).await;
    assert_eq!(bytes.unwrap(), world.expected());
    // Of layers 1 and 2 the first was here.
    assert_eq!(progress.sources[0].tier, Tier::Local);
    let (local, peer) = (progress.sources[0].bytes, progress.sources[1].bytes);
    assert_eq!(local + peer, progress.bytes_total);
    assert_eq!(local, peer);
    // And what the cache has can be given on.
    let (_, model) = cache.headers(world.model.fingerprint()).unwrap();
    let (holding, _in_use) = cache.holding(&model).unwrap();
    let holding = holding.unwrap();
    assert!(holding.tensors().any(|has| !has));
    assert_eq!(holding.model(), world.model.fingerprint());
}

#[tokio::test]
async fn all_of_a_model_is_a_file_of_it_and_stays_while_it_is_in_use() {
    let world = World::of(0..4, SliceRole::Whole);
    let cache = world.cache("cache");
    let way = Arc::new(world.member().way());
    let suppliers = Suppliers {
        host: Arc::clone(&way),
        peers: vec![("host".to_owned(), way)],
        ..nobody()
    };
    let (bytes, _) = get(&world, &cache, suppliers).await;
    assert!(bytes.unwrap() == world.file);
    // Every tensor can be given on.
    let (holding, in_use) = cache.holding(&world.model).unwrap();
    assert!(holding.unwrap().tensors().all(|has| has));
    let kept = || cache.lookup(world.job.key()).unwrap();
    // Somebody has it in use.
    assert!(!cache.forget(world.job.key()));
    assert!(kept().is_some());
    drop(in_use);
    assert!(cache.forget(world.job.key()));
    assert!(kept().is_none());
}

#[tokio::test(start_paused = true)]
async fn without_the_host_nothing_is_believed() {
    let world = World::new();
    let member = world.member();
    let suppliers = Suppliers {
        peers: vec![("member".to_owned(), Arc::new(member.way()))],
        ..nobody()
    };
    let (bytes, _) = get(&world, &world.cache("cache"), suppliers).await;
    assert!(matches!(bytes.unwrap_err(), ObtainError::Headers(_)));
    // With the headers at hand it is the hashes that are missing.
    let cache = world.cache("other");
    let sources = [world.file.as_slice()];
    let headers = split::weights::Headers::of(&world.model, &sources).unwrap();
    cache
        .save_headers(world.model.fingerprint(), &headers)
        .unwrap();
    let suppliers = Suppliers {
        peers: vec![("member".to_owned(), Arc::new(member.way()))],
        ..nobody()
    };
    let (bytes, _) = get(&world, &cache, suppliers).await;
    assert!(matches!(bytes.unwrap_err(), ObtainError::Manifest(_)));
}

#[tokio::test(start_paused = true)]
async fn the_hub_is_the_last_to_be_asked() {
    let world = World::of(2..4, SliceRole::Tail);
    let holding = Holding::whole(&Model::open(&world.path).unwrap()).unwrap();
    let path = Some(world.path.clone());
    // A hub that is not there does not matter while a member gives everything.
    let hub = || HubFiles {
        hub: "http://127.0.0.1:1".to_owned(),
        repo: "acme/model".to_owned(),
        revision: "main".to_owned(),
        files: vec!["model.gguf".to_owned()],
        token: None,
    };
    for (grant, good) in [(Grant::Weights, true), (Grant::Proof, false)] {
        let holding = Some(holding.clone());
        let cache = world.cache(&format!("{grant:?}"));
        let member = Member::granting(grant, holding, path.clone(), cache.clone());
        let way = Arc::new(member.way());
        let suppliers = Suppliers {
            own: None,
            host: Arc::clone(&way),
            peers: vec![("host".to_owned(), way)],
            hub: Some(hub()),
        };
        let (bytes, _) = get(&world, &cache, suppliers).await;
        assert_eq!(bytes.is_ok(), good, "{grant:?}");
    }
}
