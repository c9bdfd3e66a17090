//! What all handlers share: the node, the settings, the metrics, and how many answers are under
//! way.

use std::sync::Arc;

use engine::{Backend, Error, ModelInfo};
use node::{ModelState, Node, Snapshot};
use tokio::sync::watch;

use crate::Config;
use crate::error::ApiError;
use crate::metrics::Metrics;
use crate::surface::Surface;

/// State shared by all handlers of one server.
pub(crate) struct App {
    pub(crate) node: Node,
    pub(crate) config: Config,
    /// Shared by all servers of the node.
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) surface: &'static Surface,
    /// Set when the server was told to stop; new requests are refused from then on.
    draining: watch::Sender<bool>,
    /// Answers whose last byte is not yet handed to the connection.
    active: watch::Sender<usize>,
}

impl App {
    pub(crate) fn new(
        node: Node,
        metrics: Arc<Metrics>,
        config: Config,
        surface: &'static Surface,
    ) -> Arc<Self> {
        Arc::new(Self {
            metrics,
            node,
            config,
            surface,
            draining: watch::Sender::new(false),
            active: watch::Sender::new(0),
        })
    }

    /// Refuses requests from now on.
    pub(crate) fn drain(&self) {
        self.draining.send_replace(true);
    }

    pub(crate) fn is_draining(&self) -> bool {
        *self.draining.borrow() || self.node.is_shutting_down()
    }

    /// Waits until the server is told to stop.
    pub(crate) async fn drained(&self) {
        let mut draining = self.draining.subscribe();
        // Fails only when the sender is gone, which `self` holds.
        let _ = draining.wait_for(|&draining| draining).await;
    }

    /// Counts one answer until the guard is dropped.
    pub(crate) fn begin(self: &Arc<Self>) -> Active {
        self.active.send_modify(|count| *count += 1);
        self.metrics.active.inc();
        Active(Arc::clone(self))
    }

    /// Waits until no answer is under way.
    pub(crate) async fn idle(&self) {
        let mut active = self.active.subscribe();
        // Fails only when the sender is gone, which `self` holds.
        let _ = active.wait_for(|&count| count == 0).await;
    }

    /// The backend that generates for `model`, and what it is.
    pub(crate) async fn generator(
        &self,
        model: Option<&str>,
    ) -> Result<(Arc<dyn Backend>, Arc<ModelInfo>), ApiError> {
        let model = model.unwrap_or_default();
        let backend = self
            .node
            .resolve(model)
            .await
            .map_err(|error| self.explain(error))?;
        let info = Arc::clone(backend.info());
        Ok((backend, info))
    }

    /// What the model for embeddings is.
    pub(crate) async fn embedder(&self, model: Option<&str>) -> Result<Arc<ModelInfo>, ApiError> {
        let backend = self
            .node
            .resolve_for_embedding(model.unwrap_or_default())
            .await
            .map_err(|error| self.explain(error))?;
        Ok(Arc::clone(backend.info()))
    }

    /// The answer for `error`: a model that is only not loaded yet is no unknown one, and an idle
    /// node knows none at all.
    fn explain(&self, error: Error) -> ApiError {
        if let Error::ModelNotFound { model, .. } = &error {
            let snapshot = self.node.snapshot();
            if is_idle(&snapshot) {
                return ApiError::idle();
            }
            let any = model.is_empty() || model.eq_ignore_ascii_case("auto");
            let wanted = model.to_lowercase();
            let stem = wanted.strip_suffix(".gguf").unwrap_or(&wanted);
            for known in &snapshot.models {
                if !(any || known.name.to_lowercase() == stem || known.name == *model) {
                    continue;
                }
                match &known.state {
                    ModelState::Loading { progress } => {
                        return ApiError::loading(&known.name, *progress);
                    }
                    ModelState::Waiting { reason } => {
                        return ApiError::waiting(&known.name, reason);
                    }
                    _ => {}
                }
            }
        }
        error.into()
    }
}

/// Whether nothing is there that could answer, now or soon.
pub(crate) fn is_idle(snapshot: &Snapshot) -> bool {
    snapshot.models.is_empty() && snapshot.targets.is_empty() && snapshot.mesh.is_none()
}

/// One answer under way.
pub(crate) struct Active(Arc<App>);

impl Drop for Active {
    fn drop(&mut self) {
        self.0.metrics.active.dec();
        self.0.active.send_modify(|count| *count -= 1);
    }
}
