//! How the node gets into a mesh when it starts.

use mesh::Role;
use mesh::admission::{Invite, Membership};
use mesh::identity::StateDir;
use mesh::net::MeshError;
use mesh::ticket::Ticket;
use node::{MeshRequestError, MeshSettings, Node};
use tokio_util::task::AbortOnDropHandle;

use super::TicketTask;
use crate::console::Console;
use crate::failure::Failure;

/// Opens the node's own mesh and begins to make a ticket for it.
///
/// A mesh without a name is opened in passing: who only wants a model served is told when there
/// can be no mesh, and gets the model. Who named a port for it wants the mesh.
pub(super) async fn open(
    node: &Node,
    name: Option<&str>,
    console: Console,
) -> Result<Option<TicketTask>, Failure> {
    match node.open_mesh(name).await {
        Ok(_) => {
            let node = node.clone();
            let making = tokio::spawn(async move { node.invite(Invite::default()).await });
            Ok(Some(AbortOnDropHandle::new(making)))
        }
        Err(error) if name.is_some() || is_port_in_use(&error) => Err(error.into()),
        Err(error) => {
            console.warn(
                "no_mesh",
                &format!("no mesh, other machines can't join this one: {error}"),
            );
            Ok(None)
        }
    }
}

/// Only a port that was asked for can be in use.
fn is_port_in_use(error: &MeshRequestError) -> bool {
    matches!(error, MeshRequestError::Mesh(MeshError::PortInUse(_)))
}

/// Joins the mesh of a ticket, or comes back to it: a ticket opens the door once, a membership
/// for as long as it is not taken back.
pub(super) async fn join(
    node: &Node,
    settings: &MeshSettings,
    ticket: &Ticket,
) -> Result<(), Failure> {
    let mesh = ticket.terms().mesh;
    // Without a readable membership there is the ticket.
    let stored = settings.home.as_ref().and_then(|home| {
        let files = StateDir::new(home).mesh(mesh);
        files.membership().ok().flatten()
    });
    let membership = stored.as_ref().map(|stored| &stored.membership);
    if membership.is_some_and(|membership| came_by(membership, ticket, settings.role)) {
        match node.rejoin(Some(mesh)).await {
            Ok(_) => return Ok(()),
            // Of another key, or over: the ticket may still admit.
            Err(error) => tracing::info!(%error, "the membership is of no use"),
        }
    }
    match node.join(ticket).await {
        Ok(_) => Ok(()),
        // The ticket may be over, or its issuer away, while other members are there.
        Err(error) if membership.is_some() => {
            tracing::info!(%error, "the ticket did not admit; coming back as the member that this node is");
            node.rejoin(Some(mesh)).await.map_err(|_| error)?;
            Ok(())
        }
        Err(error) => Err(error.into()),
    }
}

/// Whether the membership is what this ticket gave at an earlier start. A new ticket may give
/// more, or replace a membership that was taken back.
fn came_by(membership: &Membership, ticket: &Ticket, role: Role) -> bool {
    let admitted = membership
        .chain
        .first()
        .map(|certificate| certificate.grant());
    admitted.is_some_and(|grant| grant.ticket == ticket.reference() && grant.role == role)
}
