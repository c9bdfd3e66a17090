//! A model over three machines, to one of which the cable is cut.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures::StreamExt;
use serde_json::Value;
use testkit::net::{Lab, Link};
use tokio::sync::oneshot;
use tokio::time::{sleep, timeout};

use crate::alphabet::wants_every_loss;
use crate::hosts::{Machine, pieces};
use crate::losses::{Loss, Phase, Said, Subject, anew, pause};

/// Workers: two that have layers, one for each loss, because a machine that was lost is not asked again
/// for a while, and some more, because on a busy machine anybody may be taken for lost.
const WORKERS: usize = 9;

/// How long a prompt that is held up somewhere in the ring has to get there.
const UNDER_WAY: Duration = Duration::from_millis(200);

/// How long a host may take to say that it works on a prompt: it may say so only between two steps, and
/// must lose nothing before the one that holds the prompt up is missed.
const HELD_MAX: Duration = Duration::from_secs(2);

/// Longest wait for the next piece of an answer; the machine may be busy.
const PIECE_WAIT_MAX: Duration = Duration::from_secs(90);

struct Ring<'a> {
    lab: &'a Lab,
    subject: Subject,
    host: Machine<'a>,
    workers: BTreeMap<String, Machine<'a>>,
}

impl<'a> Ring<'a> {
    fn start(lab: &'a Lab, subject: Subject, folder: &str) -> Self {
        let context = format!("--ctx-size={}", subject.context());
        let shared = ["--models-dir", folder, &context, "--parallel=8"];
        let shared = [&shared[..], subject.arguments()].concat();
        let [host_gb, worker_gb] = subject.gigabytes().map(|gb| format!("--max-vram={gb}"));
        let model = format!("--model={}", subject.name());
        let of_host = ["--split", &model, &host_gb];
        let host = Machine::start(lab, 0, "host", &[&shared[..], &of_host].concat());
        let ticket = host.ticket().to_owned();
        let of_worker = ["--standby", &worker_gb, "--join", &ticket];
        let of_worker = [&shared[..], &of_worker].concat();
        let workers = std::thread::scope(|scope| {
            let starts: Vec<_> = (1..=WORKERS)
                .map(|number| {
                    let of_worker = &of_worker;
                    scope.spawn(move || {
                        let name = format!("worker{number}");
                        let machine = Machine::start(lab, number, &name, of_worker);
                        (name, machine)
                    })
                })
                .collect();
            let started = starts.into_iter().map(|start| start.join().unwrap());
            started.collect()
        });
        let ring = Self {
            lab,
            subject,
            host,
            workers,
        };
        ring.host.until(|status| {
            let peers = status["peers"].as_array().unwrap();
            let gives = |peer: &&Value| peer["memory_total_bytes"].as_u64() > Some(0);
            peers.iter().filter(gives).count() == WORKERS
        });
        ring.runs();
        ring
    }

    /// Waits until the model answers.
    fn runs(&self) {
        self.host.until(|status| {
            let model = &status["models"][0];
            model["state"] == "ready" && model["split"]["waiting"].is_null()
        });
    }

    /// Waits while a prompt gets into a ring that holds it up.
    fn holds_prompt(&self) {
        let url = format!("{}/api/status", self.host.text("console_url"));
        self.host.run(async move {
            let works = async {
                loop {
                    let status: Value = reqwest::get(&url).await.unwrap().json().await.unwrap();
                    if status["models"][0]["running"].as_u64() > Some(0) {
                        return;
                    }
                    sleep(UNDER_WAY / 4).await;
                }
            };
            if timeout(HELD_MAX, works).await.is_ok() {
                sleep(UNDER_WAY).await;
            }
        });
    }

    /// Names of the machines with layers, in their order.
    fn stages(&self) -> Vec<String> {
        let url = format!("{}/api/status", self.host.text("console_url"));
        let status: Value = self
            .host
            .run(async move { reqwest::get(url).await.unwrap().json().await.unwrap() });
        let stages = status["models"][0]["split"]["stages"].as_array().unwrap();
        let name = |stage: &Value| stage["name"].as_str().unwrap().to_owned();
        stages.iter().map(name).collect()
    }

    /// Asks the node of a machine; says when the first words are there. Gives what it said, to its end or until it broke
    /// off, and when each piece came.
    fn ask(at: &Machine<'_>, question: Value, begun: oneshot::Sender<()>) -> (Said, Vec<Instant>) {
        let url = format!("{}/chat/completions", at.text("api_url"));
        at.run(async move {
            let response = reqwest::Client::new().post(url).json(&question).send();
            let response = response.await.unwrap();
            assert_eq!(response.status(), 200);
            let mut bytes = response.bytes_stream();
            let (mut text, mut begun) = (String::new(), Some(begun));
            let mut arrivals = Vec::new();
            while let Ok(Some(Ok(piece))) = timeout(PIECE_WAIT_MAX, bytes.next()).await {
                text += &String::from_utf8_lossy(&piece);
                arrivals.push(Instant::now());
                if pieces(&text) > 0
                    && let Some(begun) = begun.take()
                {
                    // Nobody waits for it where it is the prompt that is lost.
                    let _ = begun.send(());
                }
            }
            (Said::of(&text), arrivals)
        })
    }

    /// So many streams lose the worker at `place`; each must say what it would have said.
    fn lose_worker(&self, place: usize, phase: Phase, streams: usize, letters: u32) {
        self.runs();
        let stages = self.stages();
        let victim = &self.workers[&stages[place]];
        let whom = format!("worker {}", place + 1);
        self.strike(
            (victim, whom.as_str()),
            &self.host,
            (phase, streams, letters),
        );
        self.lab.rejoin(victim.host);
    }

    /// The same with the host, for who asks through another node.
    fn lose_host(&self, client: &Machine<'_>, phase: Phase, streams: usize, letters: u32) {
        self.runs();
        self.strike((&self.host, "the host"), client, (phase, streams, letters));
    }

    /// So many streams at `asked` lose the machine `victim`, which the table calls `whom`.
    fn strike(
        &self,
        (victim, whom): (&Machine<'_>, &str),
        asked: &Machine<'_>,
        (phase, streams, letters): (Phase, usize, u32),
    ) {
        let stages = self.stages();
        assert_eq!(stages.len(), 3, "{stages:?}");
        let second = &self.workers[&stages[1]];
        let question = self.subject.question(phase, letters);
        // Whichever machine is lost: the second one holds prompts up until then.
        if phase == Phase::Prompt {
            second.process.pause().unwrap();
        }
        let (answers, began) = std::thread::scope(|scope| {
            let (begun, starts): (Vec<_>, Vec<_>) = (0..streams)
                .map(|_| {
                    let (begin, begun) = oneshot::channel();
                    let question = question.clone();
                    (
                        begun,
                        scope.spawn(move || Self::ask(asked, question, begin)),
                    )
                })
                .unzip();
            if phase == Phase::Prompt {
                self.holds_prompt();
                self.lab.isolate(victim.host);
                second.process.resume().unwrap();
            } else {
                for begun in begun {
                    begun.blocking_recv().expect("it is over before the loss");
                }
                self.lab.isolate(victim.host);
            }
            let began = Instant::now();
            let answers: Vec<_> = starts.into_iter().map(|ask| ask.join().unwrap()).collect();
            (answers, began)
        });
        let (cut, took) = (victim.host, began.elapsed());
        eprintln!("cable of machine {cut} cut, {phase:?}, {streams} streams: {took:.1?}");
        let (said, arrivals): (Vec<Said>, Vec<Vec<Instant>>) = answers.into_iter().unzip();
        assert_eq!(said.len(), streams);
        let mut whole = None;
        if !self.subject.is_exact() && said.iter().all(Said::has_ended) {
            whole = Some(Self::ask(asked, anew(&question), oneshot::channel().0).0);
        }
        let pauses = arrivals.iter().map(|arrivals| pause(began, arrivals));
        let loss = Loss {
            subject: self.subject,
            harm: &format!("cable of {whom} cut"),
            phase,
            letters,
            pause: pauses.max(),
        };
        loss.record(&said, whole.as_ref());
        self.subject.check(&said, letters);
        // The alphabet is drafted, and so quick that one of eight streams may end before the last one begins.
        if phase == Phase::Answer && !self.subject.is_exact() {
            let goes_on = |arrivals: &Vec<Instant>| arrivals.last() > Some(&began);
            assert!(arrivals.iter().all(goes_on), "it was over before the loss");
        }
    }
}

/// A network, and a folder with the model that is wanted.
fn lab_with(hosts: usize) -> (Lab, Subject, tempfile::TempDir) {
    let lab = Lab::new(hosts).unwrap();
    lab.set_all(Link::round_trip_ms(2));
    let (subject, folder) = (Subject::wanted(), tempfile::tempdir().unwrap());
    subject.write(folder.path());
    (lab, subject, folder)
}

pub(crate) fn streams_go_on_when_the_cable_to_any_worker_is_cut() {
    let (lab, subject, folder) = lab_with(1 + WORKERS);
    let ring = Ring::start(&lab, subject, &folder.path().display().to_string());
    ring.lose_worker(0, Phase::Answer, 1, 300);
    ring.lose_worker(1, Phase::Prompt, 1, 50);
    ring.lose_worker(1, Phase::Answer, 8, 100);
    ring.lose_worker(0, Phase::Prompt, 8, 50);
    if wants_every_loss() {
        drop(ring);
        let ring = Ring::start(&lab, subject, &folder.path().display().to_string());
        ring.lose_worker(1, Phase::Answer, 1, 300);
        ring.lose_worker(0, Phase::Prompt, 1, 50);
        ring.lose_worker(0, Phase::Answer, 8, 100);
        ring.lose_worker(1, Phase::Prompt, 8, 50);
    }
}

/// So many streams at a client lose the host.
fn lose_the_host(phase: Phase, streams: usize, letters: u32) {
    let (lab, subject, folder) = lab_with(2 + WORKERS);
    let ring = Ring::start(&lab, subject, &folder.path().display().to_string());
    let join = ["--client", "--join", ring.host.ticket()];
    let client = Machine::start(&lab, 1 + WORKERS, "client", &join);
    client.knows(1);
    ring.lose_host(&client, phase, streams, letters);
}

pub(crate) fn streams_go_on_when_the_cable_to_the_host_is_cut() {
    lose_the_host(Phase::Answer, 8, 100);
    if wants_every_loss() {
        lose_the_host(Phase::Answer, 1, 300);
    }
}

pub(crate) fn a_prompt_goes_on_when_the_cable_to_the_host_is_cut() {
    lose_the_host(Phase::Prompt, 1, 50);
    if wants_every_loss() {
        lose_the_host(Phase::Prompt, 8, 50);
    }
}
