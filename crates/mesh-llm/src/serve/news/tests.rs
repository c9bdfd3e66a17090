use mesh::NodeId;
use node::{LayoutStage, Machine, MemberStatus, MeshStatus, ModelStatus, Role};

use super::*;

fn snapshot(models: &[(&str, ModelState)], mesh: Option<MeshStatus>) -> Snapshot {
    Snapshot {
        started_unix_s: 0,
        version: "1",
        models: models
            .iter()
            .map(|(name, state)| ModelStatus {
                name: (*name).to_owned(),
                state: state.clone(),
                info: None,
                load: Default::default(),
                layout: None,
                loading: Vec::new(),
            })
            .collect(),
        shutting_down: false,
        machine: Machine::default(),
        mesh: mesh.map(Arc::new),
        targets: Vec::new(),
        demand: Vec::new(),
    }
}

fn mesh(id: u8, members: &[(u8, Liveness)]) -> Option<MeshStatus> {
    let member = |&(number, liveness): &(u8, Liveness)| MemberStatus {
        id: NodeId::from_bytes([number; 32]),
        liveness,
        role: Role::Serving,
        machine: Machine {
            name: format!("n{number}\u{7}"),
            ..Machine::default()
        },
        version: "1".to_owned(),
        started_unix_ms: 0,
        serving: Vec::new(),
        local: Vec::new(),
        wanted: Vec::new(),
        round_trip_us: None,
        connected: true,
    };
    Some(MeshStatus {
        id: MeshId::from_bytes([id; 32]),
        name: None,
        me: NodeId::from_bytes([1; 32]),
        role: Role::Serving,
        members: members.iter().map(member).collect(),
        clients: 0,
        links: Vec::new(),
    })
}

fn told(before: &Snapshot, now: &Snapshot) -> Vec<String> {
    news(before, now).iter().map(News::sentence).collect()
}

#[test]
fn models_are_told_when_they_come_fail_and_go() {
    let loading = || ModelState::Loading { progress: 0.5 };
    let failed = ModelState::Failed {
        reason: "torn".to_owned(),
    };
    let before = snapshot(
        &[("a", loading()), ("b", loading()), ("c", ModelState::Ready)],
        None,
    );
    let now = snapshot(
        &[("a", ModelState::Ready), ("b", failed), ("d", loading())],
        None,
    );
    let expected = ["`a` is ready", "`b` failed: torn", "`c` is dropped"];
    assert_eq!(told(&before, &now), expected);
    assert_eq!(told(&now, &now), [""; 0]);
}

#[test]
fn people_see_on_which_machine_a_model_runs_whole() {
    let on = |host: &str| {
        let host = host.to_owned();
        snapshot(&[("big", ModelState::Elsewhere { host })], None)
    };
    let expected = ["model `big` runs whole on attic"];
    assert_eq!(told(&snapshot(&[], None), &on("attic")), expected);
    assert_eq!(told(&on("attic"), &on("attic")), [""; 0]);
    let expected = ["model `big` runs whole on cellar"];
    assert_eq!(told(&on("attic"), &on("cellar")), expected);
}

#[test]
fn people_see_where_a_split_model_runs_pauses_and_goes_on() {
    let stage = |number: u8, name: &str, first_layer, last_layer| LayoutStage {
        node: NodeId::from_bytes([number; 32]),
        name: name.into(),
        first_layer,
        last_layer,
    };
    let layout = |worker: &str, waiting: Option<&str>| Layout {
        stages: vec![stage(1, worker, 0, 11), stage(2, "me", 12, 23)],
        predicted_tokens_per_second: 17.0,
        predicted_first_token: Vec::new(),
        measured_tokens_per_second: None,
        waiting: waiting.map(str::to_owned),
    };
    let split = |layout| {
        let mut snapshot = snapshot(&[("big", ModelState::Ready)], None);
        snapshot.models[0].layout = Some(Arc::new(layout));
        snapshot
    };
    let waits = ModelState::Waiting {
        reason: "needs 5 GB".into(),
    };
    let steps = [
        snapshot(&[("big", waits)], None),
        split(layout("attic", None)),
        split(layout("attic", Some("attic is gone"))),
        split(layout("cellar", None)),
        split(layout("shed", None)),
        // A measured speed is no news.
        split(Layout {
            measured_tokens_per_second: Some(16.0),
            ..layout("shed", None)
        }),
    ];
    let told: Vec<_> = (steps.windows(2))
        .flat_map(|pair| told(&pair[0], &pair[1]))
        .collect();
    let over = |worker: &str| {
        format!("over 2 machines: layers 0-11 on {worker}, 12-23 + head here; predicted 17 tok/s")
    };
    assert_eq!(
        told,
        [
            format!("model `big` is ready {}", over("attic")),
            "`big` pauses: attic is gone".to_owned(),
            format!("model `big` goes on {}", over("cellar")),
            format!("model `big` goes on {}", over("shed")),
        ]
    );
}

#[test]
fn the_mesh_is_told_when_it_and_its_members_come_and_go() {
    use Liveness::{Alive, Dead, Left, Suspect};
    let of = |mesh| snapshot(&[], mesh);
    let check = |before, now, expected: &[&str]| {
        assert_eq!(told(&of(before), &of(now)), expected);
    };
    check(None, mesh(9, &[(1, Alive)]), &["in the mesh 0909090909"]);
    check(
        mesh(9, &[(1, Alive)]),
        None,
        &["out of the mesh 0909090909"],
    );
    check(
        mesh(9, &[(1, Alive), (2, Alive)]),
        mesh(8, &[(1, Alive), (3, Alive)]),
        &["out of the mesh 0909090909", "in the mesh 0808080808"],
    );
    check(
        mesh(9, &[(2, Alive), (3, Suspect), (4, Alive), (6, Dead)]),
        mesh(
            9,
            &[(2, Left), (3, Dead), (4, Suspect), (5, Alive), (6, Alive)],
        ),
        &[
            "n2 (0202020202) left",
            "n3 (0303030303) is gone",
            "n5 (0505050505) is here",
            "n6 (0606060606) is here",
        ],
    );
}
