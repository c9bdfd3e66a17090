//! A node that stops while others answer what it was asked.

use std::time::Duration;

use engine::Error;

use crate::script::Script;
use crate::world::{connect, knows, node, piece, request, rest, within};

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_that_stops_passes_on_what_peers_have_begun() {
    let script = Script::with("m", 1, 5);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let mut events = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut events).await, "0 ");
    let stopping = tokio::spawn({
        let node = b.node.clone();
        async move { node.shutdown(Duration::from_secs(60)).await }
    });
    // It takes nothing new.
    while !b.is_shutting_down() {
        tokio::task::yield_now().await;
    }
    let refused = within(b.generate(request("m"))).await.err();
    assert!(matches!(refused, Some(Error::ShuttingDown)), "{refused:?}");
    assert!(!stopping.is_finished());
    script.permits.add_permits(100);
    assert_eq!(rest(&mut events).await.1, Ok(()));
    drop(events);
    within(stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_waits_no_longer_than_it_was_told() {
    let script = Script::with("m", 1, 2);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let mut events = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut events).await, "0 ");
    within(b.shutdown(Duration::from_millis(300))).await;
    assert!(rest(&mut events).await.1.is_err());
}
