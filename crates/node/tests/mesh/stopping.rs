//! Nodes that stop while an answer runs between them.

use std::sync::Arc;
use std::time::Duration;

use engine::{Error, EventStream};
use tokio::task::JoinHandle;

use crate::script::Script;
use crate::world::{World, connect, knows, node, piece, request, rest, until, within};

/// An answer of which the ingress has the first token; the host needs permits for the last ones.
struct Begun {
    events: EventStream,
    ingress: World,
    host: World,
    script: Arc<Script>,
}

/// Waits for an answer that has begun, by a host with permits for so many tokens.
async fn begun(permits: usize) -> Begun {
    let script = Script::with("m", 1, permits);
    let (host, ingress) = (node("a", &[&script]), node("b", &[]));
    connect(&[&host, &ingress]).await;
    knows(&ingress, "m", 1).await;
    let mut events = within(ingress.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut events).await, "0 ");
    Begun {
        events,
        ingress,
        host,
        script,
    }
}

impl Begun {
    /// Lets the answer go on, and sees it to its end.
    async fn finish(&mut self) {
        self.script.permits.add_permits(100);
        assert_eq!(rest(&mut self.events).await.1, Ok(()));
    }
}

/// Stops a node, with time enough for what it has begun.
fn stop(world: &World) -> JoinHandle<()> {
    let node = world.node.clone();
    tokio::spawn(async move { node.shutdown(Duration::from_secs(60)).await })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_stops_finishes_what_it_began() {
    let mut answer = begun(5).await;
    let stopping = stop(&answer.host);
    // It is taken off the list at once.
    knows(&answer.ingress, "m", 0).await;
    assert!(matches!(
        within(answer.ingress.generate(request("m"))).await.err(),
        Some(Error::ModelNotFound { .. })
    ));
    answer.finish().await;
    within(stopping).await.unwrap();
    // It said goodbye.
    until(&answer.ingress, |snapshot| {
        let mesh = snapshot.mesh.as_ref().unwrap();
        let left = |member: &node::MemberStatus| {
            member.machine.name == "a" && member.liveness == mesh::proto::Liveness::Left
        };
        mesh.members.iter().any(left)
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_that_stops_passes_on_what_peers_have_begun() {
    let mut answer = begun(5).await;
    let stopping = stop(&answer.ingress);
    // It takes nothing new.
    while !answer.ingress.is_shutting_down() {
        tokio::task::yield_now().await;
    }
    let refused = within(answer.ingress.generate(request("m"))).await.err();
    assert!(matches!(refused, Some(Error::ShuttingDown)), "{refused:?}");
    assert!(!stopping.is_finished());
    answer.finish().await;
    drop(answer.events);
    within(stopping).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingress_waits_no_longer_than_it_was_told() {
    let mut answer = begun(2).await;
    within(answer.ingress.shutdown(Duration::from_millis(300))).await;
    assert!(rest(&mut answer.events).await.1.is_err());
}
