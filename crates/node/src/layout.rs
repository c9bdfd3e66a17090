//! How a model lies over machines, for people.

use mesh::NodeId;

/// A model over several machines.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Layout {
    /// The machines in the order of their layers; the last one is the host.
    pub stages: Vec<LayoutStage>,
    /// What the plan expects of one stream, tokens per second.
    pub predicted_tokens_per_second: f64,
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

impl std::fmt::Display for Layout {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "over {} machines: ", self.stages.len())?;
        for (index, stage) in self.stages.iter().enumerate() {
            let (first, last) = (stage.first_layer, stage.last_layer);
            if index + 1 == self.stages.len() {
                write!(f, "{first}-{last} + head here")?;
            } else {
                write!(f, "layers {first}-{last} on {}, ", stage.name)?;
            }
        }
        if let Some(reason) = &self.waiting {
            return write!(f, "; waiting: {reason}");
        }
        write!(
            f,
            "; predicted {:.1} tok/s",
            self.predicted_tokens_per_second
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn people_read_who_has_which_layers() {
        let stage = |number: u8, name: &str, first_layer, last_layer| LayoutStage {
            node: NodeId::from_bytes([number; 32]),
            name: name.into(),
            first_layer,
            last_layer,
        };
        let mut layout = Layout {
            stages: vec![stage(1, "attic", 0, 11), stage(2, "desk", 12, 31)],
            predicted_tokens_per_second: 17.04,
            waiting: None,
        };
        assert_eq!(
            layout.to_string(),
            "over 2 machines: layers 0-11 on attic, 12-31 + head here; predicted 17.0 tok/s"
        );
        layout.waiting = Some("attic is gone".into());
        assert!(layout.to_string().ends_with("here; waiting: attic is gone"));
    }
}
