//! The OpenAPI description of the server, made from the handlers and the wire types.

pub(crate) mod union;

use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::{Modify, OpenApi};

use crate::route;

#[derive(OpenApi)]
#[openapi(
    info(
        title = "mesh-llm",
        description = "Large language models on your own machines, with OpenAI's API.",
    ),
    paths(
        route::chat::chat,
        route::completion::complete,
        route::embedding::embed,
        route::model::list,
        route::model::get,
        route::token::tokenize,
        route::token::detokenize,
        route::status::health,
        route::status::metrics,
        route::status::description,
    ),
    // Only the text of events refers to it.
    components(schemas(crate::openai::chat::ChatChunk)),
    security((), ("api_key" = [])),
    modifiers(&Key),
    tags(
        (name = "generation", description = "Text from models"),
        (name = "embeddings", description = "Vectors from texts"),
        (name = "models", description = "What is served"),
        (name = "tokens", description = "Text and tokens"),
        (name = "status", description = "State of the server"),
    )
)]
struct Description;

/// Describes the API key, which is needed where one is configured.
pub(crate) struct Key;

impl Modify for Key {
    fn modify(&self, openapi: &mut utoipa::openapi::OpenApi) {
        let scheme = HttpBuilder::new()
            .scheme(HttpAuthScheme::Bearer)
            .description(Some("Needed when the server was started with an API key."))
            .build();
        openapi
            .components
            .get_or_insert_default()
            .add_security_scheme("api_key", SecurityScheme::Http(scheme));
    }
}

/// The OpenAPI description of the server.
#[must_use]
pub fn openapi() -> utoipa::openapi::OpenApi {
    Description::openapi()
}
