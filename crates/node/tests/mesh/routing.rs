//! Who answers, and that everything of an answer comes through.

use std::time::Duration;

use engine::{Chat, EmbedInput, EmbedRequest, Error, Message};
use mesh::admission::Invite;
use mesh::announcement::{Model, NodeInfo, NodeState, ServedModel};
use mesh::proto::Liveness;
use node::Role;

use crate::script::Script;
use crate::world::{client, connect, knows, node, piece, request, rest, until, whole, within};

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_reached_from_every_node() {
    let (small, large, embedder) = (
        Script::new("small", 1),
        Script::new("large", 9),
        Script::new("embedder", 99),
    );
    let (a, b) = (node("a", &[&small]), node("b", &[&large, &embedder]));
    connect(&[&a, &b]).await;
    let ticket = within(b.invite(Invite {
        role: mesh::Role::Client,
        ..Invite::default()
    }))
    .await
    .unwrap();
    let c = client("c");
    within(c.join(&ticket)).await.unwrap();
    for (node, others) in [(&a, 3), (&b, 3), (&c, 3)] {
        until(node, |snapshot| snapshot.targets.len() == others).await;
        for (model, text) in [("small", whole(20)), ("LARGE.gguf", whole(20))] {
            let mut events = within(node.generate(request(model))).await.unwrap();
            assert_eq!(rest(&mut events).await, (text, Ok(())), "{model}");
        }
        // The best that generates is the largest, not the embedder.
        let answer = within(node.answer(request("auto"))).await.unwrap();
        let host = answer.host.map(|host| host.name);
        assert_eq!(
            host.as_deref(),
            (node.snapshot().machine.name != "b").then_some("b")
        );
        let backend = within(node.resolve("")).await.unwrap();
        assert_eq!(backend.info().name, "large");
        assert_eq!(backend.info().vocabulary_tokens, 1000);
        let backend = within(node.resolve("small")).await.unwrap();
        assert_eq!(
            within(backend.tokenize("ab".into(), true, true)).await,
            Ok(vec![97, 98])
        );
        assert_eq!(
            within(backend.token_bytes(vec![7])).await,
            Ok(vec![vec![7]])
        );
        let chat = Chat {
            messages: vec![Message::user("x")],
            ..Chat::default()
        };
        assert_eq!(
            within(backend.render(chat)).await,
            Ok("1 messages".to_owned())
        );
        let embed = EmbedRequest {
            model: "embedder".into(),
            inputs: vec![EmbedInput::Text("x".into()), EmbedInput::Tokens(vec![1])],
        };
        let embeddings = within(node.embed(embed)).await.unwrap();
        assert_eq!((embeddings.vectors.len(), embeddings.prompt_tokens), (2, 2));
    }
    assert_eq!(c.snapshot().mesh.as_ref().unwrap().role, Role::Client);
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_models_and_refusals_are_told() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let refused = within(b.generate(request("nope"))).await.err();
    let hint = "served in this mesh: `m`".to_owned();
    assert_eq!(
        refused,
        Some(Error::ModelNotFound {
            model: "nope".into(),
            hint
        })
    );
    for error in [
        Error::invalid("n", "must be one"),
        Error::Unsupported("no".into()),
        Error::QueueFull {
            waiting: 3,
            retry_after_s: 2,
        },
        Error::ContextLengthExceeded {
            prompt_tokens: 5,
            context_tokens: 4,
        },
    ] {
        *script.refuses.lock().unwrap() = Some(error.clone());
        assert_eq!(within(b.generate(request("m"))).await.err(), Some(error));
    }
    // The node is as good as before.
    *script.refuses.lock().unwrap() = None;
    let mut events = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(rest(&mut events).await.1, Ok(()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_leaves_frees_the_host() {
    let script = Script::with("m", 1, 3);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    let mut events = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut events).await, "0 ");
    assert_eq!(script.running(), 1);
    drop(events);
    within(async {
        while script.running() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_busy_host_is_left_alone_while_another_is_free() {
    let (one, two) = (Script::with("m", 1, 0), Script::with("m", 1, 0));
    let (a, b, c) = (node("a", &[&one]), node("b", &[&two]), node("c", &[]));
    connect(&[&a, &b, &c]).await;
    knows(&c, "m", 2).await;
    let mut streams = Vec::new();
    for number in 0..4 {
        // Different beginnings, so that no host is warmer than the other.
        let mut request = request("m");
        request.input = engine::Input::Text(format!("{number}").repeat(3000));
        streams.push(within(c.generate(request)).await.unwrap());
    }
    assert_eq!((one.running(), two.running()), (2, 2));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_beginning_goes_to_the_same_host() {
    let (one, two) = (Script::new("m", 1), Script::new("m", 1));
    let (a, b, c) = (node("a", &[&one]), node("b", &[&two]), node("c", &[]));
    connect(&[&a, &b, &c]).await;
    knows(&c, "m", 2).await;
    for _ in 0..8 {
        let mut events = within(c.generate(request("m"))).await.unwrap();
        assert_eq!(rest(&mut events).await.1, Ok(()));
    }
    let asked = |script: &Script| script.asked.lock().unwrap().len();
    let counts = (asked(&one), asked(&two));
    assert!(counts == (8, 0) || counts == (0, 8), "{counts:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn demand_is_counted_at_the_ingress_and_known_to_all() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    for _ in 0..5 {
        let mut events = within(b.generate(request("m"))).await.unwrap();
        rest(&mut events).await.1.unwrap();
    }
    let wanted = |at_least: f32, here: bool| {
        move |snapshot: &node::Snapshot| {
            snapshot.demand.iter().any(|demand| {
                let own = demand.here_per_minute > 0.0;
                demand.model == "m" && demand.per_minute >= at_least && own == here
            })
        }
    };
    until(&b, wanted(4.0, true)).await;
    until(&a, wanted(3.0, false)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_asked_for_in_vain_is_known_to_all() {
    let (a, b) = (node("a", &[]), node("b", &[]));
    connect(&[&a, &b]).await;
    let long = "x".repeat(1_000);
    for _ in 0..3 {
        assert!(within(b.generate(request("missing"))).await.is_err());
        assert!(within(b.resolve(&long)).await.is_err());
        assert!(within(b.resolve("auto")).await.is_err());
    }
    until(&a, |snapshot| {
        let models: Vec<_> = snapshot.demand.iter().map(|demand| &demand.model).collect();
        models == ["missing"] && snapshot.demand[0].per_minute >= 2.0
    })
    .await;
    // Alone there is nobody to tell.
    let alone = node("alone", &[]);
    assert!(within(alone.generate(request("missing"))).await.is_err());
    assert!(alone.snapshot().demand.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn models_that_only_draft_are_never_offered() {
    let a = node("a", &[]);
    let ticket = connect(&[&a]).await;
    let served = |name: &str, draft: bool| ServedModel {
        model: Model {
            name: name.into(),
            fingerprint: "f".into(),
            draft,
            ..Model::default()
        },
        slots: 1,
        ..ServedModel::default()
    };
    // Another program's node, of a version that says so.
    let home = tempfile::tempdir().unwrap();
    let (_home, settings) = crate::world::settings("other");
    let info = NodeInfo {
        state: NodeState::Serving,
        serving: vec![served("drafts", true), served("writes", false)],
        ..NodeInfo::default()
    };
    let settings = mesh::net::Settings {
        network: settings.mesh.network,
        ..mesh::net::Settings::new(Some(mesh::identity::StateDir::new(home.path())), info)
    };
    let (_mesh, _streams) = within(mesh::Mesh::join(settings, &ticket)).await.unwrap();
    knows(&a, "writes", 1).await;
    let names: Vec<_> = (a.snapshot().targets.iter())
        .map(|target| target.model.clone())
        .collect();
    assert_eq!(names, ["writes"]);
    let listed = within(a.served()).await;
    assert!(listed.iter().all(|info| info.name == "writes"));
    assert!(within(a.generate(request("drafts"))).await.is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_nobody_waits_for_is_finished() {
    let script = Script::new("m", 1);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    let ticket = connect(&[&a]).await;
    within(b.open_mesh(None)).await.unwrap();
    // Asked for, and dropped at once.
    let asked = tokio::time::timeout(Duration::ZERO, b.join(&ticket)).await;
    assert!(asked.is_err());
    knows(&b, "m", 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_join_that_fails_after_the_stop_brings_nobody_back() {
    let (gone, b) = (node("gone", &[]), node("b", &[]));
    let ticket = connect(&[&gone]).await;
    within(gone.shutdown(Duration::ZERO)).await;
    within(b.open_mesh(None)).await.unwrap();
    let joining = tokio::spawn({
        let b = b.node.clone();
        async move { b.join(&ticket).await }
    });
    within(b.shutdown(Duration::ZERO)).await;
    assert!(within(joining).await.unwrap().is_err());
    assert!(b.snapshot().mesh.is_none());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_another_mesh_refuses_keeps_its_place() {
    let script = Script::with("m", 1, 3);
    let (a, other, c) = (node("a", &[&script]), node("other", &[]), client("c"));
    connect(&[&a, &c]).await;
    knows(&c, "m", 1).await;
    let elsewhere = connect(&[&other]).await;
    within(other.revoke(elsewhere.terms().id)).await.unwrap();
    let before = c.snapshot().mesh.clone().unwrap();
    // An answer goes on over the refusal.
    let mut events = within(c.generate(request("m"))).await.unwrap();
    assert!(within(c.join(&elsewhere)).await.is_err());
    script.permits.add_permits(100);
    assert_eq!(rest(&mut events).await, (whole(20), Ok(())));
    let after = c.snapshot().mesh.clone().unwrap();
    assert_eq!((after.id, after.me), (before.id, before.me));
    // And one that admits it is joined.
    let welcome = within(other.invite(Invite::default())).await.unwrap();
    let joined = within(c.join(&welcome)).await.unwrap();
    assert_eq!(c.snapshot().mesh.as_ref().unwrap().id, joined);
    assert_ne!(joined, before.id);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_two_joins_at_once_the_later_one_holds() {
    let (one, two) = (Script::new("one", 1), Script::new("two", 1));
    let (a, b, c) = (node("a", &[&one]), node("b", &[&two]), node("c", &[]));
    let (to_a, to_b) = (connect(&[&a]).await, connect(&[&b]).await);
    let (first, second) = within(futures::future::join(c.join(&to_a), c.join(&to_b))).await;
    let (first, second) = (first.unwrap(), second.unwrap());
    assert_ne!(first, second);
    let last = c.snapshot().mesh.as_ref().unwrap().id;
    let (model, other) = if last == first { (&a, &b) } else { (&b, &a) };
    let has_c = |snapshot: &node::Snapshot| {
        let mut members = snapshot.mesh.as_ref().unwrap().members.iter();
        members.any(|member| member.machine.name == "c" && member.liveness == Liveness::Alive)
    };
    until(model, has_c).await;
    until(other, |snapshot| !has_c(snapshot)).await;
}
