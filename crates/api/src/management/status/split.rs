//! Models over several machines.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a machine does for its share of a model.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum SplitPhase {
    /// It asks who has the layers.
    Asking,
    /// It reads again what it fetched before a break.
    Checking,
    /// It fetches them from other machines.
    Fetching,
    /// It copies them out of a file of its own.
    Cutting,
    /// It reads them into its memory.
    #[default]
    Loading,
}

/// A machine that loads its share of a model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SplitLoading {
    /// Identity of the machine.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its first layer.
    pub first_layer: u32,
    /// Its last layer.
    pub last_layer: u32,
    /// What it does for them.
    #[serde(default)]
    pub phase: SplitPhase,
    /// Share of that which is done, 0 to 1.
    pub progress: f32,
    /// All of it in one line.
    pub summary: String,
}

/// A model over several machines.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Split {
    /// The machines in the order of their layers; the last one is the host.
    pub stages: Vec<SplitStage>,
    /// What the plan expects of one stream, tokens per second.
    pub predicted_tokens_per_second: f64,
    /// What the plan expects of prompts, where nothing else runs.
    #[serde(default)]
    pub predicted_first_token: Vec<SplitFirstToken>,
    /// What one stream got of late without speculation, tokens per second; null until that was seen.
    #[serde(default)]
    #[schema(required)]
    pub measured_tokens_per_second: Option<f64>,
    /// Why it pauses, if it does.
    #[schema(required)]
    pub waiting: Option<String>,
    /// All of it in one line.
    pub summary: String,
}

/// How long the first token of an answer takes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct SplitFirstToken {
    /// Length of the prompt, tokens.
    pub prompt_tokens: u32,
    /// Time from the prompt to the first token, milliseconds.
    pub ms: f64,
}

/// One machine's share of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SplitStage {
    /// The machine's public key.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// Its first layer.
    pub first_layer: u32,
    /// Its last layer.
    pub last_layer: u32,
}

impl From<&node::LoadingStage> for SplitLoading {
    fn from(stage: &node::LoadingStage) -> Self {
        Self {
            id: stage.node.to_string(),
            name: stage.name.clone(),
            first_layer: stage.first_layer,
            last_layer: stage.last_layer,
            phase: match stage.loading.phase {
                node::LoadPhase::Asking => SplitPhase::Asking,
                node::LoadPhase::Checking => SplitPhase::Checking,
                node::LoadPhase::Fetching => SplitPhase::Fetching,
                node::LoadPhase::Cutting => SplitPhase::Cutting,
                node::LoadPhase::Opening => SplitPhase::Loading,
            },
            progress: f32::from(stage.loading.permille) / 1_000.0,
            summary: stage.to_string(),
        }
    }
}

impl From<&node::Layout> for Split {
    fn from(layout: &node::Layout) -> Self {
        let stages = layout.stages.iter().map(|stage| SplitStage {
            id: stage.node.to_string(),
            name: stage.name.clone(),
            first_layer: stage.first_layer,
            last_layer: stage.last_layer,
        });
        let first_token = layout.predicted_first_token.iter();
        let first_token = first_token.map(|(prompt_tokens, time)| SplitFirstToken {
            prompt_tokens: *prompt_tokens,
            ms: time.as_secs_f64() * 1e3,
        });
        Self {
            stages: stages.collect(),
            predicted_tokens_per_second: layout.predicted_tokens_per_second,
            predicted_first_token: first_token.collect(),
            measured_tokens_per_second: layout.measured_tokens_per_second,
            waiting: layout.waiting.clone(),
            summary: layout.to_string(),
        }
    }
}
