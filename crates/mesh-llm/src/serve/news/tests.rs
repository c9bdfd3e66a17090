use mesh::NodeId;
use node::{Machine, MemberStatus, MeshStatus, ModelStatus, Role};

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
