//! `POST /v1/embeddings`.

use std::sync::Arc;

use axum::extract::State;
use axum::response::Response;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use engine::{EmbedInput, EmbedRequest, ModelInfo};

use super::{BodyRefusals, Failures, Refusals, answered, json_by};
use crate::body::Json;
use crate::convert::completion::check_tokens;
use crate::convert::count;
use crate::error::ApiError;
use crate::openai::embedding::{
    Embedding, EmbeddingList, EmbeddingRequest, EmbeddingUsage, Vector,
};
use crate::openai::input::Prompt;
use crate::state::App;

/// Embed texts
#[utoipa::path(
    post,
    path = "/v1/embeddings",
    tag = "embeddings",
    request_body = EmbeddingRequest,
    responses(
        (status = 200, description = "The embeddings", body = EmbeddingList),
        Failures,
        BodyRefusals,
        Refusals,
    )
)]
pub(crate) async fn embed(
    State(app): State<Arc<App>>,
    Json(wire): Json<EmbeddingRequest>,
) -> Result<Response, ApiError> {
    let info = app.embedder(wire.model.as_deref()).await?;
    answered(&info.name, answer(&app, wire, &info)).await
}

async fn answer(app: &App, wire: EmbeddingRequest, info: &ModelInfo) -> Result<Response, ApiError> {
    let base64 = match wire.encoding_format.as_deref() {
        None | Some("float") => false,
        Some("base64") => true,
        Some(_) => {
            return Err(ApiError::invalid(
                "encoding_format",
                "encoding_format: must be `float` or `base64`",
            ));
        }
    };
    let width = i64::from(info.embedding_width);
    let dimensions = match wire.dimensions {
        // An embedding model that does not know its width can't be asked for another one.
        Some(_) if !info.embeds => None,
        dimensions => count(dimensions, 1..=width, "dimensions")?,
    };
    let request = EmbedRequest {
        model: info.name.clone(),
        inputs: inputs(wire.input, info)?,
    };
    let embeddings = app.node.embed(request).await?;
    let data = embeddings
        .vectors
        .into_iter()
        .enumerate()
        .map(|(index, vector)| Embedding {
            object: "embedding",
            index,
            embedding: encode(shorten(vector, dimensions), base64),
        })
        .collect();
    let answer = EmbeddingList {
        object: "list",
        data,
        model: info.name.clone(),
        usage: EmbeddingUsage {
            prompt_tokens: embeddings.prompt_tokens,
            total_tokens: embeddings.prompt_tokens,
        },
    };
    Ok(json_by(&info.name, &answer))
}

fn inputs(input: Prompt, info: &ModelInfo) -> Result<Vec<EmbedInput>, ApiError> {
    let empty = |path: &str| {
        Err(ApiError::invalid(
            path,
            format!("{path}: must not be empty"),
        ))
    };
    match input {
        Prompt::Texts(texts) if texts.is_empty() => empty("input"),
        Prompt::Texts(texts) => match texts.iter().position(String::is_empty) {
            Some(0) if texts.len() == 1 => empty("input"),
            Some(index) => empty(&format!("input[{index}]")),
            None => Ok(texts.into_iter().map(EmbedInput::Text).collect()),
        },
        Prompt::Tokens(lists) => lists
            .into_iter()
            .enumerate()
            .map(|(index, tokens)| {
                check_tokens(&tokens, info, &format!("input[{index}]"))?;
                Ok(EmbedInput::Tokens(tokens))
            })
            .collect(),
    }
}

/// The first `dimensions` numbers, scaled to unit length again.
fn shorten(mut vector: Vec<f32>, dimensions: Option<u32>) -> Vec<f32> {
    let Some(dimensions) = dimensions else {
        return vector;
    };
    if (dimensions as usize) < vector.len() {
        vector.truncate(dimensions as usize);
        let norm = vector.iter().map(|x| x * x).sum::<f32>().sqrt();
        if norm > 0.0 {
            vector.iter_mut().for_each(|x| *x /= norm);
        }
    }
    vector
}

fn encode(vector: Vec<f32>, base64: bool) -> Vector {
    if base64 {
        let bytes: Vec<u8> = vector.iter().flat_map(|x| x.to_le_bytes()).collect();
        Vector::Base64(STANDARD.encode(bytes))
    } else {
        Vector::Float(vector)
    }
}
