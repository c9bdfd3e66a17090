//! A model over three machines, of which one is lost: each of them, in every way, while a prompt is
//! evaluated and while answers are given. Real processes, real QUIC, loopback.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::model::ModelSpec;
use tokio::time::{sleep, timeout};

use crate::alphabet::{
    HOST_GB, LARGE_CONTEXT, WORKER_GB, assert_alphabet, wants_every_loss, write_large_alphabet,
};
use crate::several::{Node, question};

/// Workers beyond the two that have layers. Whoever was lost is not asked again for a while, nor is who
/// was only slow, which on a busy machine may be anybody.
const SPARE: usize = 4;

/// How long a prompt that is held up somewhere in the ring has to get there.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// How long a host may take to say that it works on a prompt: it may say so only between two steps, and
/// must lose nothing before the one that holds the prompt up is missed.
const HELD_MAX: Duration = Duration::from_secs(2);

/// What a machine suffers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// It is gone at once, and its connections with it.
    Kill,
    /// It says nothing more.
    Stop,
}

impl Harm {
    pub(crate) fn signal(self) -> &'static str {
        match self {
            Self::Kill => "KILL",
            Self::Stop => "STOP",
        }
    }
}

/// What the ring does meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Phase {
    Prompt,
    Answer,
}

/// What came of a loss.
struct Outcome {
    /// What the streams said.
    texts: Vec<String>,
    /// From the loss to the end of the last answer.
    took: Duration,
    /// Stages on machines that had none before.
    new: usize,
    /// Stages that computed rows again when streams went on where they had been.
    again: Option<u64>,
}

/// A host, its workers, and the folder in which all of them find the model.
pub(crate) struct Ring {
    pub(crate) host: Node,
    workers: BTreeMap<String, Node>,
    started: usize,
    worker_gb: String,
    model: String,
    shelf: tempfile::TempDir,
}

impl Ring {
    pub(crate) async fn start(
        shelf: tempfile::TempDir,
        model: &str,
        context: u32,
        gb: [&str; 2],
    ) -> Self {
        Self::start_with(shelf, model, context, gb, &[]).await
    }

    async fn start_with(
        shelf: tempfile::TempDir,
        model: &str,
        context: u32,
        gb: [&str; 2],
        more: &[&str],
    ) -> Self {
        let folder = shelf.path().display().to_string();
        let context = format!("--ctx-size={context}");
        let room = format!("--max-vram={}", gb[0]);
        let named = [
            "--split",
            "--model",
            model,
            "--node-name=host",
            "--models-dir",
        ];
        let host = Node::start(&[&named[..], &[&folder, &context, &room], more].concat());
        let mut ring = Self {
            host,
            workers: BTreeMap::new(),
            started: 0,
            worker_gb: gb[1].to_owned(),
            model: model.to_owned(),
            shelf,
        };
        for _ in 0..2 + SPARE {
            ring.hire();
        }
        ring.runs().await;
        ring
    }

    /// A further worker.
    fn hire(&mut self) {
        let name = format!("worker{}", self.started);
        self.started += 1;
        let folder = self.shelf.path().display().to_string();
        let (node_name, room) = (
            format!("--node-name={name}"),
            format!("--max-vram={}", self.worker_gb),
        );
        let arguments = ["--standby", "--models-dir", &folder, &node_name, &room];
        let node = Node::join(&self.host.ticket(), &arguments);
        self.workers.insert(name, node);
    }

    /// Waits until the model answers.
    async fn runs(&self) {
        self.host
            .until(|status| {
                let model = &status["models"][0];
                model["state"] == "ready" && model["split"]["waiting"].is_null()
            })
            .await;
    }

    /// Waits until the host knows all workers, and what they give.
    async fn are_known(&self) {
        self.host
            .until(|status| {
                let peers = status["peers"].as_array().unwrap();
                let is_known = |name: &String| {
                    peers.iter().any(|peer| {
                        peer["name"] == name.as_str()
                            && peer["liveness"] == "alive"
                            && peer["memory_total_bytes"].as_u64() > Some(0)
                    })
                };
                self.workers.keys().all(is_known)
            })
            .await;
    }

    /// Waits while a prompt gets into a ring that holds it up.
    pub(crate) async fn holds_prompt(&self) {
        let works = self
            .host
            .until(|status| status["models"][0]["running"].as_u64() > Some(0));
        if timeout(HELD_MAX, works).await.is_ok() {
            sleep(UNDER_WAY).await;
        }
    }

    /// Names of the machines with layers, in their order.
    pub(crate) async fn stages(&self) -> Vec<String> {
        let status = self.host.status().await;
        let stages = status["models"][0]["split"]["stages"].as_array().unwrap();
        let name = |stage: &Value| stage["name"].as_str().unwrap().to_owned();
        stages.iter().map(name).collect()
    }

    pub(crate) fn signal(&self, worker: &str, name: &str) {
        self.workers[worker].running.signal(name);
    }

    pub(crate) fn question(&self, phase: Phase, tokens: u32) -> Value {
        let mut question = question(tokens, true);
        question["model"] = self.model.as_str().into();
        question["stream_options"] = json!({ "include_usage": true });
        if phase == Phase::Prompt {
            let long = "abcdefghijklmnop".repeat(50);
            question["messages"] = json!([{ "role": "user", "content": long }]);
        }
        question
    }

    /// So many streams lose the worker at `place`.
    async fn strike(
        &mut self,
        harm: Harm,
        place: usize,
        (phase, streams, tokens): (Phase, usize, u32),
    ) -> Outcome {
        self.are_known().await;
        self.runs().await;
        let stages = self.stages().await;
        assert_eq!(stages.len(), 3, "{stages:?}");
        let (victim, second) = (stages[place].clone(), stages[1].clone());
        let question = self.question(phase, tokens);
        let strike = || {
            // What was logged before belongs to another loss.
            drop(self.host.running.log());
            self.signal(&victim, harm.signal());
            Instant::now()
        };
        let asking = (0..streams).map(|_| self.host.ask(&question));
        let asking = futures::future::join_all(asking);
        let (answers, began) = match phase {
            Phase::Answer => {
                let mut answers = asking.await;
                for answer in &mut answers {
                    answer.chunks(2).await;
                }
                let began = strike();
                for answer in &answers {
                    let is_over = answer.text.contains("[DONE]");
                    assert!(!is_over, "it was over before the loss");
                }
                (answers, began)
            }
            // Whichever machine is lost: the second one holds the prompt up until then.
            Phase::Prompt => {
                self.signal(&second, "STOP");
                let striking = async {
                    self.holds_prompt().await;
                    let began = strike();
                    if victim != second {
                        self.signal(&second, "CONT");
                    }
                    began
                };
                tokio::join!(asking, striking)
            }
        };
        let texts = answers.into_iter().map(|answer| answer.content_of(tokens));
        let texts = futures::future::join_all(texts).await;
        let took = began.elapsed();
        self.runs().await;
        let now = self.stages().await;
        let new = now.iter().filter(|name| !stages.contains(name)).count();
        let log = self.host.running.log();
        let again = log.iter().find_map(|(message, fields)| {
            let goes_on = message.starts_with("a ring goes on where");
            (goes_on && fields["rows"].as_u64() > Some(0)).then(|| fields["stages"].as_u64())?
        });
        // It is told apart from the one that comes in its place, which is trusted at once.
        self.workers.remove(&victim);
        self.hire();
        Outcome {
            texts,
            took,
            new,
            again,
        }
    }
}

/// Every stream says what it would have said, whichever worker is lost, and when.
async fn nothing_is_lost_by(harm: Harm) {
    let shelf = tempfile::tempdir().unwrap();
    write_large_alphabet(shelf.path());
    let mut ring = Ring::start(shelf, "alphabet", LARGE_CONTEXT, [HOST_GB, WORKER_GB]).await;
    let mut losses = vec![
        (0, Phase::Answer, 1, 500),
        (1, Phase::Prompt, 1, 100),
        (1, Phase::Answer, 8, 200),
        (0, Phase::Prompt, 8, 100),
    ];
    if wants_every_loss() {
        losses.extend([
            (1, Phase::Answer, 1, 500),
            (0, Phase::Prompt, 1, 100),
            (0, Phase::Answer, 8, 200),
            (1, Phase::Prompt, 8, 100),
        ]);
    }
    for (place, phase, streams, letters) in losses {
        let outcome = ring.strike(harm, place, (phase, streams, letters)).await;
        let Outcome {
            texts,
            took,
            new,
            again,
        } = outcome;
        eprintln!(
            "{harm:?} at {place}, {phase:?}, {streams} streams: {took:.1?}, {new} new, {again:?} computed again",
        );
        assert_eq!(texts.len(), streams);
        if harm == Harm::Kill && phase == Phase::Answer {
            // The host and the other worker computed nothing again, unless that one was lost as well.
            let again = again.expect("streams go on where they were");
            assert!((1..=new as u64).contains(&again), "{again} of {new}");
        }
        for text in texts {
            assert_alphabet(&text, letters as usize);
        }
    }
}

#[tokio::test]
async fn streams_go_on_when_any_worker_is_killed() {
    nothing_is_lost_by(Harm::Kill).await;
}

#[tokio::test]
async fn streams_go_on_when_any_worker_falls_silent() {
    nothing_is_lost_by(Harm::Stop).await;
}

/// Where two texts part, in characters; `None` if they are the same.
fn differ_at(one: &str, other: &str) -> Option<usize> {
    let same = one.chars().zip(other.chars()).take_while(|(a, b)| a == b);
    (one != other).then(|| same.count())
}

/// The shape of a half-billion-parameter model, with random weights: nothing is less sure of what it
/// says, so that rounding decides, and batches of other shapes round otherwise. Alone and undisturbed all
/// batches are the same, and so is the text. With other streams beside, and where rows are evaluated again,
/// they are not: what differs then is counted.
#[tokio::test]
async fn a_model_of_half_a_billion_parameters_outlives_its_workers() {
    const STREAMS: usize = 8;
    const TOKENS: u32 = 20;
    /// With a cache of so many tokens a layer takes 101 MB as the planner counts, so that a worker with
    /// 1.97 GiB has up to 20 of the 24 layers, and still the 107 MB that a stage takes besides.
    const CONTEXT: u32 = 163_840;
    let shelf = tempfile::tempdir().unwrap();
    let spec = ModelSpec {
        name: "half".into(),
        context: CONTEXT,
        ..ModelSpec::bench_half_billion()
    };
    let path = shelf.path().join("half.gguf");
    testkit::model::write(&spec, &path).unwrap();
    let model = format!("--model={}", path.display());
    // What is drafted depends on how long steps take, and changes their shapes.
    let alone = Node::start(&[&model, "--no-mesh", "--no-draft", "--ctx-size=8192"]);
    let gb = ["0.2", "1.97"];
    let mut ring = Ring::start_with(shelf, "half", CONTEXT, gb, &["--no-draft"]).await;
    let says = async |node: &Node, phase| {
        let answer = node.ask(&ring.question(phase, TOKENS)).await;
        answer.content_of(TOKENS).await
    };
    let whole = says(&alone, Phase::Answer).await;
    drop(alone);
    let undisturbed = says(&ring.host, Phase::Answer).await;
    assert_eq!(undisturbed, whole, "three machines say what one says");
    let prompted = says(&ring.host, Phase::Prompt).await;
    for (place, phase, streams, expected) in [
        (1, Phase::Answer, STREAMS, &undisturbed),
        (0, Phase::Prompt, 1, &prompted),
    ] {
        let what = (phase, streams, TOKENS);
        let Outcome { texts, took, .. } = ring.strike(Harm::Kill, place, what).await;
        assert_eq!(texts.len(), streams);
        let parted: Vec<usize> = texts
            .iter()
            .filter_map(|text| differ_at(text, expected))
            .collect();
        eprintln!(
            "{phase:?}, {streams} streams: {took:.1?}; {} of {streams} differ from the undisturbed text, at {parted:?} of {} characters",
            parted.len(),
            expected.chars().count(),
        );
    }
}
