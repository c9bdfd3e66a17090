//! Owns `Mesh`, the cheap handle that other crates hold, and how a node gets into a mesh.

use std::sync::Arc;
use std::time::Duration;

use iroh::{Endpoint, SecretKey};
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tokio_util::task::AbortOnDropHandle;

use crate::admission::{
    Authority, InvitationState, Invitations, Invite, Membership, Target, TicketId, TicketRef, Trust,
};
use crate::announcement::{NodeInfo, NodeState};
use crate::identity::{IdentityError, MeshFiles, StoredMembership};
use crate::net::{
    self, Actor, Admission, Command, Link, MemberStatus, MeshError, OpenPeer, RecvStream, Relays,
    Running, SendStream, Settings, Start, StreamKind, Streams,
};
use crate::proto::View;
use crate::ticket::Ticket;
use crate::{Addresses, MeshId, NodeId, Role, signature};

/// How long the first ticket waits for a relay, so that it leads here from outside.
const RELAY_WAIT_MAX: Duration = Duration::from_secs(4);

/// How long opening a stream on an open connection may take: the peer allows a bounded number.
const OPEN_MAX: Duration = Duration::from_secs(10);

/// A node's place in a mesh. Cheap to clone. When the last one is dropped without
/// [`leave`](Self::leave), the others see this node die.
#[derive(Debug, Clone)]
pub struct Mesh {
    shared: Arc<Shared>,
}

struct Shared {
    /// Dropped first: an actor that outlived its channel would say goodbye instead of just ending.
    _actor: AbortOnDropHandle<()>,
    me: NodeId,
    mesh: MeshId,
    name: Option<String>,
    role: Role,
    endpoint: Endpoint,
    relays: bool,
    commands: mpsc::Sender<Command>,
    view: watch::Receiver<Arc<View>>,
    status: watch::Receiver<MemberStatus>,
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("me", &self.me)
            .field("mesh", &self.mesh)
            .finish_non_exhaustive()
    }
}

impl Mesh {
    /// Where so many connections are being opened, no further one is begun for a stream to a member. Those that the
    /// mesh opens by itself count too, up to [`DIALS_MAX`](crate::proto::DIALS_MAX). One that nobody answers takes
    /// eight seconds, also when nobody waits for it any more.
    pub const DIALS_MAX: usize = net::DIALS_MAX;

    /// Opens this node's own mesh: the one called `name`, or the one without a name. The same mesh
    /// at each start with the same key and name; others come back to it by themselves.
    ///
    /// # Errors
    /// If the node's files cannot be used, or the network cannot.
    pub async fn create(
        settings: Settings,
        name: Option<&str>,
    ) -> Result<(Self, Streams), MeshError> {
        let key = key_of(&settings)?;
        let me = signature::node_of(&key);
        let (mesh, files) = own_mesh(&settings, name, me)?;
        let membership = Membership::of_root(mesh, me);
        let name = name.map(String::from);
        let mut nodes = Vec::new();
        if let Some(files) = &files {
            nodes = tolerate(files.bootstrap())?;
            files.set_membership(&StoredMembership {
                membership: membership.clone(),
                name: name.clone(),
            })?;
        }
        let endpoint = net::bind(key.clone(), &settings.network, settings.state.as_ref()).await?;
        let authority = Authority { key, membership };
        Self::start(settings, endpoint, authority, name, files, nodes)
    }

    /// Joins the mesh that a ticket leads to. Returns once a member has admitted this node; the
    /// table of the mesh follows within moments.
    ///
    /// # Errors
    /// If the ticket is over, no node that it names answers, or one refuses.
    pub async fn join(settings: Settings, ticket: &Ticket) -> Result<(Self, Streams), MeshError> {
        ticket.check(net::unix_ms())?;
        let key = key_of(&settings)?;
        let endpoint = net::bind(key, &settings.network, settings.state.as_ref()).await?;
        match redeem(&endpoint, ticket, settings.role).await {
            Ok(admitted) => Self::enter_with(settings, admitted, endpoint),
            Err(error) => {
                endpoint.close().await;
                Err(error)
            }
        }
    }

    /// Redeems a ticket of another mesh while this node stays in its own: whoever is not admitted
    /// has lost nothing.
    ///
    /// # Errors
    /// As [`join`](Self::join).
    pub async fn redeem(&self, ticket: &Ticket, role: Role) -> Result<Admitted, MeshError> {
        redeem(&self.shared.endpoint, ticket, role).await
    }

    /// Begins a place in the mesh that has admitted this node. The one through which it was
    /// [asked for](Self::redeem) must have been left: there is one endpoint to a key.
    ///
    /// # Errors
    /// If the node's files or the network cannot be used.
    pub async fn enter(
        settings: Settings,
        admitted: Admitted,
    ) -> Result<(Self, Streams), MeshError> {
        let key = admitted.key.clone();
        let endpoint = net::bind(key, &settings.network, settings.state.as_ref()).await?;
        Self::enter_with(settings, admitted, endpoint)
    }

    fn enter_with(
        settings: Settings,
        admitted: Admitted,
        endpoint: Endpoint,
    ) -> Result<(Self, Streams), MeshError> {
        let Admitted { key, admission } = admitted;
        let files = files_of(&settings, admission.membership.mesh);
        if let Some(files) = &files {
            files.set_membership(&StoredMembership {
                membership: admission.membership.clone(),
                name: admission.name.clone(),
            })?;
            files.set_bootstrap(&admission.nodes)?;
        }
        let authority = Authority {
            key,
            membership: admission.membership,
        };
        let (name, nodes) = (admission.name, admission.nodes);
        Self::start(settings, endpoint, authority, name, files, nodes)
    }

    /// Comes back to a mesh with the membership kept on disk. Returns at once; members are sought
    /// for as long as it takes.
    ///
    /// # Errors
    /// If no membership of this node's key is kept, or files or network cannot be used.
    pub async fn rejoin(
        mut settings: Settings,
        mesh: MeshId,
    ) -> Result<(Self, Streams), MeshError> {
        let key = key_of(&settings)?;
        let me = signature::node_of(&key);
        let files = files_of(&settings, mesh).ok_or(MeshError::NotAMember(mesh))?;
        let stored = files.membership()?;
        let StoredMembership { membership, name } = stored
            .filter(|stored| stored.membership.node == me && stored.membership.mesh == mesh)
            .ok_or(MeshError::NotAMember(mesh))?;
        let trust = Trust::new(mesh, membership.root, Default::default());
        trust.check(me, &membership, net::unix_ms())?;
        settings.role = match membership.role() {
            Role::Serve => settings.role,
            Role::Client => Role::Client,
        };
        let nodes = tolerate(files.bootstrap())?;
        let endpoint = net::bind(key.clone(), &settings.network, settings.state.as_ref()).await?;
        let authority = Authority { key, membership };
        Self::start(settings, endpoint, authority, name, Some(files), nodes)
    }

    fn start(
        mut settings: Settings,
        endpoint: Endpoint,
        authority: Authority,
        name: Option<String>,
        files: Option<MeshFiles>,
        bootstrap: Vec<(NodeId, Addresses)>,
    ) -> Result<(Self, Streams), MeshError> {
        let membership = &authority.membership;
        let (me, mesh, role) = (membership.node, membership.mesh, settings.role);
        if role == Role::Client {
            settings.info.state = NodeState::Client;
        }
        let mut trust = Trust::new(mesh, membership.root, Default::default());
        let mut book = Invitations::default();
        if let Some(files) = &files {
            tolerate(files.load_revocations(&mut trust))?;
            book = tolerate(files.invitations())?;
            if let Some(state) = &settings.state {
                state.set_last_mesh(mesh)?;
            }
        }
        trust.check_unrevoked(&membership.chain)?;
        let (sender, streams) = Streams::channel();
        let relays = settings.network.relays != Relays::None;
        let (actor, running) = Actor::new(Start {
            endpoint: endpoint.clone(),
            settings,
            authority,
            trust,
            name: name.clone(),
            files,
            book,
            bootstrap,
            streams: sender,
        });
        let Running {
            commands,
            view,
            status,
        } = running;
        let shared = Shared {
            _actor: AbortOnDropHandle::new(tokio::spawn(actor.run())),
            me,
            mesh,
            name,
            role,
            endpoint,
            relays,
            commands,
            view,
            status,
        };
        let mesh = Self {
            shared: Arc::new(shared),
        };
        Ok((mesh, streams))
    }

    /// This node.
    #[must_use]
    pub fn node_id(&self) -> NodeId {
        self.shared.me
    }

    /// Which mesh.
    #[must_use]
    pub fn mesh_id(&self) -> MeshId {
        self.shared.mesh
    }

    /// What people call the mesh.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.shared.name.as_deref()
    }

    /// What this node is in it.
    #[must_use]
    pub fn role(&self) -> Role {
        self.shared.role
    }

    /// The mesh as this node sees it, now and after each change.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<View>> {
        self.shared.view.clone()
    }

    /// Whether this node is still wanted, now and after each change.
    #[must_use]
    pub fn status(&self) -> watch::Receiver<MemberStatus> {
        self.shared.status.clone()
    }

    /// Says something new of this node. Its addresses are filled in. Small changes may wait some
    /// seconds before others hear of them; models that come or go do not.
    ///
    /// # Errors
    /// If the mesh was left.
    pub async fn announce(&self, info: NodeInfo) -> Result<(), MeshError> {
        self.tell(Command::Announce(Box::new(info))).await
    }

    /// Opens a stream to a member, over the connection to it, which is made if there is none.
    ///
    /// # Errors
    /// If the member cannot be reached within eight seconds, does not let this node in, or has no room for
    /// another stream within ten seconds more.
    pub async fn open(
        &self,
        node: NodeId,
        kind: StreamKind,
    ) -> Result<(SendStream, RecvStream), MeshError> {
        let opened = self.ask(|reply| Command::Open { node, reply }).await??;
        open_on(opened, node, kind).await
    }

    /// Opens a stream to a member for much that is in no hurry, such as weights. It goes over a connection
    /// beside the other one, which is made if there is none, and gives way to whatever else is on the same
    /// links. Membership is checked and ends as there.
    ///
    /// # Errors
    /// As [`open`](Self::open), with eight seconds for each of the two connections.
    pub async fn open_bulk(
        &self,
        node: NodeId,
        kind: StreamKind,
    ) -> Result<(SendStream, RecvStream), MeshError> {
        // Kept while the other one is made, which ends with it.
        let _beside = self.ask(|reply| Command::Open { node, reply }).await??;
        let opened = self
            .ask(|reply| Command::OpenBulk { node, reply })
            .await??;
        open_on(opened, node, kind).await
    }

    /// Makes a ticket in this node's name.
    ///
    /// # Errors
    /// If this node is a client or at the end of the longest chain, or the book cannot be written.
    pub async fn invite(&self, invite: Invite) -> Result<Ticket, MeshError> {
        if self.shared.relays
            && timeout(RELAY_WAIT_MAX, self.shared.endpoint.online())
                .await
                .is_err()
        {
            tracing::warn!("no relay answered; the ticket carries direct addresses only");
        }
        self.invite_now(invite).await
    }

    /// Makes a ticket with the addresses that are known now. Where relays are in use it may lack
    /// that of the relay, and lead here only from the same network or through the public directory.
    ///
    /// # Errors
    /// As [`invite`](Self::invite).
    pub async fn invite_now(&self, invite: Invite) -> Result<Ticket, MeshError> {
        self.ask(|reply| Command::Invite { invite, reply }).await?
    }

    /// The tickets that this node issued, the newest first.
    ///
    /// # Errors
    /// If the mesh was left.
    pub async fn invites(&self) -> Result<Vec<InvitationState>, MeshError> {
        self.ask(|reply| Command::Invites { reply }).await
    }

    /// Takes back a ticket that this node issued, and the membership of whoever came by it. Gives
    /// whether the ticket is in this node's book. One that is not is revoked all the same: the
    /// book forgets tickets, and memberships have no end.
    ///
    /// # Errors
    /// If this node is a client, what is revoked cannot be stored, or the mesh was left.
    pub async fn revoke(&self, id: TicketId) -> Result<bool, MeshError> {
        let issuer = self.shared.me;
        let target = Target::Ticket(TicketRef { issuer, id });
        self.ask(|reply| Command::Revoke { target, reply }).await?
    }

    /// Expels a node, and those that it admitted. The originator of the mesh may expel anybody,
    /// others only whom they stand above: whoever they admitted, and whoever those did. Gives whether
    /// this node has ever heard of the other.
    ///
    /// # Errors
    /// If this node does not stand above the other, as far as it knows; if it is that node itself, or
    /// a client; or the mesh was left.
    pub async fn expel(&self, node: NodeId) -> Result<bool, MeshError> {
        let target = Target::Node(node);
        self.ask(|reply| Command::Revoke { target, reply }).await?
    }

    /// Open connections with their paths.
    ///
    /// # Errors
    /// If the mesh was left.
    pub async fn links(&self) -> Result<Vec<Link>, MeshError> {
        self.ask(|reply| Command::Links { reply }).await
    }

    /// Asks for a fresh table, where this node pulls it: a model was not found, or a host failed.
    ///
    /// # Errors
    /// If the mesh was left.
    pub async fn pull_now(&self) -> Result<(), MeshError> {
        self.tell(Command::PullNow).await
    }

    /// Says goodbye and closes everything. Returns when that is done, a few seconds at most.
    pub async fn leave(&self) {
        let (done, finished) = oneshot::channel();
        if self.tell(Command::Leave { done }).await.is_ok() {
            // An error means that the actor ended by itself.
            let _ = finished.await;
        }
    }

    async fn tell(&self, command: Command) -> Result<(), MeshError> {
        let sent = self.shared.commands.send(command).await;
        sent.map_err(|_| MeshError::Stopped)
    }

    async fn ask<T>(
        &self,
        command: impl FnOnce(oneshot::Sender<T>) -> Command,
    ) -> Result<T, MeshError> {
        let (reply, answer) = oneshot::channel();
        self.tell(command(reply)).await?;
        answer.await.map_err(|_| MeshError::Stopped)
    }
}

/// A mesh's consent to have this node as a member.
#[derive(Debug)]
pub struct Admitted {
    key: SecretKey,
    admission: Admission,
}

/// Opens a stream on a connection and says what it is for.
async fn open_on(
    opened: OpenPeer,
    node: NodeId,
    kind: StreamKind,
) -> Result<(SendStream, RecvStream), MeshError> {
    let failed = |reason: String| MeshError::Peer { node, reason };
    let stream = timeout(OPEN_MAX, async {
        let halves = opened.connection.open_bi().await;
        let mut halves = halves.map_err(|error| failed(error.to_string()))?;
        let named = halves.0.write_all(&[kind.0]).await;
        named.map_err(|error| failed(error.to_string()))?;
        Ok::<_, MeshError>(halves)
    });
    let halves = stream
        .await
        .map_err(|_| MeshError::TooMany("streams to that node"))??;
    Ok(net::halves(halves, &opened.in_use))
}

async fn redeem(endpoint: &Endpoint, ticket: &Ticket, role: Role) -> Result<Admitted, MeshError> {
    let now_unix_ms = net::unix_ms();
    ticket.check(now_unix_ms)?;
    let key = endpoint.secret_key().clone();
    let (terms, me) = (ticket.terms(), signature::node_of(&key));
    let admission = if terms.root == me {
        // Its originator needs nobody's word.
        Admission {
            membership: Membership::of_root(terms.mesh, me),
            name: terms.name.clone(),
            nodes: terms.bootstrap.clone(),
        }
    } else {
        net::redeem(endpoint, ticket, role, now_unix_ms).await?
    };
    Ok(Admitted { key, admission })
}

fn key_of(settings: &Settings) -> Result<SecretKey, MeshError> {
    match &settings.state {
        Some(state) => Ok(state.key()?),
        None => Ok(SecretKey::generate()),
    }
}

fn files_of(settings: &Settings, mesh: MeshId) -> Option<MeshFiles> {
    settings.state.as_ref().map(|state| state.mesh(mesh))
}

/// The id and files of this node's own mesh. If the key was replaced since the unnamed mesh was
/// made, that mesh is no longer this node's, and there is a new one.
fn own_mesh(
    settings: &Settings,
    name: Option<&str>,
    me: NodeId,
) -> Result<(MeshId, Option<MeshFiles>), MeshError> {
    let mut rng = rand::rng();
    let mesh = match (name, &settings.state) {
        (Some(name), _) => MeshId::named(name, me),
        (None, None) => MeshId::random(&mut rng),
        (None, Some(state)) => {
            let mesh = state.unnamed_mesh(&mut rng)?;
            let stored = tolerate(state.mesh(mesh).membership())?;
            if stored.is_some_and(|stored| stored.membership.root != me) {
                state.forget_unnamed_mesh()?;
                state.unnamed_mesh(&mut rng)?
            } else {
                mesh
            }
        }
    };
    Ok((mesh, files_of(settings, mesh)))
}

/// Goes on without a file that was damaged and set aside: addresses come back with the next
/// connection, revocations with the next member, and counted tickets are refused from now on.
fn tolerate<T: Default>(loaded: Result<T, IdentityError>) -> Result<T, IdentityError> {
    match loaded {
        Err(error @ IdentityError::Damaged { aside: Some(_), .. }) => {
            tracing::error!(%error, "went on without a file");
            Ok(T::default())
        }
        other => other,
    }
}
