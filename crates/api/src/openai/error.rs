//! OpenAI's error body.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The body of every answer that is no success, and of the last event of a stream that failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorBody {
    /// What went wrong.
    pub error: ErrorDetail,
}

/// What went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct ErrorDetail {
    /// For a person to read; often with a `hint:`.
    pub message: String,
    /// Kind of error, for example `invalid_request_error`, `rate_limit_error`, `server_error`.
    #[serde(rename = "type")]
    pub kind: String,
    /// Path of the field at fault, for example `messages[2].content`.
    #[schema(required)]
    pub param: Option<String>,
    /// For a program to read, for example `model_not_found`.
    #[schema(required)]
    pub code: Option<String>,
}
