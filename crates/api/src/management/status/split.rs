//! Models over several machines.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

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
    /// Share that is done, 0 to 1.
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
            progress: f32::from(stage.permille) / 1_000.0,
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
        Self {
            stages: stages.collect(),
            predicted_tokens_per_second: layout.predicted_tokens_per_second,
            measured_tokens_per_second: layout.measured_tokens_per_second,
            waiting: layout.waiting.clone(),
            summary: layout.to_string(),
        }
    }
}
