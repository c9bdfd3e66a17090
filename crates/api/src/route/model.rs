//! `GET /v1/models` and `GET /v1/models/{model}`.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, State};

use super::Refusals;
use crate::error::ApiError;
use crate::openai::error::ErrorBody;
use crate::openai::model::{Model, ModelList};
use crate::state::App;

/// List the models
#[utoipa::path(
    get,
    path = "/v1/models",
    tag = "models",
    responses(
        (status = 200, description = "The models that are ready", body = ModelList),
        Refusals,
    )
)]
pub(crate) async fn list(State(app): State<Arc<App>>) -> Json<ModelList> {
    let models = app.node.served().await;
    Json(ModelList {
        object: "list",
        data: models.iter().map(|info| info.as_ref().into()).collect(),
    })
}

/// Describe one model
#[utoipa::path(
    get,
    path = "/v1/models/{model}",
    tag = "models",
    params(("model" = String, Path, description = "Name of the model")),
    responses(
        (status = 200, description = "The model", body = Model),
        (status = 404, description = "No such model", body = ErrorBody),
        Refusals,
    )
)]
pub(crate) async fn get(
    State(app): State<Arc<App>>,
    Path(model): Path<String>,
) -> Result<Json<Model>, ApiError> {
    let (_, info) = app.generator(Some(&model)).await?;
    Ok(Json(info.as_ref().into()))
}
