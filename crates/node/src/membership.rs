//! What a running node can be asked about its mesh and its models.

use mesh::admission::{InvitationState, Invite, TicketId};
use mesh::ticket::Ticket;
use mesh::{MeshId, NodeId};

use crate::{DropError, MeshRequestError, ModelSource, Node, StartError};

impl Node {
    /// Opens this node's own mesh: the one called `name`, or the one without a name; the same one
    /// at each start. A node that is in another mesh leaves that first.
    ///
    /// # Errors
    /// If the node's files or the network cannot be used.
    pub async fn open_mesh(&self, name: Option<&str>) -> Result<MeshId, MeshRequestError> {
        let _ = name;
        Err(MeshRequestError::NotInMesh)
    }

    /// Joins the mesh that a ticket leads to. A node that is in another mesh leaves that once it is
    /// admitted; nothing changes if it is not.
    ///
    /// # Errors
    /// As `mesh::Mesh::join`.
    pub async fn join(&self, ticket: &Ticket) -> Result<MeshId, MeshRequestError> {
        let _ = ticket;
        Err(MeshRequestError::NotInMesh)
    }

    /// Comes back to a mesh that this node is a member of; `None`: the last one.
    ///
    /// # Errors
    /// If there is none, or files or network cannot be used.
    pub async fn rejoin(&self, mesh: Option<MeshId>) -> Result<MeshId, MeshRequestError> {
        let _ = mesh;
        Err(MeshRequestError::NotInMesh)
    }

    /// Says goodbye to the mesh. Models of this node go on for requests that come in here.
    ///
    /// # Errors
    /// [`MeshRequestError::NotInMesh`].
    pub async fn leave(&self) -> Result<(), MeshRequestError> {
        Err(MeshRequestError::NotInMesh)
    }

    /// Makes a ticket. With relays this may take some seconds.
    ///
    /// # Errors
    /// If the node is in no mesh or may not invite.
    pub async fn invite(&self, invite: Invite) -> Result<Ticket, MeshRequestError> {
        let _ = invite;
        Err(MeshRequestError::NotInMesh)
    }

    /// The tickets that this node issued, the newest first.
    ///
    /// # Errors
    /// If the node is in no mesh.
    pub async fn invites(&self) -> Result<Vec<InvitationState>, MeshRequestError> {
        Err(MeshRequestError::NotInMesh)
    }

    /// Takes back a ticket that this node issued, and the membership of whoever came by it.
    ///
    /// # Errors
    /// If the node is in no mesh, or issued no such ticket.
    pub async fn revoke(&self, id: TicketId) -> Result<(), MeshRequestError> {
        let _ = id;
        Err(MeshRequestError::NotInMesh)
    }

    /// Expels a node from the mesh, and those that it admitted.
    ///
    /// # Errors
    /// If the node is in no mesh, or does not stand above the other.
    pub async fn expel(&self, node: NodeId) -> Result<(), MeshRequestError> {
        let _ = node;
        Err(MeshRequestError::NotInMesh)
    }

    /// Begins to load a model beside those that are there; its progress is in the snapshot. Returns
    /// its name. A model that is served or being loaded already is left alone.
    ///
    /// # Errors
    /// When it can't be found or read, or does not fit.
    pub async fn load_model(&self, source: ModelSource) -> Result<String, StartError> {
        let _ = source;
        Err(StartError::NoEngine)
    }

    /// Takes no new requests for a model and frees its memory once running answers have ended.
    /// Returns at once.
    ///
    /// # Errors
    /// If this node does not serve it.
    pub async fn drop_model(&self, model: &str) -> Result<(), DropError> {
        Err(DropError::NotServed {
            model: model.to_owned(),
            hint: String::new(),
        })
    }
}
