//! `GET /api/status`, over HTTP and from made-up snapshots of a mesh.

use std::sync::Arc;
use std::time::Duration;

use api::management::{Change, Config, Event, Liveness, ModelPhase, PathKind, Role, Status};
use engine::Load;
use mesh::net::{Link, Path};
use mesh::{MeshId, NodeId};
use node::{
    Demand, Host, HostedModel, Machine, MemberStatus, MeshStatus, ModelState, ModelStatus, Node,
    Snapshot, Target,
};
use serde_json::Value;

use super::loader::{Order, loading};
use crate::script::{Scripted, info, say};
use crate::server::{Server, json};

/// A node in a mesh of three, one of them dead.
pub(crate) fn snapshot() -> Snapshot {
    let me = NodeId::from_bytes([1; 32]);
    Snapshot {
        started_unix_s: 1_700_000_000,
        version: "0.1.0",
        models: vec![ModelStatus {
            name: "small".to_owned(),
            state: ModelState::Ready,
            info: Some(Arc::new(info("small"))),
            load: Load {
                running: 2,
                waiting: 1,
                generated_tokens_total: 99,
                ..Load::default()
            },
            layout: None,
            loading: Vec::new(),
        }],
        shutting_down: false,
        machine: machine("attic"),
        mesh: Some(Arc::new(MeshStatus {
            id: MeshId::from_bytes([9; 32]),
            name: Some("home".to_owned()),
            me,
            role: node::Role::Serving,
            members: vec![
                member(1, mesh::proto::Liveness::Alive, node::Role::Serving),
                member(2, mesh::proto::Liveness::Alive, node::Role::Standby),
                member(3, mesh::proto::Liveness::Dead, node::Role::Serving),
            ],
            clients: 4,
            links: vec![link()],
        })),
        targets: vec![Target {
            model: "small".to_owned(),
            size_bytes: 4,
            context_tokens: 512,
            hosts: vec![Host {
                node: Some(me),
                name: "attic".to_owned(),
                local: true,
                slots: 4,
                busy: 2,
                queued: 1,
            }],
        }],
        demand: vec![Demand {
            model: "small".to_owned(),
            per_minute: 12.345,
            here_per_minute: 0.04,
        }],
    }
}

fn machine(name: &str) -> Machine {
    Machine {
        name: name.to_owned(),
        region: "eu".to_owned(),
        devices: vec!["CPU".to_owned()],
        memory_total_bytes: 8 << 30,
        memory_free_bytes: 6 << 30,
        bandwidth_mb_s: Some(80_000),
    }
}

fn member(number: u8, liveness: mesh::proto::Liveness, role: node::Role) -> MemberStatus {
    MemberStatus {
        id: NodeId::from_bytes([number; 32]),
        liveness,
        role,
        machine: machine(&format!("machine-{number}")),
        version: "0.1.0".to_owned(),
        started_unix_ms: 1_700_000_000_000,
        serving: vec![HostedModel {
            name: "large".to_owned(),
            fingerprint: "abc".to_owned(),
            size_bytes: 1 << 30,
            context_tokens: 4096,
            slots: 8,
            busy: 1,
            queued: 0,
        }],
        local: vec!["large".to_owned()],
        wanted: Vec::new(),
        round_trip_us: Some(1500),
        connected: true,
    }
}

fn link() -> Link {
    Link {
        node: NodeId::from_bytes([2; 32]),
        role: mesh::Role::Serve,
        path: Path::Direct("10.0.0.2:4000".parse().unwrap()),
        round_trip: Duration::from_micros(1500),
        sent_bytes: 1000,
        received_bytes: 2000,
        age: Duration::from_secs(60),
        streams: 1,
    }
}

fn status() -> Status {
    Status::of(&snapshot(), Some("http://127.0.0.1:9337/v1"))
}

#[test]
fn the_state_of_a_mesh_on_the_wire() {
    let mut wire = serde_json::to_value(status()).unwrap();
    // Counted back from now.
    wire["links"][0]["since_unix_s"] = 0.into();
    insta::assert_snapshot!(serde_json::to_string_pretty(&wire).unwrap());
}

#[test]
fn the_state_reads_back_also_from_a_newer_version() {
    let status = status();
    let mut wire = serde_json::to_value(&status).unwrap();
    assert_eq!(
        serde_json::from_value::<Status>(wire.clone()).unwrap(),
        status
    );
    wire["news"] = 1.into();
    wire["node"]["role"] = "emperor".into();
    wire["peers"][0]["liveness"] = "asleep".into();
    wire["models"][0]["state"] = "dreaming".into();
    wire["links"][0]["path"] = "tunnelled".into();
    let newer: Status = serde_json::from_value(wire).unwrap();
    assert_eq!(newer.node.role, Role::Other);
    assert_eq!(newer.peers[0].liveness, Liveness::Other);
    assert_eq!(newer.models[0].state, ModelPhase::Other);
    assert_eq!(newer.links[0].path, PathKind::Unknown);
}

#[test]
fn a_node_alone_says_what_it_does() {
    let check = |states: &[ModelState], expected: Role| {
        let mut snapshot = snapshot();
        snapshot.mesh = None;
        let model = snapshot.models.remove(0);
        snapshot.models = states
            .iter()
            .map(|state| ModelStatus {
                state: state.clone(),
                ..model.clone()
            })
            .collect();
        let status = Status::of(&snapshot, None);
        assert_eq!(status.node.role, expected);
        assert_eq!((status.node.id, status.node.api_url), (None, None));
        assert!(status.peers.is_empty() && status.links.is_empty());
    };
    let loading = ModelState::Loading { progress: 0.5 };
    let failed = ModelState::Failed {
        reason: "torn".to_owned(),
    };
    check(&[], Role::Idle);
    check(std::slice::from_ref(&loading), Role::Joining);
    check(&[loading, ModelState::Ready], Role::Serving);
    check(&[failed, ModelState::Dropping], Role::Standby);
}

/// What a reader holds after the changes between two snapshots, sent over the wire.
fn followed(before: &Snapshot, after: &Snapshot) -> (Vec<&'static str>, Status, Status) {
    let mut told = Status::of(before, None);
    let mut read = told.clone();
    let mut names = Vec::new();
    for change in told.update(&Status::of(after, None)) {
        let (name, data) = Event::Change(change).write().unwrap();
        names.push(name);
        match Event::read(name, &data).unwrap().unwrap() {
            Event::Change(change) => read.apply(change),
            Event::Snapshot(_) => panic!("a change is no snapshot"),
        }
    }
    (names, told, read)
}

#[test]
fn changes_lead_from_one_state_to_the_next() {
    let check = |change: fn(&mut Snapshot, &mut MeshStatus), expected: &[&str]| {
        let before = snapshot();
        let mut after = snapshot();
        let mut mesh = after.mesh.take().unwrap().as_ref().clone();
        change(&mut after, &mut mesh);
        after.mesh = (!mesh.members.is_empty()).then(|| Arc::new(mesh));
        let (names, told, read) = followed(&before, &after);
        assert_eq!(names, expected);
        assert_eq!(told, read);
        if !expected.is_empty() {
            let mut wanted = Status::of(&after, None);
            let sorted = |status: &mut Status| {
                status.peers.sort_by(|left, right| left.id.cmp(&right.id));
            };
            let mut read = read;
            sorted(&mut wanted);
            sorted(&mut read);
            assert_eq!(read, wanted);
        }
    };
    check(|_, _| {}, &[]);
    check(|now, _| now.shutting_down = true, &["node"]);
    check(|_, mesh| mesh.clients = 5, &["mesh"]);
    check(|now, _| now.models[0].load.running = 3, &["model"]);
    check(|now, _| now.models.clear(), &["model_gone"]);
    check(|now, _| now.targets.clear(), &["target_gone"]);
    check(|now, _| now.targets[0].hosts[0].busy = 4, &["target"]);
    check(|now, _| now.demand.clear(), &["demand"]);
    check(
        |_, mesh| mesh.members[1].liveness = mesh::proto::Liveness::Suspect,
        &["peer"],
    );
    check(
        |_, mesh| {
            mesh.members.remove(2);
            mesh.members
                .push(member(4, mesh::proto::Liveness::Alive, node::Role::Joining));
        },
        &["peer_gone", "peer"],
    );
    check(|_, mesh| mesh.links.clear(), &["link_gone"]);
    check(
        |_, mesh| mesh.links[0].path = Path::Relayed("https://r.example/".into()),
        &["link"],
    );
    // Out of the mesh.
    check(
        |_, mesh| mesh.members.clear(),
        &["node", "mesh", "peer_gone", "peer_gone", "link_gone"],
    );
}

#[test]
fn figures_that_never_rest_are_told_when_they_have_moved() {
    let check = |change: fn(&mut Snapshot, &mut MeshStatus), expected: &[&str]| {
        let before = snapshot();
        let mut after = snapshot();
        let mut mesh = after.mesh.take().unwrap().as_ref().clone();
        change(&mut after, &mut mesh);
        after.mesh = Some(Arc::new(mesh));
        assert_eq!(followed(&before, &after).0, expected);
    };
    check(|now, _| now.machine.memory_free_bytes -= 1 << 20, &[]);
    check(|now, _| now.machine.memory_free_bytes -= 1 << 30, &["node"]);
    check(|now, _| now.demand[0].per_minute = 12.31, &[]);
    check(|now, _| now.demand[0].per_minute = 12.2, &["demand"]);
    check(|_, mesh| mesh.members[1].round_trip_us = Some(1600), &[]);
    check(
        |_, mesh| mesh.members[1].round_trip_us = Some(1800),
        &["peer"],
    );
    check(|_, mesh| mesh.members[1].round_trip_us = None, &["peer"]);
    check(
        |_, mesh| mesh.members[1].machine.memory_free_bytes += 1,
        &[],
    );
    check(|_, mesh| mesh.links[0].sent_bytes += 60_000, &[]);
    check(|_, mesh| mesh.links[0].sent_bytes += 70_000, &["link"]);
    check(
        |_, mesh| mesh.links[0].round_trip = Duration::from_micros(1510),
        &[],
    );
    check(
        |_, mesh| mesh.links[0].round_trip = Duration::from_millis(9),
        &["link"],
    );
    check(|_, mesh| mesh.links[0].age = Duration::from_secs(61), &[]);
}

/// Small steps add up: what is compared is what was told.
#[test]
fn slow_drift_is_told_in_the_end() {
    let mut told = Status::of(&snapshot(), None);
    let mut now = snapshot();
    let mut changes = Vec::new();
    for _ in 0..100 {
        now.machine.memory_free_bytes -= 16 << 20;
        changes.extend(told.update(&Status::of(&now, None)));
    }
    assert!((1..10).contains(&changes.len()), "{}", changes.len());
    assert!(
        changes
            .iter()
            .all(|change| matches!(change, Change::Node(_)))
    );
}

#[test]
fn events_of_a_newer_version_are_passed_over() {
    assert_eq!(Event::read("weather", "{}").unwrap(), None);
    assert!(Event::read("peer", "{}").is_err());
    let (name, data) = Event::Snapshot(status()).write().unwrap();
    let read = Event::read(name, &data).unwrap().unwrap();
    assert_eq!(read, Event::Snapshot(status()));
}

#[tokio::test]
async fn the_state_comes_over_http() {
    let (node, orders) = loading(&["first", "second"]).await;
    let config = Config {
        api_url: Some("http://127.0.0.1:1/v1".to_owned()),
        ..Config::default()
    };
    let server = Server::managing(node, config).await;
    let ask = async || json(server.get("/api/status").send().await.unwrap()).await;
    let (code, status) = ask().await;
    assert_eq!(code, 200);
    assert_eq!(status["schema"], 1);
    assert_eq!(status["mesh"], Value::Null);
    assert_eq!(status["node"]["role"], "joining");
    assert_eq!(status["node"]["api_url"], "http://127.0.0.1:1/v1");
    assert_eq!(status["models"][1]["state"], "loading");
    orders.send(Order::Fail("torn")).unwrap();
    orders.send(Order::Finish).unwrap();
    server.node.ready().await.unwrap_err();
    let mut watch = server.node.watch();
    let done = |snapshot: &Arc<Snapshot>| snapshot.models[1].state == ModelState::Ready;
    watch.wait_for(done).await.unwrap();
    let (_, status) = ask().await;
    let reason = status["models"][0]["reason"].as_str().unwrap();
    assert!(reason.contains("torn"), "{reason}");
    assert_eq!(status["models"][1]["state"], "ready");
    assert_eq!(status["models"][1]["slots"], 4);
}

#[tokio::test]
async fn requests_that_run_are_seen() {
    let model = Scripted::new(|_| Ok(say(&["ok"])));
    let server =
        Server::managing(Node::from_backends(vec![model.clone()]), Config::default()).await;
    model.live.send_replace(3);
    let (_, status) = json(server.get("/api/status").send().await.unwrap()).await;
    assert_eq!(status["models"][0]["running"], 3);
}
