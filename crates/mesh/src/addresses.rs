//! Owns where a node can be reached: socket addresses and a relay. Resolves nothing and dials nothing.

use std::net::SocketAddr;

use serde::{Deserialize, Serialize};

use crate::codec::Blob;

/// Most socket addresses of one node. Machines with several networks, IPv4 and IPv6, have under ten.
pub const DIRECT_MAX: usize = 12;

/// Longest relay address in bytes: announcements carry no more.
pub const RELAY_BYTES_MAX: usize = 127;

/// Ways to one node. Both parts may be empty: then only local discovery finds it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Addresses {
    direct: Vec<SocketAddr>,
    relay: Option<String>,
}

/// Wire form: each socket address as 6 or 18 bytes (address, port big-endian).
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct AddressesWire {
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    direct: Vec<Blob>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    relay: Option<String>,
}

impl Addresses {
    /// Keeps the first [`DIRECT_MAX`] different socket addresses, and the relay if it is not too long.
    #[must_use]
    pub fn new(direct: impl IntoIterator<Item = SocketAddr>, relay: Option<String>) -> Self {
        let mut kept = Vec::new();
        for address in direct {
            if kept.len() < DIRECT_MAX && address.port() != 0 && !kept.contains(&address) {
                kept.push(address);
            }
        }
        Self {
            direct: kept,
            relay: relay.filter(|relay| relay.len() <= RELAY_BYTES_MAX),
        }
    }

    /// Socket addresses, the preferred first; at most [`DIRECT_MAX`].
    #[must_use]
    pub fn direct(&self) -> &[SocketAddr] {
        &self.direct
    }

    /// The URL of the relay that the node is connected to.
    #[must_use]
    pub fn relay(&self) -> Option<&str> {
        self.relay.as_deref()
    }

    /// Whether nothing is known.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.direct.is_empty() && self.relay.is_none()
    }

    /// The wire form.
    #[must_use]
    pub fn to_wire(&self) -> AddressesWire {
        AddressesWire {
            direct: self.direct.iter().map(socket_bytes).collect(),
            relay: self.relay.clone(),
        }
    }

    /// Reads the wire form; socket addresses of unknown kinds and those over the limit are left out.
    #[must_use]
    pub fn from_wire(wire: AddressesWire) -> Self {
        Self::new(wire.direct.iter().filter_map(socket_address), wire.relay)
    }
}

fn socket_bytes(address: &SocketAddr) -> Blob {
    let mut bytes = match address {
        SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
        SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
    };
    bytes.extend_from_slice(&address.port().to_be_bytes());
    Blob(bytes)
}

fn socket_address(Blob(bytes): &Blob) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    if let Ok(v4) = <[u8; 4]>::try_from(ip) {
        return Some(SocketAddr::from((v4, port)));
    }
    let v6 = <[u8; 16]>::try_from(ip).ok()?;
    Some(SocketAddr::from((v6, port)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket(text: &str) -> SocketAddr {
        text.parse().unwrap()
    }

    #[test]
    fn wire_form_reads_back() {
        let addresses = Addresses::new(
            [socket("10.0.0.1:4000"), socket("[2001:db8::1]:4001")],
            Some("https://relay.example".into()),
        );
        assert_eq!(Addresses::from_wire(addresses.to_wire()), addresses);
        assert!(Addresses::from_wire(Addresses::default().to_wire()).is_empty());
    }

    #[test]
    fn leaves_out_what_is_strange_or_too_much() {
        let many = (1..100).map(|port| SocketAddr::from(([10, 0, 0, 1], port)));
        let addresses = Addresses::new(many, Some("r".repeat(RELAY_BYTES_MAX + 1)));
        assert_eq!(addresses.direct().len(), DIRECT_MAX);
        assert_eq!(addresses.relay(), None);
        let wire = AddressesWire {
            direct: vec![
                Blob(vec![]),
                Blob(vec![1; 7]),
                Blob(vec![10, 0, 0, 1, 0, 0]),
            ],
            relay: None,
        };
        assert!(Addresses::from_wire(wire).is_empty());
    }
}
