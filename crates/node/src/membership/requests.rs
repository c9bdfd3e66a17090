//! What a running node can be asked about its mesh and its models.

use std::sync::Arc;
use std::time::Duration;

use mesh::admission::{InvitationState, Invite, TicketId};
use mesh::identity::StateDir;
use mesh::net::{MeshError, Settings as MeshSettings, Streams};
use mesh::ticket::Ticket;
use mesh::{Mesh, MeshId, NodeId};

use super::Membership;
use super::announce::first_info;
use crate::models::blocking;
use crate::node::Shared;
use crate::plan::{can_split, plan_one};
use crate::{DropError, MeshRequestError, ModelSource, Node, SplitModels, StartError};

/// A way into a mesh.
enum Entrance {
    /// This node's own, by its name.
    Own(Option<String>),
    /// By a ticket.
    Ticket(Box<Ticket>),
    /// One that has admitted this node before.
    Known(MeshId),
}

impl Node {
    /// Opens this node's own mesh: the one called `name`, or the one without a name; the same one
    /// at each start. A node that is in another mesh leaves that first.
    ///
    /// # Errors
    /// If the node's files or the network cannot be used.
    pub async fn open_mesh(&self, name: Option<&str>) -> Result<MeshId, MeshRequestError> {
        self.enter(Entrance::Own(name.map(str::to_owned))).await
    }

    /// Joins the mesh that a ticket leads to. A node that is in another mesh leaves that once it is
    /// admitted, and not before.
    ///
    /// # Errors
    /// As `mesh::Mesh::join`.
    pub async fn join(&self, ticket: &Ticket) -> Result<MeshId, MeshRequestError> {
        self.enter(Entrance::Ticket(Box::new(ticket.clone()))).await
    }

    /// Comes back to a mesh that this node is a member of; `None`: the last one.
    ///
    /// # Errors
    /// If there is none, or files or network cannot be used.
    pub async fn rejoin(&self, mesh: Option<MeshId>) -> Result<MeshId, MeshRequestError> {
        let mesh = match (mesh, &self.shared.settings.mesh.home) {
            (Some(mesh), _) => mesh,
            (None, Some(home)) => StateDir::new(home)
                .last_mesh()
                .map_err(MeshError::from)?
                .ok_or(MeshRequestError::NoLastMesh)?,
            (None, None) => return Err(MeshRequestError::NoLastMesh),
        };
        self.enter(Entrance::Known(mesh)).await
    }

    /// Whether this node can come back to a mesh without a ticket: it was admitted before, and
    /// keeps its membership.
    #[must_use]
    pub fn remembers(&self, mesh: MeshId) -> bool {
        let home = self.shared.settings.mesh.home.as_ref();
        home.is_some_and(|home| {
            let stored = StateDir::new(home).mesh(mesh).membership();
            stored.is_ok_and(|stored| stored.is_some())
        })
    }

    /// Says goodbye to the mesh. Models of this node go on for requests that come in here.
    ///
    /// # Errors
    /// [`MeshRequestError::NotInMesh`].
    pub async fn leave(&self) -> Result<(), MeshRequestError> {
        let _one_at_a_time = self.shared.entering.lock().await;
        if self.shared.end_membership().await {
            Ok(())
        } else {
            Err(MeshRequestError::NotInMesh)
        }
    }

    /// Makes a ticket. With relays this may take some seconds.
    ///
    /// # Errors
    /// If the node is in no mesh or may not invite.
    pub async fn invite(&self, invite: Invite) -> Result<Ticket, MeshRequestError> {
        Ok(self.in_mesh()?.invite(invite).await?)
    }

    /// Makes a ticket with the addresses that are known now, without waiting for a relay.
    ///
    /// # Errors
    /// As [`Node::invite`].
    pub async fn invite_now(&self, invite: Invite) -> Result<Ticket, MeshRequestError> {
        Ok(self.in_mesh()?.invite_now(invite).await?)
    }

    /// The tickets that this node issued, the newest first.
    ///
    /// # Errors
    /// If the node is in no mesh.
    pub async fn invites(&self) -> Result<Vec<InvitationState>, MeshRequestError> {
        Ok(self.in_mesh()?.invites().await?)
    }

    /// Takes back a ticket that this node issued, and the membership of whoever came by it. Gives
    /// whether the ticket is in this node's book; one that is not is taken back all the same.
    ///
    /// # Errors
    /// If the node is in no mesh, or may not revoke.
    pub async fn revoke(&self, id: TicketId) -> Result<bool, MeshRequestError> {
        Ok(self.in_mesh()?.revoke(id).await?)
    }

    /// Expels a node from the mesh, and those that it admitted. Gives whether this node has heard of
    /// the other; one that it has not is expelled all the same.
    ///
    /// # Errors
    /// If the node is in no mesh, or may not expel that one, such as itself.
    pub async fn expel(&self, node: NodeId) -> Result<bool, MeshRequestError> {
        Ok(self.in_mesh()?.expel(node).await?)
    }

    /// Begins to load a model beside those that are there; its progress is in the snapshot. Returns
    /// its name. A model that is served or being loaded already is left alone. One that does not fit here
    /// waits for machines of the mesh that run some of its layers, where the settings allow that.
    ///
    /// # Errors
    /// When it can't be found or read, or does not fit and is not to be split.
    pub async fn load_model(&self, source: ModelSource) -> Result<String, StartError> {
        let shared = &self.shared;
        if self.is_shutting_down() {
            return Err(StartError::ShutDown);
        }
        if shared.settings.mesh.role == mesh::Role::Client {
            return Err(StartError::Client);
        }
        shared.load(source, true).await
    }

    /// Takes no new requests for a model and frees its memory once running answers have ended.
    /// Returns at once. The node does not take the model up by itself soon after.
    ///
    /// # Errors
    /// If this node does not serve it.
    pub async fn drop_model(&self, model: &str) -> Result<(), DropError> {
        let dropped = self.shared.models.drop_model(model).await?;
        if let Some(membership) = &*self.shared.membership.borrow() {
            membership.note_dropped(dropped);
        }
        Ok(())
    }

    /// Enters a mesh. Goes on to the end even if whoever asked is gone: the node would otherwise be
    /// left between two meshes.
    async fn enter(&self, entrance: Entrance) -> Result<MeshId, MeshRequestError> {
        let shared = Arc::clone(&self.shared);
        // Ends by itself: every step of entering and leaving has a deadline.
        let task = tokio::spawn(async move { shared.replace(entrance).await });
        // It is cancelled only with the runtime; a panic has been told of.
        task.await.unwrap_or(Err(MeshRequestError::ShuttingDown))
    }

    fn in_mesh(&self) -> Result<Mesh, MeshRequestError> {
        self.shared.mesh().ok_or(MeshRequestError::NotInMesh)
    }
}

impl Shared {
    /// Begins to load a model, or to split it if it does not fit; gives its name. `asked`: the owner wants
    /// it here.
    pub(crate) async fn load(
        self: &Arc<Self>,
        source: ModelSource,
        asked: bool,
    ) -> Result<String, StartError> {
        let loaded = self.models.load(source.clone(), &self.settings).await;
        let Err(error @ StartError::Memory { .. }) = loaded else {
            return loaded;
        };
        if self.settings.split == SplitModels::Never || self.mesh().is_none() {
            return Err(error);
        }
        let settings = self.settings.clone();
        let planned = blocking("planning", move || {
            let plan = plan_one(&source, &settings)?;
            Ok::<_, StartError>(can_split(&plan).then_some(plan))
        });
        let Some(plan) = planned.await?? else {
            return Err(error);
        };
        let name = plan.name.clone();
        tracing::info!(model = name, %error, "a model is split over machines of the mesh");
        self.begin_split(plan, asked, false);
        Ok(name)
    }

    fn mesh_settings(&self) -> MeshSettings {
        let own = &self.settings.mesh;
        MeshSettings {
            state: own.home.as_ref().map(StateDir::new),
            network: own.network.clone(),
            role: own.role,
            clients_max: own.clients_max,
            info: first_info(self, own.role),
        }
    }

    /// Leaves the present mesh and enters another; comes back to the first if that fails.
    async fn replace(self: &Arc<Self>, entrance: Entrance) -> Result<MeshId, MeshRequestError> {
        let _one_at_a_time = self.entering.lock().await;
        if self.models.table().shutting_down {
            return Err(MeshRequestError::ShuttingDown);
        }
        let before = self.mesh();
        // What may be refused comes first. A node without files would have no way back.
        let admitted = match (&entrance, &before) {
            (Entrance::Ticket(ticket), Some(mesh)) => {
                Some(mesh.redeem(ticket, self.settings.mesh.role).await?)
            }
            _ => None,
        };
        if self.models.table().shutting_down {
            return Err(MeshRequestError::ShuttingDown);
        }
        let before = before.map(|mesh| mesh.mesh_id());
        self.end_membership().await;
        let settings = self.mesh_settings();
        let entered = match (entrance, admitted) {
            (_, Some(admitted)) => Mesh::enter(settings, admitted).await,
            (Entrance::Own(name), _) => Mesh::create(settings, name.as_deref()).await,
            (Entrance::Ticket(ticket), None) => Mesh::join(settings, &ticket).await,
            (Entrance::Known(mesh), _) => Mesh::rejoin(settings, mesh).await,
        };
        match entered {
            Ok((mesh, _)) if self.models.table().shutting_down => {
                // The node stopped meanwhile, and has said its goodbyes.
                mesh.leave().await;
                Err(MeshRequestError::ShuttingDown)
            }
            Ok((mesh, streams)) => Ok(self.begin_membership(mesh, streams)),
            Err(error) => {
                if let Some(before) = before
                    && self.settings.mesh.home.is_some()
                    && !self.models.table().shutting_down
                {
                    match Mesh::rejoin(self.mesh_settings(), before).await {
                        Ok((mesh, streams)) => {
                            self.begin_membership(mesh, streams);
                        }
                        Err(error) => tracing::error!(%error, "could not come back to the mesh"),
                    }
                }
                Err(error.into())
            }
        }
    }

    fn begin_membership(self: &Arc<Self>, mesh: Mesh, streams: Streams) -> MeshId {
        let id = mesh.mesh_id();
        let membership = Membership::start(self, mesh, streams);
        self.membership.send_replace(Some(membership));
        self.publish();
        id
    }

    /// Asks the hosts of this machine's stages to go elsewhere, and waits for that, so long at most.
    pub(crate) async fn leave_rings(&self, wait_max: Duration) {
        let membership = self.membership.borrow().clone();
        if let Some(membership) = membership {
            membership.leave_rings(wait_max).await;
        }
    }

    /// Leaves the mesh; false if there is none.
    pub(crate) async fn end_membership(&self) -> bool {
        let Some(membership) = self.membership.send_replace(None) else {
            return false;
        };
        membership.close().await;
        membership.mesh().leave().await;
        drop(membership);
        self.publish();
        true
    }

    /// Leaves `mesh`, unless the node is in another one by now.
    pub(crate) async fn end_membership_of(&self, mesh: &Mesh) {
        let mut ended = None;
        self.membership.send_if_modified(|present| {
            let same = present.as_ref().is_some_and(|present| {
                let present = present.mesh();
                present.mesh_id() == mesh.mesh_id() && present.node_id() == mesh.node_id()
            });
            if same {
                ended = present.take();
            }
            same
        });
        if ended.is_some() {
            mesh.leave().await;
            drop(ended);
            self.publish();
        }
    }
}
