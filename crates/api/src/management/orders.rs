//! What changes the node's place in a mesh, carried out one after the other and to the end.
//!
//! Half of a change is worse than none: a caller that leaves while its join is under way must not
//! leave the node between two meshes.

use mesh::MeshId;
use mesh::ticket::Ticket;
use node::{MeshRequestError, Node};
use tokio::sync::{mpsc, oneshot};
use tokio_util::task::AbortOnDropHandle;

use super::failure;
use crate::error::ApiError;

/// Most orders that wait. People give them one at a time; each may take some seconds.
const WAITING_MAX: usize = 8;

/// Takes orders. They end with their owner.
pub(super) struct Orders {
    waiting: mpsc::Sender<Order>,
    _task: AbortOnDropHandle<()>,
}

enum Order {
    Join(Box<Ticket>, Answer<MeshId>),
    Leave(Answer<()>),
}

type Answer<T> = oneshot::Sender<Result<T, MeshRequestError>>;

impl Orders {
    /// Begins to carry out orders. Must be called in a runtime.
    pub(super) fn start(node: Node) -> Self {
        let (waiting, orders) = mpsc::channel(WAITING_MAX);
        Self {
            waiting,
            _task: AbortOnDropHandle::new(tokio::spawn(carry_out(node, orders))),
        }
    }

    /// Joins the mesh of `ticket`.
    pub(super) async fn join(&self, ticket: Ticket) -> Result<MeshId, ApiError> {
        self.give(|answer| Order::Join(Box::new(ticket), answer))
            .await
    }

    /// Leaves the mesh.
    pub(super) async fn leave(&self) -> Result<(), ApiError> {
        self.give(Order::Leave).await
    }

    async fn give<T>(&self, order: impl FnOnce(Answer<T>) -> Order) -> Result<T, ApiError> {
        let (answer, answered) = oneshot::channel();
        if self.waiting.try_send(order(answer)).is_err() {
            return Err(ApiError::too_many_orders());
        }
        match answered.await {
            Ok(result) => result.map_err(failure::of_mesh),
            // The task ends with the server only.
            Err(_) => Err(ApiError::shutting_down()),
        }
    }
}

async fn carry_out(node: Node, mut orders: mpsc::Receiver<Order>) {
    while let Some(order) = orders.recv().await {
        // Whether somebody still waits for the answer does not matter.
        match order {
            Order::Join(ticket, answer) => {
                let _ = answer.send(node.join(&ticket).await);
            }
            Order::Leave(answer) => {
                let _ = answer.send(node.leave().await);
            }
        }
    }
}
