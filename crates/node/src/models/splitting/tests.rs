use super::*;

/// What others are told of the only model, if this node hosts it.
fn told(models: &Models) -> Option<SplitStage> {
    let table = models.table();
    let hosting = table.splits().find(|hosting| hosting.term.is_some());
    hosting.map(|hosting| hosting.stage)
}

/// A model that this node's owner asked for, with this node as its host.
fn hosted() -> (Arc<Models>, u64) {
    let models = Models::empty(None);
    let id = models.begin_split("m", true).unwrap();
    models.split_is(id, Facts::default());
    assert_eq!(told(&models), None);
    models.split_begins(id, 1, false);
    (models, id)
}

#[test]
fn streams_may_hope_while_another_machine_loads_all_of_a_model() {
    let (models, id) = hosted();
    assert_eq!(told(&models), Some(SplitStage::Coming));
    for host in ["b", "c"] {
        models.split_asks(id, host.into());
        assert_eq!(told(&models), Some(SplitStage::Coming), "{host} loads it");
        let status = models.table().status();
        let crate::ModelState::Waiting { reason } = &status[0].state else {
            panic!("{status:?}");
        };
        assert!(reason.starts_with(host), "{reason}");
        models.split_is_whole(id, host.into());
        assert_eq!(told(&models), Some(SplitStage::Coming), "{host} runs it");
        models.split_begins_anew(id);
        assert_eq!(told(&models), Some(SplitStage::Coming), "{host} is lost");
    }
}

#[test]
fn the_owner_sees_how_much_of_a_model_another_machine_has() {
    let (models, id) = hosted();
    // Nobody was asked.
    models.split_fetches(id, 7);
    assert_eq!(
        models.table().status()[0].state,
        crate::ModelState::Loading { progress: 0.0 }
    );
    models.split_asks(id, "b".into());
    for (percent, expected) in [
        (7, "b fetches all of it (7 %)"),
        (99, "b fetches all of it (99 %)"),
        (100, "b loads all of it"),
    ] {
        models.split_fetches(id, percent);
        let reason = expected.to_owned();
        let waiting = crate::ModelState::Waiting { reason };
        assert_eq!(models.table().status()[0].state, waiting);
        assert_eq!(told(&models), Some(SplitStage::Coming));
    }
}

#[test]
fn streams_may_not_hope_once_nobody_has_room_for_a_model() {
    let (models, id) = hosted();
    models.split_asks(id, "b".into());
    models.split_waits(id, "no room".into());
    assert_eq!(told(&models), Some(SplitStage::Waiting));
    // Nobody is asked, and nothing runs it, after that either.
    models.split_asks(id, "b".into());
    models.split_yields(id, "c hosts it".into());
    assert_eq!(told(&models), None);
    models.split_begins(id, 2, true);
    models.split_waits(id, "no room".into());
    assert_eq!(told(&models), Some(SplitStage::Waiting));
}

#[test]
fn a_host_is_what_it_began_as_until_it_begins_again() {
    let (models, id) = hosted();
    assert!(!models.split_follows(id));
    // It had been missed for a moment, and claims the model anew.
    models.split_begins(id, 3, true);
    assert!(!models.split_follows(id));
    models.split_yields(id, "c hosts it".into());
    models.split_begins(id, 5, true);
    assert!(models.split_follows(id));
    models.split_begins(id, 7, false);
    assert!(models.split_follows(id));
    models.split_yields(id, "c hosts it".into());
    assert!(!models.split_follows(id));
    models.split_begins(id, 8, false);
    assert!(!models.split_follows(id));
}

#[test]
fn what_was_dropped_is_known_by_its_content() {
    let (models, id) = hosted();
    let dropped = |models: &Models| models.table().models[0].dropped();
    assert_eq!(dropped(&models).fingerprint, None, "it is unknown");
    let facts = Facts {
        fingerprint: "f".into(),
        ..Facts::default()
    };
    models.split_is(id, facts);
    assert_eq!(dropped(&models).name, "m");
    assert_eq!(dropped(&models).fingerprint.as_deref(), Some("f"));
}
