//! A model over three machines, of which the one that hosts it is lost: streams go on through whoever
//! hosts it next. Asked through a client, which loses nothing but time.

use crate::alphabet::{
    HOST_GB, LARGE_CONTEXT, WORKER_GB, assert_alphabet, wants_every_loss, write_large_alphabet,
};
use crate::faults::{Harm, Phase, Ring};
use crate::several::Node;

/// So many streams lose the host; each must say what it would have said.
async fn goes_on_without(harm: Harm, phase: Phase, streams: usize, letters: u32) {
    let shelf = tempfile::tempdir().unwrap();
    write_large_alphabet(shelf.path());
    let ring = Ring::start(shelf, "alphabet", LARGE_CONTEXT, [HOST_GB, WORKER_GB]).await;
    let ingress = Node::join(&ring.host.ticket(), &["--client"]);
    ingress.knows("alphabet", 1).await;
    let question = ring.question(phase, letters);
    let asking = (0..streams).map(|_| ingress.ask(&question));
    let asking = futures::future::join_all(asking);
    let answers = match phase {
        Phase::Answer => {
            let mut answers = asking.await;
            for answer in &mut answers {
                answer.chunks(2).await;
            }
            ring.host.running.signal(harm.signal());
            for answer in &answers {
                assert!(answer.host.as_ref().unwrap().starts_with("host ("));
                let is_over = answer.text.contains("[DONE]");
                assert!(!is_over, "it was over before the loss");
            }
            answers
        }
        // A worker holds the prompt up until then.
        Phase::Prompt => {
            let second = ring.stages().await.remove(1);
            ring.signal(&second, "STOP");
            let striking = async {
                ring.holds_prompt().await;
                ring.host.running.signal(harm.signal());
                ring.signal(&second, "CONT");
            };
            tokio::join!(asking, striking).0
        }
    };
    let texts = answers.into_iter().map(|answer| answer.content());
    for text in futures::future::join_all(texts).await {
        assert_alphabet(&text, letters as usize);
    }
    // Somebody else hosts it now.
    let again = ingress.ask(&ring.question(Phase::Answer, 20)).await;
    let host = again.host.clone().unwrap();
    assert!(host.starts_with("worker"), "{host}");
    assert_alphabet(&again.content().await, 20);
}

/// So many streams or prompts; all numbers if every loss is wanted.
async fn each_goes_on_without(harm: Harm, phase: Phase, streams: usize) {
    let (one, eight) = match phase {
        Phase::Answer => ((1, 500), (8, 200)),
        Phase::Prompt => ((1, 100), (8, 100)),
    };
    for (number, letters) in [one, eight] {
        if number == streams || wants_every_loss() {
            goes_on_without(harm, phase, number, letters).await;
        }
    }
}

#[tokio::test]
async fn a_stream_goes_on_when_the_host_is_killed() {
    each_goes_on_without(Harm::Kill, Phase::Answer, 1).await;
}

#[tokio::test]
async fn eight_prompts_go_on_when_the_host_is_killed() {
    each_goes_on_without(Harm::Kill, Phase::Prompt, 8).await;
}

#[tokio::test]
async fn eight_streams_go_on_when_the_host_falls_silent() {
    each_goes_on_without(Harm::Stop, Phase::Answer, 8).await;
}

#[tokio::test]
async fn a_prompt_goes_on_when_the_host_falls_silent() {
    each_goes_on_without(Harm::Stop, Phase::Prompt, 1).await;
}
