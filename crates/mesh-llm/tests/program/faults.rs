//! A model over three machines, of which one is lost: each of them, in every way, while a prompt is
//! evaluated and while answers are given. Real processes, real QUIC, loopback.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testkit::model::ModelSpec;
use tokio::time::{sleep, timeout};

use crate::alphabet::wants_every_loss;
use crate::losses::{Loss, Phase, Said, Subject, anew, pause};
use crate::several::{Asked, Node, question};

/// Workers beyond the two that have layers. Whoever was lost is not asked again for a while, nor is who
/// was only slow, which on a busy machine may be anybody.
const SPARE: usize = 4;

/// How long a prompt that is held up somewhere in the ring has to get there.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// How long a host may take to say that it works on a prompt: it may say so only between two steps, and
/// must lose nothing before the one that holds the prompt up is missed.
const HELD_MAX: Duration = Duration::from_secs(2);

/// How often a ring is asked for an answer during which it takes nobody for lost.
const CALM_TRIES: usize = 5;

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

    /// What was done to whom, for the table of losses.
    pub(crate) fn done_to(self, whom: &str) -> String {
        match self {
            Self::Kill => format!("kill -9 of {whom}"),
            Self::Stop => format!("SIGSTOP of {whom}"),
        }
    }
}

/// What came of a loss.
struct Outcome {
    /// What the streams said.
    said: Vec<Said>,
    /// From the loss to the end of the last answer.
    took: Duration,
    /// The longest of the streams' pauses.
    pause: Duration,
    /// Stages on machines that had none before.
    new: usize,
    /// Stages that computed rows again when streams went on where they had been.
    again: Option<u64>,
}

/// A host, its workers, and the folder in which all of them find the model.
pub(crate) struct Ring {
    pub(crate) host: Node,
    workers: BTreeMap<String, Node>,
    /// Workers that it begins each loss with.
    wanted: usize,
    started: usize,
    worker_gb: String,
    model: String,
    /// What all nodes are started with besides: a worker may become the host.
    more: &'static [&'static str],
    shelf: tempfile::TempDir,
}

impl Ring {
    /// A ring that runs this model.
    pub(crate) async fn of(subject: Subject) -> Self {
        Self::with_spare(subject, SPARE).await
    }

    /// The same with so many workers beyond the two that have layers.
    async fn with_spare(subject: Subject, spare: usize) -> Self {
        let shelf = tempfile::tempdir().unwrap();
        subject.write(shelf.path());
        let (name, context) = (subject.name(), subject.context());
        Self::start_with(
            shelf,
            name,
            context,
            (subject.gigabytes(), spare),
            subject.arguments(),
        )
        .await
    }

    async fn start_with(
        shelf: tempfile::TempDir,
        model: &str,
        context: u32,
        (gb, spare): ([&str; 2], usize),
        more: &'static [&'static str],
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
            wanted: 2 + spare,
            started: 0,
            worker_gb: gb[1].to_owned(),
            model: model.to_owned(),
            more,
            shelf,
        };
        ring.hire();
        ring.runs().await;
        ring
    }

    /// As many workers as are wanted.
    fn hire(&mut self) {
        while self.workers.len() < self.wanted {
            self.hire_one();
        }
    }

    fn hire_one(&mut self) {
        let name = format!("worker{}", self.started);
        self.started += 1;
        let folder = self.shelf.path().display().to_string();
        let (node_name, room) = (
            format!("--node-name={name}"),
            format!("--max-vram={}", self.worker_gb),
        );
        let arguments = ["--standby", "--models-dir", &folder, &node_name, &room];
        let arguments = [&arguments[..], self.more].concat();
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

    fn question(&self, phase: Phase, tokens: u32) -> Value {
        let mut question = question(tokens, true);
        question["model"] = self.model.as_str().into();
        question["stream_options"] = json!({ "include_usage": true });
        if phase == Phase::Prompt {
            let long = "abcdefghijklmnop".repeat(50);
            question["messages"] = json!([{ "role": "user", "content": long }]);
        }
        question
    }

    /// So many streams with this question lose the worker at `place`.
    async fn strike(
        &mut self,
        harm: Harm,
        place: usize,
        (phase, streams): (Phase, usize),
        question: &Value,
    ) -> Outcome {
        // Who was lost is told apart from whoever comes in its place, which is trusted at once.
        self.hire();
        self.are_known().await;
        self.runs().await;
        let stages = self.stages().await;
        assert_eq!(stages.len(), 3, "{stages:?}");
        let (victim, second) = (stages[place].clone(), stages[1].clone());
        let strike = || {
            // What was logged before belongs to another loss.
            drop(self.host.running.log());
            self.signal(&victim, harm.signal());
            Instant::now()
        };
        let asking = (0..streams).map(|_| self.host.ask(question));
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
        let (said, pauses) = ends(answers, began).await;
        let took = began.elapsed();
        let mut now = Vec::new();
        // Else who called this is to tell what was lost.
        if said.iter().all(Said::has_ended) {
            self.runs().await;
            now = self.stages().await;
        }
        let new = now.iter().filter(|name| !stages.contains(name)).count();
        let log = self.host.running.log();
        let again = log.iter().find_map(|(message, fields)| {
            let goes_on = message.starts_with("a ring goes on where");
            (goes_on && fields["rows"].as_u64() > Some(0)).then(|| fields["stages"].as_u64())?
        });
        self.workers.remove(&victim);
        Outcome {
            said,
            took,
            pause: pauses.into_iter().max().unwrap_or_default(),
            new,
            again,
        }
    }

    /// So many streams lose the worker at `place`; says what came of it.
    async fn loses(
        &mut self,
        subject: Subject,
        harm: Harm,
        place: usize,
        (phase, streams, letters): (Phase, usize, u32),
    ) -> Outcome {
        let question = subject.question(phase, letters);
        let outcome = self.strike(harm, place, (phase, streams), &question).await;
        assert_eq!(outcome.said.len(), streams);
        let Outcome {
            took, new, again, ..
        } = &outcome;
        eprintln!(
            "{harm:?} at {place}, {phase:?}, {streams} streams: {took:.1?}, {new} new, {again:?} computed again",
        );
        let mut whole = None;
        if !subject.is_exact() && outcome.said.iter().all(Said::has_ended) {
            whole = Some(undisturbed(&self.host, &question).await);
        }
        let loss = Loss {
            subject,
            harm: &harm.done_to(&format!("worker {}", place + 1)),
            phase,
            letters,
            pause: Some(outcome.pause),
        };
        loss.record(&outcome.said, whole.as_ref());
        subject.check(&outcome.said, letters);
        outcome
    }

    /// Whether the ring has lost somebody since the last call. On a busy machine anybody may be taken for lost, and rows
    /// that are computed again then go in batches of other shapes.
    fn was_disturbed(&self) -> bool {
        let log = self.host.running.log();
        let is_loss = |message: &str| {
            message == "a ring is lost" || message.starts_with("a ring goes on where")
        };
        log.iter().any(|(message, _)| is_loss(message))
    }

    /// What the host says, asked again until the ring takes nobody for lost meanwhile.
    async fn in_calm<T>(&self, says: impl AsyncFn() -> T) -> T {
        for _ in 0..CALM_TRIES {
            self.runs().await;
            // What came before does not count.
            self.was_disturbed();
            let said = says().await;
            if !self.was_disturbed() {
                return said;
            }
        }
        panic!("somebody was taken for lost in each of {CALM_TRIES} answers");
    }

    /// What the ring says when nothing is lost, beside what the whole model says on one machine: the same, where one
    /// stream with a short prompt makes all batches the same.
    async fn says_what_the_whole_model_says(
        &self,
        subject: Subject,
        cases: &[(Phase, usize, u32)],
    ) {
        let path = self.shelf.path().join(format!("{}.gguf", self.model));
        let model = format!("--model={}", path.display());
        let alone = ["--no-mesh", "--ctx-size=8192", &model];
        let alone = Node::start(&[&alone[..], self.more].concat());
        for &(phase, streams, letters) in cases {
            let question = subject.question(phase, letters);
            let whole = undisturbed(&alone, &question).await;
            let is_compared = (phase, streams) == (Phase::Answer, 1);
            // Rows that a disturbed ring has evaluated must not come into the next try.
            let asked = match is_compared {
                true => anew(&question),
                false => question,
            };
            let ask = async || {
                let answers = (0..streams).map(|_| says(&self.host, &asked));
                futures::future::join_all(answers).await
            };
            let said = match is_compared {
                true => self.in_calm(ask).await,
                false => ask().await,
            };
            let loss = Loss {
                subject,
                harm: "none, against the whole model",
                phase,
                letters,
                pause: None,
            };
            loss.record(&said, Some(&whole));
            if is_compared {
                assert_eq!(said[0].text, whole.text, "three machines say what one says");
            }
        }
    }
}

/// Tokens of the answer that a question asks for.
pub(crate) fn tokens_of(question: &Value) -> u32 {
    let tokens = question["max_tokens"].as_u64().unwrap();
    u32::try_from(tokens).unwrap()
}

/// What a node says.
async fn says(node: &Node, question: &Value) -> Said {
    let mut answer = node.ask(question).await;
    answer.ends_after(tokens_of(question)).await;
    Said::of(&answer.text)
}

/// What a node says when nothing happens, and nothing of it is known.
pub(crate) async fn undisturbed(node: &Node, question: &Value) -> Said {
    says(node, &anew(question)).await
}

/// Every stream comes to its end, and where rounding decides nothing, says what it would have said, whichever worker is
/// lost, and when.
async fn nothing_is_lost_by(harm: Harm) {
    let subject = Subject::wanted();
    let mut ring = Ring::of(subject).await;
    if harm == Harm::Kill && !subject.is_exact() {
        let cases = [
            (Phase::Answer, 1, 500),
            (Phase::Prompt, 1, 100),
            (Phase::Answer, 8, 200),
            (Phase::Prompt, 8, 100),
        ];
        ring.says_what_the_whole_model_says(subject, &cases).await;
    }
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
        let what = (phase, streams, letters);
        let Outcome { new, again, .. } = ring.loses(subject, harm, place, what).await;
        if subject.is_exact() && harm == Harm::Kill && phase == Phase::Answer {
            // The host and the other worker computed nothing again, unless that one was lost as well.
            let again = again.expect("streams go on where they were");
            assert!((1..=new as u64).contains(&again), "{again} of {new}");
        }
    }
}

/// The model that is built in, which is not always sure of what it says: streams come to their ends, and what differs
/// is told. `./dev losses starter` does all the rest.
#[tokio::test]
async fn the_starter_model_outlives_a_worker() {
    let subject = Subject::Starter;
    // For the loss, and for one that is only taken for lost.
    let mut ring = Ring::with_spare(subject, 2).await;
    let what = (Phase::Answer, 2, 100);
    let Outcome { new, .. } = ring.loses(subject, Harm::Kill, 1, what).await;
    assert!(new > 0, "the loss came when all was said");
}

#[tokio::test]
async fn streams_go_on_when_any_worker_is_killed() {
    nothing_is_lost_by(Harm::Kill).await;
}

#[tokio::test]
async fn streams_go_on_when_any_worker_falls_silent() {
    nothing_is_lost_by(Harm::Stop).await;
}

/// What answers say until they end, however they do, and the longest pause of each since then.
pub(crate) async fn ends(answers: Vec<Asked>, since: Instant) -> (Vec<Said>, Vec<Duration>) {
    let ends = answers.into_iter().map(|mut answer| async move {
        answer.read_on().await;
        (Said::of(&answer.text), pause(since, &answer.arrivals))
    });
    let ends = futures::future::join_all(ends).await;
    ends.into_iter().unzip()
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
    /// Threads of several machines on the cores of one would wait for each other at every operator.
    const THREADS: &str = "--threads=1";
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
    let alone = Node::start(&[
        &model,
        "--no-mesh",
        "--no-draft",
        THREADS,
        "--ctx-size=8192",
    ]);
    let gb = ["0.2", "1.97"];
    let more = &["--no-draft", THREADS];
    let mut ring = Ring::start_with(shelf, "half", CONTEXT, (gb, SPARE), more).await;
    let says = async |node: &Node, phase| {
        let answer = node.ask(&anew(&ring.question(phase, TOKENS))).await;
        answer.content_of(TOKENS).await
    };
    let whole = says(&alone, Phase::Answer).await;
    drop(alone);
    let calm = ring.in_calm(async || says(&ring.host, Phase::Answer).await);
    let undisturbed = calm.await;
    assert_eq!(undisturbed, whole, "three machines say what one says");
    let prompted = says(&ring.host, Phase::Prompt).await;
    for (place, phase, streams, expected) in [
        (1, Phase::Answer, STREAMS, &undisturbed),
        (0, Phase::Prompt, 1, &prompted),
    ] {
        let question = ring.question(phase, TOKENS);
        let what = (phase, streams);
        let Outcome { said, took, .. } = ring.strike(Harm::Kill, place, what, &question).await;
        assert_eq!(said.len(), streams);
        for said in &said {
            said.assert_ends_after(TOKENS);
        }
        let parted: Vec<usize> = said
            .iter()
            .filter_map(|said| differ_at(&said.text, expected))
            .collect();
        eprintln!(
            "{phase:?}, {streams} streams: {took:.1?}; {} of {streams} differ from the undisturbed text, at {parted:?} of {} characters",
            parted.len(),
            expected.chars().count(),
        );
    }
}
