//! A model over three machines, of which the one that hosts it is lost: streams go on through whoever
//! hosts it next. Asked through a client, which loses nothing but time.

use std::time::Instant;

use crate::alphabet::wants_every_loss;
use crate::faults::{Harm, Ring, ends, tokens_of, undisturbed};
use crate::losses::{Loss, Phase, Said, Subject};
use crate::several::Node;

/// So many streams lose the host; each must come to its end, and say what it would have said.
async fn goes_on_without(harm: Harm, phase: Phase, streams: usize, letters: u32) {
    let subject = Subject::wanted();
    let ring = Ring::of(subject).await;
    let ingress = Node::join(&ring.host.ticket(), &["--client"]);
    ingress.knows(subject.name(), 1).await;
    let question = subject.question(phase, letters);
    let asking = (0..streams).map(|_| ingress.ask(&question));
    let asking = futures::future::join_all(asking);
    let (answers, began) = match phase {
        Phase::Answer => {
            let mut answers = asking.await;
            for answer in &mut answers {
                answer.chunks(2).await;
            }
            ring.host.running.signal(harm.signal());
            let began = Instant::now();
            for answer in &answers {
                assert!(answer.host.as_ref().unwrap().starts_with("host ("));
                let is_over = answer.text.contains("[DONE]");
                assert!(!is_over, "it was over before the loss");
            }
            (answers, began)
        }
        // A worker holds the prompt up until then.
        Phase::Prompt => {
            let second = ring.stages().await.remove(1);
            ring.signal(&second, "STOP");
            let striking = async {
                ring.holds_prompt().await;
                ring.host.running.signal(harm.signal());
                let began = Instant::now();
                ring.signal(&second, "CONT");
                began
            };
            tokio::join!(asking, striking)
        }
    };
    let (said, pauses) = ends(answers, began).await;
    assert_eq!(said.len(), streams);
    let mut whole = None;
    if !subject.is_exact() && said.iter().all(Said::has_ended) {
        whole = Some(undisturbed(&ingress, &question).await);
    }
    let loss = Loss {
        subject,
        harm: &harm.done_to("the host"),
        phase,
        letters,
        pause: pauses.into_iter().max(),
    };
    loss.record(&said, whole.as_ref());
    subject.check(&said, letters);
    // Somebody else hosts it now.
    let short = subject.question(Phase::Answer, 20);
    let mut again = ingress.ask(&short).await;
    let host = again.host.clone().unwrap();
    assert!(host.starts_with("worker"), "{host}");
    again.ends_after(tokens_of(&short)).await;
    subject.check(&[Said::of(&again.text)], 20);
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
