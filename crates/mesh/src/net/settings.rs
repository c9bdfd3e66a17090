//! Owns what can be chosen about a node in a mesh. Resolved elsewhere; nothing here reads files or
//! the environment.

use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::Role;
use crate::announcement::NodeInfo;
use crate::identity::StateDir;

/// Everything that a node in a mesh is started with.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Where key, memberships and invitations are kept. `None` keeps nothing: the key is made for
    /// this run, as clients do.
    pub state: Option<StateDir>,
    /// How it is connected.
    pub network: Network,
    /// What it wants to be.
    pub role: Role,
    /// Most clients that are connected to it at once.
    pub clients_max: usize,
    /// What it says of itself at first. Its addresses are filled in.
    pub info: NodeInfo,
}

impl Settings {
    /// How many clients a node takes if nobody says otherwise. Each costs some 50 KB and a packet or
    /// two a second.
    pub const CLIENTS_MAX_DEFAULT: usize = 256;

    /// A serving node with the default network.
    #[must_use]
    pub fn new(state: Option<StateDir>, info: NodeInfo) -> Self {
        Self {
            state,
            network: Network::default(),
            role: Role::Serve,
            clients_max: Self::CLIENTS_MAX_DEFAULT,
            info,
        }
    }
}

/// How a node is connected.
#[derive(Debug, Clone)]
pub struct Network {
    /// Which relays help where no direct path is found.
    pub relays: Relays,
    /// The UDP port; 0 takes that of the last time, or lets the system choose.
    pub port: u16,
    /// The only local address to use. `None` uses all.
    pub ip: Option<IpAddr>,
    /// Whether members on the same network find each other by multicast.
    pub local_discovery: bool,
    /// Whether to send to others directly. Without it everything goes through relays.
    pub direct: bool,
    /// How long a silent connection lives. Short enough to notice a killed machine soon, and
    /// long enough for a stutter of the network. Live connections are never silent: both sides
    /// send something every quarter of it.
    pub idle: Duration,
}

impl Default for Network {
    fn default() -> Self {
        Self {
            relays: Relays::Public,
            port: 0,
            ip: None,
            local_discovery: true,
            direct: true,
            idle: Duration::from_secs(5),
        }
    }
}

impl Network {
    /// Only this machine, by its address 127.0.0.1; with another [`ip`](Self::ip) it is more than that. No relays and
    /// no local discovery. For tests, and for programs that stay on one machine.
    #[must_use]
    pub fn loopback() -> Self {
        Self {
            relays: Relays::None,
            ip: Some(IpAddr::V4(Ipv4Addr::LOCALHOST)),
            local_discovery: false,
            ..Self::default()
        }
    }
}

/// Which relays to use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Relays {
    /// Those that iroh's makers run, and their directory of addresses.
    Public,
    /// These URLs.
    Own(Vec<String>),
    /// None: direct connections only.
    None,
}
