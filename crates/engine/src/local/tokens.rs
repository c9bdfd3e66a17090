//! What is read from a model's vocabulary once, when it is loaded.

use std::sync::Arc;

use llama::Model;

use crate::text::{ChatFormat, Vocabulary};
use crate::{Error, TokenId};

fn all_tokens(model: &Model) -> impl Iterator<Item = TokenId> {
    0..TokenId::try_from(model.vocabulary().len()).unwrap_or(TokenId::MAX)
}

pub(super) fn end_tokens(model: &Model) -> Arc<[TokenId]> {
    all_tokens(model)
        .filter(|t| model.vocabulary().is_end(*t))
        .collect()
}

pub(super) fn token_texts(model: &Model) -> Vec<Vec<u8>> {
    all_tokens(model)
        .map(|t| model.vocabulary().token_bytes(t, true))
        .collect()
}

pub(super) fn shown_tokens(model: &Model, format: &ChatFormat) -> [Arc<[bool]>; 2] {
    [
        all_tokens(model).map(|t| format.shows(t)).collect(),
        all_tokens(model)
            .map(|t| !model.vocabulary().is_control(t))
            .collect(),
    ]
}

pub(super) fn chat_format(
    model: &Model,
    gguf: &gguf::Model,
    bytes: Vec<Vec<u8>>,
) -> Result<ChatFormat, Error> {
    let vocabulary = model.vocabulary();
    let special = all_tokens(model)
        .map(|t| vocabulary.is_control(t))
        .collect();
    let text = |token: Option<TokenId>| {
        let bytes = token.and_then(|t| bytes.get(usize::try_from(t).ok()?));
        bytes.map_or_else(String::new, |b| String::from_utf8_lossy(b).into_owned())
    };
    let (bos, eos) = (text(vocabulary.bos()), text(vocabulary.eos()));
    let tokens = Vocabulary::new(bytes, special, end_tokens(model).to_vec());
    let template = gguf.metadata().chat_template();
    ChatFormat::new(template, &bos, &eos, tokens.clone())
        .or_else(|error| {
            tracing::warn!(%error, "the model's chat template can't be used; a plain one stands in");
            ChatFormat::new(None, &bos, &eos, tokens)
        })
        .map_err(|e| Error::Load(e.to_string()))
}
