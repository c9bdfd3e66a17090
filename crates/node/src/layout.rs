//! How a model lies over machines, for people.

use std::time::Duration;

use mesh::NodeId;
use split::layers::Loading;
use split::weights::Phase;

/// A model over several machines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// The machines in the order of their layers; the last one is the host.
    pub stages: Vec<LayoutStage>,
    /// What the plan expects of one stream, tokens per second.
    pub predicted_tokens_per_second: f64,
    /// How long the plan expects the first token to take after a prompt of so many tokens, where nothing else runs.
    pub predicted_first_token: Vec<(u32, Duration)>,
    /// What one stream got of late, once that was seen; without speculation.
    pub measured_tokens_per_second: Option<f64>,
    /// Why it does not run at the moment, if so.
    pub waiting: Option<String>,
}

/// One machine's share.
#[derive(Debug, Clone, PartialEq)]
pub struct LayoutStage {
    /// Which machine.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Its first layer.
    pub first_layer: u32,
    /// Its last layer.
    pub last_layer: u32,
}

/// A machine that loads its share.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadingStage {
    /// Which machine.
    pub node: NodeId,
    /// What people call it.
    pub name: String,
    /// Its first layer.
    pub first_layer: u32,
    /// Its last layer.
    pub last_layer: u32,
    /// What it does for them, and how far it is with that.
    pub loading: Loading,
}

impl std::fmt::Display for LoadingStage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            first_layer,
            last_layer,
            loading: Loading { phase, permille },
            ..
        } = self;
        if (*phase, *permille) == (Phase::Opening, 1_000) {
            return write!(f, "{name}: layers {first_layer}-{last_layer} loaded");
        }
        write!(f, "{name}: {phase} layers {first_layer}-{last_layer}")?;
        match phase {
            // How long that takes is not known.
            Phase::Asking | Phase::Opening => Ok(()),
            _ => write!(f, ", {} %", permille / 10),
        }
    }
}

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "over {} machines: ", self.stages.len())?;
        for (index, stage) in self.stages.iter().enumerate() {
            let (first, last) = (stage.first_layer, stage.last_layer);
            if index + 1 == self.stages.len() {
                write!(f, "{first}-{last} + head here")?;
            } else {
                let layers = if index == 0 { "layers " } else { "" };
                write!(f, "{layers}{first}-{last} on {}, ", stage.name)?;
            }
        }
        if let Some(reason) = &self.waiting {
            return write!(f, "; waiting: {reason}");
        }
        let predicted = rate(self.predicted_tokens_per_second);
        write!(f, "; predicted {predicted} tok/s")?;
        match self.measured_tokens_per_second {
            Some(measured) => write!(f, ", measured {}", rate(measured)),
            None => Ok(()),
        }
    }
}

/// Two digits that matter.
fn rate(per_second: f64) -> String {
    if per_second < 9.95 {
        format!("{per_second:.1}")
    } else {
        format!("{per_second:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_how_far_a_machine_is() {
        let says = |phase, done| {
            let stage = LoadingStage {
                node: NodeId::from_bytes([1; 32]),
                name: "attic".into(),
                first_layer: 12,
                last_layer: 23,
                loading: Loading::of(phase, done, 1_000),
            };
            stage.to_string()
        };
        assert_eq!(says(Phase::Asking, 0), "attic: asking for layers 12-23");
        let fetching = "attic: fetching layers 12-23, 43 %";
        assert_eq!(says(Phase::Fetching, 437), fetching);
        let (loading, loaded) = (says(Phase::Opening, 0), says(Phase::Opening, 1_000));
        assert_eq!(loading, "attic: loading layers 12-23");
        assert_eq!(loaded, "attic: layers 12-23 loaded");
    }

    #[test]
    fn people_read_who_has_which_layers() {
        let stage = |number: u8, name: &str, first_layer, last_layer| LayoutStage {
            node: NodeId::from_bytes([number; 32]),
            name: name.into(),
            first_layer,
            last_layer,
        };
        let mut layout = Layout {
            stages: vec![
                stage(1, "a", 0, 11),
                stage(2, "b", 12, 23),
                stage(3, "c", 24, 31),
            ],
            predicted_tokens_per_second: 17.04,
            predicted_first_token: Vec::new(),
            measured_tokens_per_second: None,
            waiting: None,
        };
        let lies = "over 3 machines: layers 0-11 on a, 12-23 on b, 24-31 + head here";
        assert_eq!(layout.to_string(), format!("{lies}; predicted 17 tok/s"));
        layout.measured_tokens_per_second = Some(16.2);
        let measured = format!("{lies}; predicted 17 tok/s, measured 16");
        assert_eq!(layout.to_string(), measured);
        layout.predicted_tokens_per_second = 9.96;
        layout.measured_tokens_per_second = Some(9.94);
        let measured = format!("{lies}; predicted 10 tok/s, measured 9.9");
        assert_eq!(layout.to_string(), measured);
        layout.waiting = Some("a is gone".into());
        assert!(layout.to_string().ends_with("here; waiting: a is gone"));
    }
}
