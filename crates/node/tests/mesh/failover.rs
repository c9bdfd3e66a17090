//! Hosts that die, refuse a request or drop a model, also in mid-answer.

use engine::Error;
use node::ModelState;

use crate::script::Script;
use crate::world::{connect, knows, node, piece, request, rest, until, whole, within};

#[tokio::test(flavor = "multi_thread")]
async fn another_host_goes_on_where_the_first_died() {
    let (one, two) = (Script::with("m", 1, 7), Script::with("m", 1, 7));
    let (a, b, c) = (node("a", &[&one]), node("b", &[&two]), node("c", &[]));
    connect(&[&c, &a, &b]).await;
    knows(&c, "m", 2).await;
    let mut answer = within(c.answer(request("m"))).await.unwrap();
    let mut text = String::new();
    while text != whole(7) {
        text += &piece(&mut answer.events).await;
    }
    // The host goes without a word; the other has permits for the rest.
    let host = answer.host.unwrap().name;
    let (dying, other, spare) = if host == "a" {
        (a, &two, b)
    } else {
        (b, &one, a)
    };
    other.permits.add_permits(13);
    drop(dying);
    let (more, end) = rest(&mut answer.events).await;
    assert_eq!((text + &more, end), (whole(20), Ok(())));
    let asked = other.asked.lock().unwrap().clone();
    assert_eq!(asked[0].resume[0].tokens, (0..7).collect::<Vec<_>>());
    assert!(asked[0].sampling.seed.is_some());
    drop(spare);
}

#[tokio::test(flavor = "multi_thread")]
async fn with_nobody_left_the_answer_ends_with_an_error() {
    let script = Script::with("m", 1, 2);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&b, &a]).await;
    knows(&b, "m", 1).await;
    let mut events = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut events).await, "0 ");
    assert_eq!(piece(&mut events).await, "1 ");
    drop(a);
    let (_, end) = rest(&mut events).await;
    assert!(matches!(end, Err(Error::Lost(_))), "{end:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_that_refuses_passes_the_request_on() {
    let (one, two) = (Script::new("m", 1), Script::new("m", 1));
    let (a, b, c) = (node("a", &[&one]), node("b", &[&two]), node("c", &[]));
    connect(&[&c, &a, &b]).await;
    knows(&c, "m", 2).await;
    for error in [
        Error::QueueFull {
            waiting: 1,
            retry_after_s: 1,
        },
        Error::ShuttingDown,
        Error::Inference("out of luck".into()),
    ] {
        *one.refuses.lock().unwrap() = Some(error);
        let mut events = within(c.generate(request("m"))).await.unwrap();
        assert_eq!(rest(&mut events).await, (whole(20), Ok(())));
    }
    assert_eq!(two.asked.lock().unwrap().len(), 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_model_is_answered_by_another_node() {
    let (one, two) = (Script::new("m", 1), Script::new("m", 1));
    let (a, b) = (node("a", &[&one]), node("b", &[&two]));
    connect(&[&a, &b]).await;
    knows(&a, "m", 2).await;
    a.drop_model("M").await.unwrap();
    knows(&a, "m", 1).await;
    let mut answer = within(a.answer(request("m"))).await.unwrap();
    assert_eq!(answer.host.unwrap().name, "b");
    assert_eq!(rest(&mut answer.events).await, (whole(20), Ok(())));
    let missing = a.drop_model("m").await.unwrap_err().to_string();
    assert!(
        missing.starts_with("this node does not serve `m`; hint: "),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_is_dropped_finishes_what_it_began() {
    let script = Script::with("m", 1, 5);
    let (a, b) = (node("a", &[&script]), node("b", &[]));
    connect(&[&a, &b]).await;
    knows(&b, "m", 1).await;
    // One answer here, one for a peer; the latter takes all permits that are left.
    let mut here = within(a.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut here).await, "0 ");
    let mut there = within(b.generate(request("m"))).await.unwrap();
    assert_eq!(piece(&mut there).await, "0 ");
    assert_eq!(script.running(), 2);
    within(a.drop_model("m")).await.unwrap();
    // Nobody gets in any more, neither here nor through the mesh.
    knows(&a, "m", 0).await;
    knows(&b, "m", 0).await;
    for node in [&a, &b] {
        let refused = within(node.generate(request("m"))).await.err();
        assert!(matches!(refused, Some(Error::ModelNotFound { .. })));
    }
    // Those who are in stay, and so does the model as long as they do.
    let state = |snapshot: &node::Snapshot| snapshot.models.first().map(|m| m.state.clone());
    assert_eq!(state(&a.snapshot()), Some(ModelState::Dropping));
    script.permits.add_permits(100);
    for mut answer in [here, there] {
        let (text, end) = rest(&mut answer).await;
        assert_eq!((format!("0 {text}"), end), (whole(20), Ok(())));
    }
    until(&a, |snapshot| snapshot.models.is_empty()).await;
    assert_eq!(script.running(), 0);
}
