//! Hosts that answer what was not asked: the request fails or goes on elsewhere, and nothing grows.

use std::sync::{Arc, Mutex};

use engine::{EmbedInput, EmbedRequest, Embeddings, Error};
use mesh::Mesh;
use mesh::announcement::{Model, NodeInfo, NodeState, ServedModel};
use mesh::identity::StateDir;
use mesh::net::{IncomingStream, StreamKind};
use mesh::ticket::Ticket;
use node::Node;
use serde::Serialize;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinSet;

use crate::script::Script;
use crate::world::{connect, knows, node, settings, within};

/// Streams with calls, as `node` numbers them.
const CALLS: StreamKind = StreamKind(1);

/// Most values of an embedding.
const VECTOR_VALUES_MAX: usize = 65_536;

/// How a call for embeddings begins: `{"Embed": ...`.
const EMBED: &[u8] = b"\xa1\x65Embed";

/// What a host says, as it travels.
#[derive(Debug, Clone, Serialize)]
enum Reply {
    Accepted,
    Vector(Vec<f32>),
    Embedded(u32),
    Model(Description),
    Text(String),
}

#[derive(Debug, Clone, Serialize)]
struct Description {
    name: String,
    architecture: String,
    quantization: String,
    context_tokens: u32,
    embedding_width: u32,
    vocabulary_tokens: u32,
    generates: bool,
    embeds: bool,
    fingerprint: String,
}

/// A description as it should be.
fn description(name: &str, embeds: bool) -> Description {
    Description {
        name: name.into(),
        architecture: "qwen3".into(),
        quantization: "Q8_0".into(),
        context_tokens: 4096,
        embedding_width: 3,
        vocabulary_tokens: 1000,
        generates: !embeds,
        embeds,
        fingerprint: "hostile".into(),
    }
}

/// What it says to which call.
#[derive(Debug, Default)]
struct Lines {
    describe: Vec<Reply>,
    embed: Vec<Reply>,
}

/// A member that claims to serve a model, without a node around it that keeps to the protocol.
struct Hostile {
    lines: Arc<Mutex<Lines>>,
    _mesh: Mesh,
    _answering: JoinSet<()>,
    _home: tempfile::TempDir,
}

impl Hostile {
    async fn join(ticket: &Ticket, model: &str, embeds: bool) -> Self {
        let (home, own) = settings("hostile");
        let served = ServedModel {
            model: Model {
                name: model.into(),
                fingerprint: "hostile".into(),
                embeds,
                ..Model::default()
            },
            slots: 1,
            ..ServedModel::default()
        };
        let info = NodeInfo {
            state: NodeState::Serving,
            serving: vec![served],
            ..NodeInfo::default()
        };
        let settings = mesh::net::Settings {
            network: own.mesh.network,
            ..mesh::net::Settings::new(Some(StateDir::new(home.path())), info)
        };
        let (mesh, mut streams) = within(Mesh::join(settings, ticket)).await.unwrap();
        let lines = Arc::new(Mutex::new(Lines {
            describe: vec![Reply::Model(description(model, embeds))],
            embed: Vec::new(),
        }));
        let mut answering = JoinSet::new();
        let said = Arc::clone(&lines);
        answering.spawn(async move {
            while let Some(stream) = streams.next().await {
                if stream.kind == CALLS {
                    answer(stream, &said).await;
                }
            }
        });
        Self {
            lines,
            _mesh: mesh,
            _answering: answering,
            _home: home,
        }
    }

    fn describes(&self, with: Reply) {
        self.lines.lock().unwrap().describe = vec![with];
    }

    fn embeds(&self, with: &[Reply]) {
        self.lines.lock().unwrap().embed = with.to_vec();
    }
}

/// Accepts one call, and says to it what it says to all of its kind.
async fn answer(mut stream: IncomingStream, lines: &Mutex<Lines>) {
    let mut length = [0; 4];
    within(stream.recv.read_exact(&mut length)).await.unwrap();
    let mut call = vec![0; u32::from_le_bytes(length) as usize];
    within(stream.recv.read_exact(&mut call)).await.unwrap();
    let replies = {
        let lines = lines.lock().unwrap();
        if call.starts_with(EMBED) {
            lines.embed.clone()
        } else {
            lines.describe.clone()
        }
    };
    for reply in [Reply::Accepted].iter().chain(&replies) {
        let frame = mesh::codec::encode(reply);
        let length = u32::try_from(frame.len()).unwrap().to_le_bytes();
        for part in [length.as_slice(), frame.as_slice()] {
            // The caller may have heard enough.
            if within(stream.send.write_all(part)).await.is_err() {
                return;
            }
        }
    }
    let _ = stream.send.finish();
}

fn vector(values: usize) -> Reply {
    Reply::Vector(vec![0.5; values])
}

/// Asks `node` for the embeddings of so many texts.
async fn embed(node: &Node, inputs: usize) -> Result<Embeddings, Error> {
    let request = EmbedRequest {
        model: "embedder".into(),
        inputs: vec![EmbedInput::Text("x".into()); inputs],
    };
    within(node.embed(request)).await
}

/// What the user is told where a host breaks the protocol.
fn is_out_of_place(error: &Error) -> bool {
    let told = "a machine of the mesh answers out of place";
    matches!(error, Error::Lost(reason) if reason.starts_with(told))
}

#[tokio::test(flavor = "multi_thread")]
async fn embeddings_that_do_not_belong_to_a_request_are_refused() {
    let b = node("b", &[]);
    let ticket = connect(&[&b]).await;
    let host = Hostile::join(&ticket, "embedder", true).await;
    knows(&b, "embedder", 1).await;
    let end = Reply::Embedded(7);
    // As it should be.
    host.embeds(&[vector(3), vector(3), end.clone()]);
    let honest = embed(&b, 2).await.unwrap();
    assert_eq!(honest.vectors, vec![vec![0.5; 3]; 2]);
    assert_eq!(honest.prompt_tokens, 7);
    for bad in [
        // Too few, too many.
        vec![end.clone()],
        vec![vector(3), end.clone()],
        vec![vector(3), vector(3), vector(3), end.clone()],
        // Of different lengths, of none.
        vec![vector(3), vector(2), end.clone()],
        vec![vector(0), vector(0), end.clone()],
        // Something else.
        vec![vector(3), Reply::Text("hello".into()), end.clone()],
    ] {
        host.embeds(&bad);
        let error = embed(&b, 2).await.unwrap_err();
        assert!(is_out_of_place(&error), "{error:?} to {bad:?}");
    }
    // Longer than any model makes them.
    host.embeds(&[vector(VECTOR_VALUES_MAX + 1), vector(3), end.clone()]);
    let error = embed(&b, 2).await.unwrap_err();
    assert!(matches!(error, Error::Lost(_)), "{error:?}");
    // The first of many is so long that all of them would take more than there is for them.
    host.embeds(&[vector(VECTOR_VALUES_MAX)]);
    let error = embed(&b, 1_025).await.unwrap_err();
    assert!(is_out_of_place(&error), "{error:?}");
    // Who asks for too much at once is told so.
    let error = embed(&b, 65_537).await.unwrap_err();
    assert!(matches!(error, Error::InvalidRequest { .. }), "{error:?}");
    // Where another host serves the model, it answers.
    let script = Script::new("embedder", 1);
    let c = node("c", &[&script]);
    within(c.join(&ticket)).await.unwrap();
    knows(&b, "embedder", 2).await;
    for _ in 0..4 {
        host.embeds(&[vector(3), end.clone()]);
        let honest = embed(&b, 2).await.unwrap();
        assert_eq!(honest.vectors, vec![vec![1.0, 0.0]; 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn descriptions_are_of_the_model_that_was_asked_for_and_short() {
    let b = node("b", &[]);
    let ticket = connect(&[&b]).await;
    let host = Hostile::join(&ticket, "m", false).await;
    knows(&b, "m", 1).await;
    let long = "x".repeat(1 << 20);
    for bad in [
        Reply::Model(description("another", false)),
        Reply::Model(description(&long, false)),
        Reply::Text("m".into()),
        vector(3),
    ] {
        host.describes(bad);
        let error = within(b.resolve("m")).await.err().unwrap();
        assert!(is_out_of_place(&error), "{error:?}");
    }
    host.describes(Reply::Model(Description {
        architecture: long.clone(),
        quantization: long.clone(),
        fingerprint: long.clone(),
        ..description("m", false)
    }));
    let backend = within(b.resolve("m")).await.unwrap();
    let info = backend.info();
    assert_eq!(info.name, "m");
    for text in [&info.architecture, &info.quantization, &info.fingerprint] {
        // It is kept as long as the model is known.
        assert!(text.len() <= 80 && text.capacity() <= 256);
        assert!(!text.is_empty() && long.starts_with(text));
    }
}
