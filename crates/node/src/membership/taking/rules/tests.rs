use mesh::announcement::{Model, ServedModel, SplitModel};

use super::*;

fn wanted() -> TakeUp {
    TakeUp {
        model: "m".into(),
        fingerprint: "f".into(),
        context_tokens: 4_096,
        slots: 0,
        fetch: false,
        tell_context: false,
    }
}

/// A model of the table; one that answers has some context.
fn known(name: &str, state: ModelState, fingerprint: Option<&str>) -> Known {
    Known {
        name: name.into(),
        state,
        fingerprint: fingerprint.map(str::to_owned),
        context_tokens: fingerprint.map(|_| 8_192),
        is_split: false,
    }
}

fn scene() -> Scene {
    Scene {
        is_client: false,
        is_closing: false,
        is_willing: true,
        is_from_server: true,
        is_claimed: true,
        is_name_taken: false,
        was_dropped: false,
        has_failed: false,
        is_loading: false,
        could_fetch: true,
        fetches: FETCHES_MAX - 1,
        kept: KEPT_MAX - 1,
        context_max: Some(8_192),
        context_trained: 8_192,
        known: Vec::new(),
    }
}

fn decided(change: impl FnOnce(&mut Scene)) -> Result<Begin, Refusal> {
    let mut scene = scene();
    change(&mut scene);
    decide(&wanted(), &scene)
}

fn loading() -> ModelState {
    ModelState::Loading { progress: 0.5 }
}

#[test]
fn what_is_on_the_disk_is_taken_up_once() {
    assert_eq!(decided(|_| {}), Ok(Begin::Load));
    type Decided = Result<Begin, Refusal>;
    let check = |name: &str, state: ModelState, fingerprint: Option<&str>, expected: Decided| {
        let known = known(name, state, fingerprint);
        let text = format!("{known:?}");
        let decided = decided(|scene| scene.known = vec![known]);
        assert_eq!(decided, expected, "{text}");
    };
    let failed = || ModelState::Failed {
        reason: "torn".into(),
    };
    check("m", loading(), Some("f"), Ok(Begin::Wait));
    check("m", ModelState::Ready, Some("f"), Ok(Begin::Wait));
    check("m", ModelState::Dropping, Some("f"), Err(Refusal::Leaving));
    // It is tried again.
    check("m", failed(), None, Ok(Begin::Load));
    check("M.gguf", failed(), None, Ok(Begin::Load));
    // Other models, and names that users take for this one.
    let taken = || Err(Refusal::NameTaken);
    check("m", ModelState::Ready, Some("another"), taken());
    check("M", ModelState::Ready, Some("another"), taken());
    check("m.gguf", ModelState::Ready, Some("another"), taken());
    check("M", loading(), None, taken());
    // A load of another model may take hours, and so may one that nobody knows more of.
    check("m", loading(), Some("another"), taken());
    check("m", loading(), None, Err(Refusal::Busy));
    check("n", loading(), Some("f"), Err(Refusal::OtherName));
    check("M", ModelState::Ready, Some("f"), Err(Refusal::OtherName));
    check("n", ModelState::Ready, Some("f"), Err(Refusal::OtherName));
    check("n", loading(), None, Ok(Begin::Load));
    check("n", ModelState::Ready, Some("another"), Ok(Begin::Load));
}

#[test]
fn the_name_as_it_is_written_counts_first() {
    let named = |name| known(name, ModelState::Ready, Some("f"));
    for names in [["M", "m"], ["m", "M"]] {
        let decided = decided(|scene| scene.known = names.map(named).to_vec());
        assert_eq!(decided, Ok(Begin::Wait), "{names:?}");
    }
}

#[test]
fn a_node_refuses_what_it_can_or_may_not_serve() {
    let check = |change: fn(&mut Scene), refusal: Refusal| {
        assert_eq!(decided(change), Err(refusal));
    };
    check(|scene| scene.is_client = true, Refusal::Client);
    check(|scene| scene.is_closing = true, Refusal::Closing);
    check(|scene| scene.is_willing = false, Refusal::Unwilling);
    check(|scene| scene.is_from_server = false, Refusal::NoServer);
    check(|scene| scene.is_claimed = false, Refusal::Unclaimed);
    check(|scene| scene.is_name_taken = true, Refusal::NameTaken);
    check(|scene| scene.was_dropped = true, Refusal::Dropped);
    check(|scene| scene.has_failed = true, Refusal::Failed);
    check(|scene| scene.context_max = None, Refusal::NoFile);
    check(
        |scene| scene.context_max = Some(4_095),
        Refusal::Context(ContextMax(4_095)),
    );
    check(|scene| scene.is_loading = true, Refusal::Busy);
    check(|scene| scene.kept = KEPT_MAX, Refusal::Enough);
    check(
        |scene| {
            scene.known = vec![known("m", ModelState::Ready, Some("f"))];
            scene.known[0].is_split = true;
        },
        Refusal::Split,
    );
    check(
        |scene| {
            scene.known = vec![known("m", ModelState::Ready, Some("f"))];
            scene.known[0].context_tokens = Some(4_095);
        },
        Refusal::LessContext(4_095),
    );
    for name in ["auto", "Auto"] {
        let wanted = TakeUp {
            model: name.into(),
            ..wanted()
        };
        assert_eq!(decide(&wanted, &scene()), Err(Refusal::BadName));
    }
}

#[test]
fn a_model_gets_no_less_context_than_is_of_use() {
    let check = |tokens: u32, trained: u32, expected: Result<Begin, Refusal>| {
        let wanted = TakeUp {
            context_tokens: tokens,
            ..wanted()
        };
        let scene = Scene {
            context_trained: trained,
            ..scene()
        };
        assert_eq!(decide(&wanted, &scene), expected, "{tokens} of {trained}");
    };
    let refused = || Err(Refusal::LittleContext);
    // As many as the owner wants.
    check(0, 8_192, Ok(Begin::Load));
    check(1, 8_192, refused());
    check(CONTEXT_MIN - 1, 8_192, refused());
    check(CONTEXT_MIN, 8_192, Ok(Begin::Load));
    check(511, 512, refused());
    check(512, 512, Ok(Begin::Load));
    // Nobody knows how many it was trained for.
    check(1, 0, Ok(Begin::Load));
}

#[test]
fn a_file_that_is_missing_is_fetched_if_that_is_asked_for_and_not_too_often() {
    let check = |fetch: bool, change: fn(&mut Scene), expected: Result<Begin, Refusal>| {
        let wanted = TakeUp { fetch, ..wanted() };
        let mut scene = Scene {
            context_max: None,
            context_trained: 0,
            ..scene()
        };
        change(&mut scene);
        assert_eq!(decide(&wanted, &scene), expected, "{scene:?}");
    };
    check(true, |_| {}, Ok(Begin::Fetch));
    check(false, |_| {}, Err(Refusal::NoFile));
    // What is here is not fetched.
    check(
        true,
        |scene| scene.context_max = Some(8_192),
        Ok(Begin::Load),
    );
    let refused = |change: fn(&mut Scene), refusal| check(true, change, Err(refusal));
    refused(|scene| scene.could_fetch = false, Refusal::NoFetch);
    refused(|scene| scene.fetches = FETCHES_MAX, Refusal::Fetched);
    refused(|scene| scene.is_willing = false, Refusal::Unwilling);
    refused(|scene| scene.is_claimed = false, Refusal::Unclaimed);
    refused(|scene| scene.was_dropped = true, Refusal::Dropped);
    refused(|scene| scene.is_loading = true, Refusal::Busy);
    refused(|scene| scene.kept = KEPT_MAX, Refusal::Enough);
    refused(|scene| scene.has_failed = true, Refusal::Failed);
}

#[test]
fn what_was_fetched_is_loaded_only_if_all_rules_still_allow_that() {
    let check = |change: fn(&mut Scene), expected: Result<Begin, Refusal>| {
        let wanted = TakeUp {
            fetch: true,
            ..wanted()
        };
        // The file is here, and no more of them are to be fetched.
        let mut scene = Scene {
            could_fetch: false,
            fetches: FETCHES_MAX,
            ..scene()
        };
        change(&mut scene);
        assert_eq!(decide(&wanted, &scene), expected, "{scene:?}");
    };
    check(|_| {}, Ok(Begin::Load));
    let refused = |change: fn(&mut Scene), refusal| check(change, Err(refusal));
    refused(|scene| scene.is_willing = false, Refusal::Unwilling);
    refused(|scene| scene.is_closing = true, Refusal::Closing);
    refused(|scene| scene.is_claimed = false, Refusal::Unclaimed);
    refused(|scene| scene.is_name_taken = true, Refusal::NameTaken);
    refused(|scene| scene.was_dropped = true, Refusal::Dropped);
    refused(|scene| scene.has_failed = true, Refusal::Failed);
    refused(|scene| scene.is_loading = true, Refusal::Busy);
    refused(|scene| scene.kept = KEPT_MAX, Refusal::Enough);
    // The owner loads another model by that name, or this very one.
    refused(
        |scene| scene.known = vec![known("m", ModelState::Ready, Some("another"))],
        Refusal::NameTaken,
    );
    check(
        |scene| scene.known = vec![known("m", loading(), Some("f"))],
        Ok(Begin::Wait),
    );
}

#[test]
fn a_model_that_was_fetched_is_not_in_its_own_way() {
    let peer = NodeId::from_bytes([1; 32]);
    let mut taken = Taken::default();
    let failed = ModelState::Failed {
        reason: "torn".into(),
    };
    // The owner has tried it before.
    let other = [
        known("n", ModelState::Ready, Some("g")),
        known("m", failed, None),
    ];
    drop(taken.begin(peer, "n", "g").unwrap());
    let permit = taken.begin(peer, "m", "f").unwrap();
    taken.forget(&other, 0);
    assert_eq!((taken.is_loading(), taken.kept_for(peer)), (true, KEPT_MAX));
    drop(permit);
    taken.forget(&other, 0);
    assert!(!taken.is_loading());
    assert_eq!(taken.kept_for(peer), KEPT_MAX - 1);
    // It is released before it is known what the table has.
    let permit = taken.begin(peer, "m", "f").unwrap();
    taken.release(peer, "m", "f");
    drop(permit);
    assert_eq!(taken.kept_for(peer), KEPT_MAX - 1);
}

#[test]
fn a_model_that_is_tried_again_counts_once() {
    let peer = NodeId::from_bytes([1; 32]);
    let mut taken = Taken::default();
    for _ in 0..3 {
        drop(taken.begin(peer, "m", "f").unwrap());
        assert_eq!(taken.kept_for(peer), 1);
    }
    drop(taken.begin(NodeId::from_bytes([2; 32]), "m", "f").unwrap());
    drop(taken.begin(peer, "n", "f").unwrap());
    assert_eq!(taken.kept_for(peer), 2);
}

#[test]
fn one_at_a_time_looks_how_much_context_has_room_and_for_nobody_all_the_time() {
    let [one, other] = [1, 2].map(|number| NodeId::from_bytes([number; 32]));
    let mut taken = Taken::default();
    let permit = taken.look(one, 1_000);
    assert!(permit.is_some() && taken.look(other, 1_000).is_none());
    // It is in the way of no load.
    assert!(!taken.is_loading());
    drop(permit);
    assert!(taken.look(one, 999 + LOOK_MS).is_none());
    assert!(taken.look(other, 999 + LOOK_MS).is_some());
    assert!(taken.look(one, 1_000 + LOOK_MS).is_some());
    assert!(taken.look(one, 5 * LOOK_MS).is_some());
    assert_eq!(taken.looked_ms.len(), 1, "what is over is forgotten");
}

#[test]
fn refusals_say_how_much_context_would_have_room() {
    let check = |refusal: Refusal, expected: &str| assert_eq!(refusal.to_string(), expected);
    check(
        Refusal::NoRoom(ContextMax(8_192)),
        "it has no memory for the model; 8192 tokens of context at most have room there",
    );
    check(
        Refusal::Context(ContextMax(4_096)),
        "it has less context for the model; 4096 tokens of context at most have room there",
    );
    check(
        Refusal::LessContext(4_096),
        "it serves the model with less context, 4096 tokens",
    );
    let most = ContextMax(8_192);
    let context = Refusal::Context(ContextMax(0));
    assert_eq!(context.with(most), Refusal::Context(most));
    assert_eq!(Refusal::Busy.with(most), Refusal::Busy);
    for none in [
        Refusal::NoRoom(most).with(ContextMax(0)),
        Refusal::Context(ContextMax(0)),
    ] {
        let told = none.to_string();
        assert!(told.ends_with("for the model"), "{told}");
    }
}

#[test]
fn fetches_count_for_an_hour() {
    let mut taken = Taken::default();
    assert_eq!(taken.fetches(0), 0);
    taken.fetched().note(1_000);
    taken.fetched().note(2_000);
    assert_eq!(taken.fetches(2_000), 2);
    assert_eq!(taken.fetches(1_000 + FETCHES_MS), 1);
    taken.forget(&[], 1_000 + FETCHES_MS);
    assert_eq!(*taken.fetched.times_ms(), [2_000]);
}

#[test]
fn no_more_runs_at_once_than_the_owner_wants() {
    for (asked, own, expected) in [
        (0, None, 0),
        (0, Some(2), 0),
        (1, Some(2), 1),
        (256, Some(2), 2),
        (256, Some(64), 64),
        (SLOTS_MAX, None, SLOTS_MAX),
        (256, None, SLOTS_MAX),
    ] {
        assert_eq!(slots(asked, own), expected, "{asked}, {own:?}");
    }
}

#[test]
fn who_waits_for_what_is_there_takes_no_memory() {
    let decided = decided(|scene| {
        scene.known = vec![known("m", ModelState::Ready, Some("f"))];
        scene.is_willing = false;
        scene.is_loading = true;
        scene.kept = KEPT_MAX;
        scene.context_max = None;
    });
    assert_eq!(decided, Ok(Begin::Wait));
}

fn model(name: &str, fingerprint: &str) -> Model {
    Model {
        name: name.into(),
        fingerprint: fingerprint.into(),
        ..Model::default()
    }
}

#[test]
fn whoever_asks_must_tell_the_mesh_of_the_model() {
    let host = |name: &str, fingerprint: &str| NodeInfo {
        splits: vec![SplitModel {
            model: model(name, fingerprint),
            ..SplitModel::default()
        }],
        ..NodeInfo::default()
    };
    assert!(claims(&host("m", "f"), &wanted()));
    assert!(!claims(&host("n", "f"), &wanted()));
    assert!(!claims(&host("m", "g"), &wanted()));
    assert!(!claims(&NodeInfo::default(), &wanted()));
}

#[test]
fn a_name_that_a_member_answers_to_is_no_other_models() {
    let check = |name: &str, fingerprint: &str, expected: bool| {
        let info = NodeInfo {
            serving: vec![ServedModel {
                model: model(name, fingerprint),
                ..ServedModel::default()
            }],
            ..NodeInfo::default()
        };
        let is_taken = is_claimed_otherwise(&info, &wanted());
        assert_eq!(is_taken, expected, "{name} {fingerprint}");
    };
    check("m", "f", false);
    check("n", "g", false);
    check("m", "g", true);
    check("M", "g", true);
    check("m.gguf", "g", true);
}

#[test]
fn one_model_is_loaded_at_a_time_and_each_member_has_some() {
    let node = |number| NodeId::from_bytes([number; 32]);
    let mut taken = Taken::default();
    let (one, other) = (node(1), node(2));
    let permit = taken.begin(one, "m", "f").unwrap();
    assert!(taken.is_loading());
    assert!(taken.begin(other, "n", "g").is_none());
    // It is not in the table yet.
    taken.forget(&[], 0);
    assert_eq!((taken.kept_for(one), taken.kept_for(other)), (1, 0));
    assert_eq!(taken.fingerprint("m").as_deref(), Some("f"));
    drop(permit);
    assert!(!taken.is_loading());
    taken.forget(&[known("m", loading(), None)], 0);
    assert_eq!(taken.kept_for(one), 1);
    drop(taken.begin(one, "n", "g").unwrap());
    assert_eq!(taken.kept_for(one), 2);
    let ready = |name, fingerprint| known(name, ModelState::Ready, Some(fingerprint));
    taken.forget(&[ready("m", "f"), ready("n", "g")], 0);
    assert_eq!(taken.kept_for(one), 2);
    // One was dropped, and its owner serves another by the name of the other.
    taken.forget(&[ready("n", "another")], 0);
    assert_eq!(taken.kept_for(one), 0);
}

#[test]
fn what_could_not_be_loaded_is_tried_again_later() {
    let mut taken = Taken::default();
    taken.fail("f".into(), 1_000);
    assert!(taken.has_failed("f", 1_000) && !taken.has_failed("g", 1_000));
    assert!(taken.has_failed("f", 999 + RETRY_MS));
    assert!(!taken.has_failed("f", 1_000 + RETRY_MS));
    taken.forget(&[], 1_000 + RETRY_MS);
    assert!(taken.failed_ms.is_empty(), "it is forgotten");
}
