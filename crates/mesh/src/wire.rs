//! Owns the first messages of a connection: hello and its answer, join and its answer.

use serde::{Deserialize, Serialize};

use crate::admission::{
    MEMBERSHIP_BYTES_MAX, Membership, Refusal, RefusalWire, role_number, role_of,
};
use crate::codec::{self, Blob, DecodeError, Fixed};
use crate::ticket::{TICKET_BYTES_MAX, Ticket};
use crate::{Addresses, AddressesWire, NodeId, Role};

/// Most bytes of a hello: a membership and addresses.
pub(crate) const HELLO_BYTES_MAX: usize = MEMBERSHIP_BYTES_MAX + 4 * 1_024;

/// Most bytes of the answer to a hello: a hello or a refusal, wrapped.
pub(crate) const ANSWER_BYTES_MAX: usize = HELLO_BYTES_MAX + 1_024;

/// Most bytes of a request to join.
pub(crate) const JOIN_BYTES_MAX: usize = TICKET_BYTES_MAX + 1_024;

/// Most bytes of the answer to a request to join: a membership and members to start from.
pub(crate) const JOINED_BYTES_MAX: usize = MEMBERSHIP_BYTES_MAX + 16 * 1_024;

/// Most members that a joiner is told of.
pub(crate) const JOINED_NODES_MAX: usize = 16;

/// What a node shows of itself at the start of a connection.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Hello {
    pub(crate) membership: Membership,
    /// Random, made at the start of the program: a new one means that the old connection is dead.
    pub(crate) instance: u64,
    pub(crate) addresses: Addresses,
}

#[derive(Serialize, Deserialize)]
struct HelloWire {
    #[serde(rename = "m")]
    membership: Blob,
    #[serde(rename = "i")]
    instance: u64,
    #[serde(rename = "a")]
    addresses: AddressesWire,
}

impl Hello {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&self.to_wire())
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        Self::from_wire(codec::decode(bytes, HELLO_BYTES_MAX)?)
    }

    fn to_wire(&self) -> HelloWire {
        HelloWire {
            membership: Blob(self.membership.to_bytes()),
            instance: self.instance,
            addresses: self.addresses.to_wire(),
        }
    }

    fn from_wire(wire: HelloWire) -> Result<Self, DecodeError> {
        Ok(Self {
            membership: Membership::from_bytes(&wire.membership.0)?,
            instance: wire.instance,
            addresses: Addresses::from_wire(wire.addresses),
        })
    }
}

/// Why a hello is not accepted. Whoever was revoked is shown the revocation, and checks it himself.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Rejection {
    pub(crate) refusal: Refusal,
    /// A revocation's bytes.
    pub(crate) proof: Option<Vec<u8>>,
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        Self {
            refusal,
            proof: None,
        }
    }
}

#[derive(Serialize, Deserialize)]
struct AnswerWire {
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    hello: Option<HelloWire>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalWire>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    proof: Option<Blob>,
}

/// The bytes of the answer to a hello.
pub(crate) fn answer_to_bytes(answer: Result<&Hello, &Rejection>) -> Vec<u8> {
    let rejection = answer.err();
    codec::encode(&AnswerWire {
        hello: answer.ok().map(Hello::to_wire),
        refusal: rejection.map(|rejection| rejection.refusal.to_wire()),
        proof: rejection.and_then(|rejection| rejection.proof.clone().map(Blob)),
    })
}

/// Reads the answer to a hello.
pub(crate) fn answer_from_bytes(bytes: &[u8]) -> Result<Result<Hello, Rejection>, DecodeError> {
    let wire: AnswerWire = codec::decode(bytes, ANSWER_BYTES_MAX)?;
    match (wire.hello, wire.refusal) {
        (Some(hello), None) => Ok(Ok(Hello::from_wire(hello)?)),
        (_, Some(refusal)) => Ok(Err(Rejection {
            refusal: Refusal::from_wire(refusal),
            proof: wire.proof.map(|Blob(bytes)| bytes),
        })),
        (None, None) => Err(DecodeError::Malformed("an empty answer".into())),
    }
}

/// A request to join.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Join {
    pub(crate) ticket: Ticket,
    pub(crate) role: Role,
}

#[derive(Serialize, Deserialize)]
struct JoinWire {
    #[serde(rename = "t")]
    ticket: Blob,
    #[serde(rename = "r")]
    role: u8,
}

impl Join {
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        codec::encode(&JoinWire {
            ticket: Blob(self.ticket.to_bytes()),
            role: role_number(self.role),
        })
    }

    pub(crate) fn from_bytes(bytes: &[u8]) -> Result<Self, DecodeError> {
        let wire: JoinWire = codec::decode(bytes, JOIN_BYTES_MAX)?;
        let ticket = Ticket::from_bytes(&wire.ticket.0)
            .map_err(|error| DecodeError::Malformed(error.to_string()))?;
        Ok(Self {
            ticket,
            role: role_of(wire.role)?,
        })
    }
}

/// The answer to a request that is granted.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Joined {
    pub(crate) membership: Membership,
    pub(crate) name: Option<String>,
    pub(crate) nodes: Vec<(NodeId, Addresses)>,
}

#[derive(Serialize, Deserialize)]
struct JoinedWire {
    #[serde(rename = "m", default, skip_serializing_if = "Option::is_none")]
    membership: Option<Blob>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "n", default, skip_serializing_if = "Vec::is_empty")]
    nodes: Vec<NodeWire>,
    #[serde(rename = "x", default, skip_serializing_if = "Option::is_none")]
    refusal: Option<RefusalWire>,
}

#[derive(Serialize, Deserialize)]
struct NodeWire {
    #[serde(rename = "n")]
    node: Fixed<32>,
    #[serde(rename = "a")]
    addresses: AddressesWire,
}

/// The bytes of the answer to a request to join.
pub(crate) fn joined_to_bytes(answer: &Result<Joined, Refusal>) -> Vec<u8> {
    let wire = match answer {
        Ok(joined) => JoinedWire {
            membership: Some(Blob(joined.membership.to_bytes())),
            name: joined.name.clone(),
            nodes: joined
                .nodes
                .iter()
                .take(JOINED_NODES_MAX)
                .map(|(node, addresses)| NodeWire {
                    node: (*node).into(),
                    addresses: addresses.to_wire(),
                })
                .collect(),
            refusal: None,
        },
        Err(refusal) => JoinedWire {
            membership: None,
            name: None,
            nodes: Vec::new(),
            refusal: Some(refusal.to_wire()),
        },
    };
    codec::encode(&wire)
}

/// Reads the answer to a request to join.
pub(crate) fn joined_from_bytes(bytes: &[u8]) -> Result<Result<Joined, Refusal>, DecodeError> {
    let wire: JoinedWire = codec::decode(bytes, JOINED_BYTES_MAX)?;
    match (wire.membership, wire.refusal) {
        (Some(membership), None) => Ok(Ok(Joined {
            membership: Membership::from_bytes(&membership.0)?,
            name: wire.name.map(|name| crate::ticket::short_name(&name)),
            nodes: wire
                .nodes
                .into_iter()
                .take(JOINED_NODES_MAX)
                .map(|node| (node.node.into(), Addresses::from_wire(node.addresses)))
                .collect(),
        })),
        (_, Some(refusal)) => Ok(Err(Refusal::from_wire(refusal))),
        (None, None) => Err(DecodeError::Malformed("an empty answer".into())),
    }
}
