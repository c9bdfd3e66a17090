//! Three machines over real QUIC on loopback: one asks another how far the third is.

use mesh::admission::Invite;
use mesh::announcement::{NodeInfo, NodeState};
use mesh::net::{Network, Settings, Streams};
use mesh::proto::Liveness;
use mesh::ticket::Ticket;
use tokio_util::task::AbortOnDropHandle;

use super::super::pool::{Own, Scene, round_trip};
use super::*;

/// Ends a test that hangs. Nothing here takes long; the machine may be busy.
const HANG: Duration = Duration::from_secs(90);

const PATIENT: Waits = Waits {
    ask: HANG,
    measure: Duration::from_secs(40),
    rest: MOMENT,
};

const MOMENT: Duration = Duration::from_millis(1);

/// A member, and what answers its peers.
struct Machine {
    mesh: Mesh,
    distances: Distances,
    _answers: AbortOnDropHandle<()>,
}

impl Machine {
    fn new((mesh, mut streams): (Mesh, Streams)) -> Self {
        let calls = Arc::new(Calls::new(HANG));
        let distances = Distances::with(mesh.clone(), calls, PATIENT);
        let own = distances.clone();
        let answers = async move {
            let mut tasks = tokio::task::JoinSet::new();
            while let Some(stream) = streams.next().await {
                assert_eq!(stream.kind, DISTANCES);
                let own = own.clone();
                tasks.spawn(async move { own.answer(stream).await });
            }
        };
        Self {
            mesh,
            distances,
            _answers: AbortOnDropHandle::new(tokio::spawn(answers)),
        }
    }

    async fn join(ticket: &Ticket) -> Self {
        Self::new(within(Mesh::join(settings(), ticket)).await.unwrap())
    }

    fn node(&self) -> NodeId {
        self.mesh.node_id()
    }
}

fn settings() -> Settings {
    let info = NodeInfo {
        state: NodeState::Standby,
        memory_free_bytes: 1 << 30,
        ..NodeInfo::default()
    };
    Settings {
        network: Network::loopback(),
        ..Settings::new(None, info)
    }
}

async fn within<T>(future: impl Future<Output = T>) -> T {
    timeout(HANG, future).await.expect("it hangs")
}

fn is_there(view: &View, node: NodeId) -> bool {
    let member = view.member(node);
    member.is_some_and(|member| member.liveness == Liveness::Alive)
}

/// A host with two others, and what it sees before these two have told of each other.
async fn three() -> ([Machine; 3], Arc<View>) {
    let host = Machine::new(within(Mesh::create(settings(), None)).await.unwrap());
    let ticket = within(host.mesh.invite(Invite::default())).await.unwrap();
    let others = [Machine::join(&ticket).await, Machine::join(&ticket).await];
    let [one, other] = &others;
    let (a, b) = (one.node(), other.node());
    let mut views = host.mesh.view();
    let seen = views.wait_for(|view| {
        let has_told = view.round_trip_us(a, b).is_some();
        is_there(view, a) && is_there(view, b) && !has_told
    });
    let view: Arc<View> = Arc::clone(&within(seen).await.unwrap());
    let [one, other] = others;
    // Those that are asked must know each other.
    for (machine, node) in [(&one, b), (&other, a)] {
        let mut views = machine.mesh.view();
        let seen = views.wait_for(|view| is_there(view, node));
        drop(within(seen).await.unwrap());
    }
    ([host, one, other], view)
}

#[tokio::test]
async fn what_two_members_measure_reaches_the_pool_of_a_third() {
    let ([host, one, other], view) = three().await;
    let (a, b) = (one.node(), other.node());
    let (nobody, nothing) = (BTreeSet::new(), BTreeMap::new());
    let told = |from: NodeId, to: NodeId| host.distances.us(from, to);
    let scene = Scene {
        view: &view,
        own: Own {
            node: host.node(),
            memory_bytes: Some(1 << 30),
            compute: None,
        },
        fingerprint: "",
        measured: &|_, _| None,
        told: &told,
        without: &nobody,
        stage_bytes: 0,
        held: &nothing,
        beside: false,
        most_bytes: &|_| None,
    };
    let unlinked = scene.unlinked();
    assert!(
        unlinked.contains(&(a, b)) || unlinked.contains(&(b, a)),
        "{unlinked:?}"
    );
    assert_eq!(told(a, b).max(told(b, a)), None);
    host.distances.ask(&unlinked).await;
    let us = told(a, b).max(told(b, a)).expect("nobody has measured it");
    let pool = scene.pool().unwrap();
    assert_eq!(pool.round_trip(a, b), Some(round_trip(us)));
    // What is known is not asked for again.
    let again = host.distances.surveyor.questions(&[(a, b)]);
    assert!(again.is_empty(), "{again:?}");
}

#[tokio::test]
async fn a_member_measures_only_to_members_and_once_at_a_time() {
    let ([host, one, other], _) = three().await;
    let (a, b) = (one.node(), other.node());
    let stranger = NodeId::from_bytes([9; 32]);
    let ask = |about: Vec<NodeId>| {
        let mesh = &host.mesh;
        async move { within(exchange(mesh, a, &about)).await.unwrap() }
    };
    let held = one.distances.surveyor.enter(host.node());
    assert!(held.is_some());
    assert!(ask(vec![b]).await.is_empty());
    drop(held);
    let trips = ask(vec![stranger, a, b, b]).await;
    let nodes: Vec<NodeId> = trips.iter().map(|(node, _)| *node).collect();
    assert_eq!(nodes, [b]);
    assert!(trips.iter().all(|(_, us)| is_plausible(*us)));
    // Too many at once are not even read.
    let nodes = vec![b; crate::wire::trips::TRIPS_MAX + 1];
    assert!(ask(nodes).await.is_empty());
}

/// A dial goes on when nobody waits for it any more, and as long as it does it counts.
#[tokio::test]
async fn a_place_is_given_back_with_the_last_dial() {
    let (mesh, _streams) = within(Mesh::create(settings(), None)).await.unwrap();
    let waits = Waits {
        measure: MOMENT,
        ..PATIENT
    };
    let distances = Distances::with(mesh, Arc::new(Calls::new(HANG)), waits);
    let surveyor = &distances.surveyor;
    let (near, far) = (NodeId::from_bytes([1; 32]), NodeId::from_bytes([2; 32]));
    let (end, ended) = tokio::sync::oneshot::channel::<()>();
    let dial = async move {
        ended.await.unwrap();
        (far, false)
    };
    let attempts = [std::future::ready((near, true)).boxed(), dial.boxed()];
    let mut rest = Rest {
        attempts: attempts.into_iter().collect(),
        place: surveyor.enter(near).unwrap(),
    };
    within(surveyor.measure(&mut rest.attempts)).await;
    assert_eq!(rest.attempts.len(), 1);
    let mut running = std::pin::pin!(rest.run());
    assert!(timeout(20 * MOMENT, &mut running).await.is_err());
    assert!(surveyor.enter(near).is_none());
    end.send(()).unwrap();
    within(running).await;
    assert!(surveyor.enter(near).is_some());
}

#[tokio::test]
async fn few_members_have_something_measured_at_a_time() {
    let (mesh, _streams) = within(Mesh::create(settings(), None)).await.unwrap();
    let distances = Distances::with(mesh, Arc::new(Calls::new(HANG)), PATIENT);
    let enter = |number: usize| {
        let node = NodeId::from_bytes([number as u8; 32]);
        distances.surveyor.enter(node)
    };
    let mut places: Vec<_> = (0..MEASURING_MAX).filter_map(enter).collect();
    assert_eq!(places.len(), MEASURING_MAX);
    assert!(enter(MEASURING_MAX).is_none());
    places.pop();
    assert!(enter(MEASURING_MAX).is_some());
}
