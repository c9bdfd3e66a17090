//! The folder of slices: what is used stays, what is old goes, and nothing half-made has a name.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use gguf::SliceRole;
use split::weights::{
    Cache, CacheError, CachedSlice, FetchError, Manifest, Progress, SliceJob, SliceKey, fetch,
};
use tokio::sync::watch;

use crate::world::World;

fn key(world: &World, first: u32) -> SliceKey {
    SliceKey {
        layers: first..first + 1,
        ..world.job.key().clone()
    }
}

async fn add(world: &World, cache: &Cache, first: u32) -> Result<CachedSlice, FetchError> {
    let key = key(world, first);
    let job = Arc::new(SliceJob::of(&world.model, key.layers, key.role).unwrap());
    let manifest = Manifest::compute(&job, &[world.file.as_slice()], |_| true).unwrap();
    let sources = vec![world.source("member", world.member().way())];
    let (progress, _) = watch::channel(Progress::default());
    fetch(
        job,
        &manifest,
        sources,
        cache,
        &crate::world::roomy,
        &progress,
    )
    .await
}

/// Makes a slice look as if it had been used so many hours ago.
fn age(slice: &CachedSlice, hours: u64) {
    let file = std::fs::File::options()
        .write(true)
        .open(slice.path())
        .unwrap();
    let time = SystemTime::now() - Duration::from_secs(3_600 * hours);
    file.set_modified(time).unwrap();
}

#[tokio::test]
async fn what_was_not_used_for_longest_goes_and_what_is_in_use_stays() {
    let world = World::of(0..1, SliceRole::Stage);
    let bytes = world.job.plan().file_bytes();
    // Room for three, with some for the file system's blocks.
    let folder = world.folder.path().join("cache");
    let cache = Cache::open(folder, bytes * 3 + bytes / 2).unwrap();
    for (first, hours) in [(0, 3), (1, 2), (2, 1)] {
        let slice = add(&world, &cache, first).await.unwrap();
        age(&slice, hours);
    }
    std::fs::write(cache.folder().join("notes.gguf"), "of somebody else").unwrap();
    // The oldest is in use: the next one goes.
    let in_use = cache.lookup(&key(&world, 0)).unwrap().unwrap();
    age(&in_use, 9);
    drop(add(&world, &cache, 3).await.unwrap());
    assert!(cache.lookup(&key(&world, 1)).unwrap().is_none());
    for first in [0, 2, 3] {
        assert!(
            cache.lookup(&key(&world, first)).unwrap().is_some(),
            "{first}"
        );
    }
    assert_eq!(cache.slices(world.model.fingerprint()).unwrap().len(), 3);

    // With all of them in use nothing goes, and the new one is refused.
    let others = [2, 3].map(|first| cache.lookup(&key(&world, first)).unwrap().unwrap());
    let error = add(&world, &cache, 1).await.unwrap_err();
    assert!(
        matches!(error, FetchError::Cache(CacheError::Full { .. })),
        "{error}"
    );
    drop((in_use, others));
    add(&world, &cache, 1).await.unwrap();
    assert!(cache.folder().join("notes.gguf").exists());
}

#[tokio::test]
async fn what_is_of_no_more_use_goes_unless_it_is_in_use() {
    let world = World::of(0..1, SliceRole::Stage);
    let cache = world.cache("cache");
    for first in [0, 1] {
        drop(add(&world, &cache, first).await.unwrap());
    }
    let in_use = cache.lookup(&key(&world, 0)).unwrap().unwrap();
    for first in [0, 1, 2] {
        let is_gone = cache.forget(&key(&world, first));
        assert_eq!(is_gone, first != 0, "{first}");
    }
    let left = cache.slices(world.model.fingerprint()).unwrap();
    assert_eq!(left, [key(&world, 0)]);
    drop(in_use);
    assert!(cache.forget(&key(&world, 0)));
    assert_eq!(std::fs::read_dir(cache.folder()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_slice_that_can_never_fit_is_refused() {
    let world = World::of(0..1, SliceRole::Stage);
    let cache = Cache::open(world.folder.path().join("cache"), 1000).unwrap();
    let error = add(&world, &cache, 0).await.unwrap_err();
    assert!(matches!(
        error,
        FetchError::Cache(CacheError::TooLarge {
            bytes_max: 1000,
            ..
        })
    ));
    assert_eq!(std::fs::read_dir(cache.folder()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_full_disk_is_told_before_anything_is_asked_for() {
    let world = World::new();
    let cache = world.cache("cache");
    let way = world.member().way();
    let opened = Arc::clone(&way.opened);
    let sources = vec![world.source("member", way)];
    let (progress, _) = watch::channel(Progress::default());
    let needed = world.job.plan().file_bytes();
    let free = move |_: &Path| -> io::Result<u64> { Ok((1 << 30) + needed - 1) };
    let job = Arc::clone(&world.job);
    let error = fetch(job, &world.manifest, sources, &cache, &free, &progress)
        .await
        .unwrap_err();
    assert!(
        matches!(error, FetchError::NoSpace { needed: n, .. } if n == needed),
        "{error}"
    );
    assert!(error.to_string().contains("hint:"));
    assert_eq!(opened.load(std::sync::atomic::Ordering::SeqCst), 0);
}

#[tokio::test]
async fn two_fetches_of_one_slice_do_not_meet() {
    let world = World::new();
    let cache = world.cache("cache");
    let member = world.member();
    let (a, b) = tokio::join!(
        world.fetch(&cache, vec![world.source("a", member.way())]),
        world.fetch(&cache, vec![world.source("b", member.way())]),
    );
    let results = [a.0, b.0];
    let good = results.iter().flatten().count();
    assert!(good >= 1);
    for result in results {
        if let Err(error) = result {
            assert!(
                matches!(error, FetchError::Cache(CacheError::Busy { .. })),
                "{error}"
            );
        }
    }
    let slice = cache.lookup(world.job.key()).unwrap().unwrap();
    assert_eq!(std::fs::read(slice.path()).unwrap(), world.expected());
}
