//! A model that this process does not run, as a backend: every call goes to one of its hosts.

mod embeddings;

use std::sync::Arc;
use std::time::Instant;

use engine::{
    Backend, Chat, EmbedRequest, Embeddings, Error, EventStream, Load, ModelInfo, Request, TokenId,
};
use futures::FutureExt;
use futures::future::BoxFuture;

use self::embeddings::{Collected, INPUTS_MAX};
use crate::answer::{generate, may_differ_elsewhere};
use crate::models::Purpose;
use crate::node::Shared;
use crate::peer::{self, CallError, Replies};
use crate::route::{Candidate, Place, rank};
use crate::wire::{Call, Reply};

/// A model of the mesh.
pub(crate) struct Remote {
    shared: Arc<Shared>,
    info: Arc<ModelInfo>,
}

impl Remote {
    /// Asks the hosts what the model is, unless that is known.
    pub(crate) async fn describe(
        shared: &Arc<Shared>,
        name: &str,
        candidates: Vec<Candidate>,
    ) -> Result<Self, Error> {
        let known = candidates
            .iter()
            .find_map(|candidate| shared.ingress.described(name, &candidate.fingerprint));
        let info = match known {
            Some(info) => info,
            None => {
                let call = Call::Describe {
                    model: name.to_owned(),
                };
                let fingerprint = candidates.first().map(|c| c.fingerprint.clone());
                let Reply::Model(info) = ask(shared, candidates, &call).await? else {
                    return Err(out_of_place());
                };
                if info.name != name {
                    return Err(out_of_place());
                }
                let info = Arc::new(*info);
                let fingerprint = fingerprint.unwrap_or_default();
                shared
                    .ingress
                    .describe(name, &fingerprint, Arc::clone(&info));
                info
            }
        };
        Ok(Self {
            shared: Arc::clone(shared),
            info,
        })
    }

    /// Asks one host after the other until one answers.
    async fn ask(&self, call: Call, purpose: Purpose) -> Result<Reply, Error> {
        let found = self.shared.find(&self.info.name, purpose).await?;
        ask(&self.shared, found.candidates, &call).await
    }
}

/// The first reply of the best host that answers.
async fn ask(
    shared: &Arc<Shared>,
    candidates: Vec<Candidate>,
    call: &Call,
) -> Result<Reply, Error> {
    let mut refusal = None;
    for candidate in rank(candidates, None) {
        match open(shared, candidate.place, call).await {
            Ok(mut replies) => match replies.next().await {
                Ok(reply) => return Ok(reply),
                Err(error) => keep(error, &mut refusal)?,
            },
            Err(error) => keep(error, &mut refusal)?,
        }
    }
    Err(refusal.unwrap_or_else(|| nobody(call.model())))
}

async fn open(shared: &Shared, place: Place, call: &Call) -> Result<Replies, CallError> {
    match (place, shared.mesh()) {
        (Place::Peer(node), Some(mesh)) => peer::call(&mesh, node, call).await,
        _ => Err(CallError::Lost("not in a mesh".to_owned())),
    }
}

/// Remembers a refusal that another host may not share; passes on the others.
fn keep(error: CallError, refusal: &mut Option<Error>) -> Result<(), Error> {
    match error {
        CallError::Refused(error) if !may_differ_elsewhere(&error) => return Err(error),
        CallError::Refused(error) => *refusal = Some(error),
        CallError::Lost(reason) => tracing::debug!(reason, "a host does not answer"),
    }
    Ok(())
}

fn nobody(model: &str) -> Error {
    Error::Lost(format!(
        "no machine that serves `{model}` can be reached; hint: try again in a moment"
    ))
}

fn out_of_place() -> Error {
    Error::Lost(
        "a machine of the mesh answers out of place; hint: is its version much older?".into(),
    )
}

impl Backend for Remote {
    fn info(&self) -> &Arc<ModelInfo> {
        &self.info
    }

    fn load(&self) -> Load {
        Load::default()
    }

    fn generate(&self, request: Request) -> BoxFuture<'_, Result<EventStream, Error>> {
        async move { Ok(generate(&self.shared, request).await?.events) }.boxed()
    }

    fn embed(&self, request: EmbedRequest) -> BoxFuture<'_, Result<Embeddings, Error>> {
        async move {
            let inputs = request.inputs.len();
            if inputs > INPUTS_MAX {
                let reason = format!("{inputs} texts; hint: send at most {INPUTS_MAX} at a time");
                return Err(Error::invalid("input", reason));
            }
            let found = self.shared.find(&self.info.name, Purpose::Embed).await?;
            let mut refusal = None;
            let call = Call::Embed(request);
            for candidate in rank(found.candidates, None) {
                match open(&self.shared, candidate.place, &call).await {
                    Ok(replies) => match collect(replies, inputs).await {
                        Ok(embeddings) => return Ok(embeddings),
                        Err(error) => keep(error, &mut refusal)?,
                    },
                    Err(error) => keep(error, &mut refusal)?,
                }
            }
            Err(refusal.unwrap_or_else(|| nobody(&self.info.name)))
        }
        .boxed()
    }

    fn tokenize(
        &self,
        text: String,
        add_special: bool,
        parse_special: bool,
    ) -> BoxFuture<'_, Result<Vec<TokenId>, Error>> {
        async move {
            let call = Call::Tokenize {
                model: self.info.name.clone(),
                text,
                add_special,
                parse_special,
            };
            match self.ask(call, Purpose::Generate).await? {
                Reply::Tokens(tokens) => Ok(tokens),
                _ => Err(out_of_place()),
            }
        }
        .boxed()
    }

    fn token_bytes(&self, tokens: Vec<TokenId>) -> BoxFuture<'_, Result<Vec<Vec<u8>>, Error>> {
        async move {
            let call = Call::TokenBytes {
                model: self.info.name.clone(),
                tokens,
            };
            match self.ask(call, Purpose::Generate).await? {
                Reply::Bytes(bytes) => Ok(bytes),
                _ => Err(out_of_place()),
            }
        }
        .boxed()
    }

    fn render(&self, chat: Chat) -> BoxFuture<'_, Result<String, Error>> {
        async move {
            let call = Call::Render {
                model: self.info.name.clone(),
                chat,
            };
            match self.ask(call, Purpose::Generate).await? {
                Reply::Text(text) => Ok(text),
                _ => Err(out_of_place()),
            }
        }
        .boxed()
    }

    /// Nothing to stop: the model is somebody else's.
    fn shutdown(&self, _: Instant) -> BoxFuture<'_, ()> {
        futures::future::ready(()).boxed()
    }
}

/// The embeddings of so many texts. Anything else ends the call: dropping its replies tells the host to
/// stop.
async fn collect(mut replies: Replies, inputs: usize) -> Result<Embeddings, CallError> {
    // Another host may do better; if none does, this is what the client is told.
    let broken = || {
        tracing::debug!(inputs, "a host sends embeddings that were not asked for");
        CallError::Refused(out_of_place())
    };
    let mut collected = Collected::new(inputs);
    loop {
        match replies.next().await? {
            Reply::Vector(vector) => {
                if !collected.take(vector) {
                    return Err(broken());
                }
            }
            Reply::Embedded(prompt_tokens) => {
                return collected.end(prompt_tokens).ok_or_else(broken);
            }
            _ => return Err(broken()),
        }
    }
}
