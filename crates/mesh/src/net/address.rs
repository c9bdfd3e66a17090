//! Owns the translation between our addresses and iroh's.

use iroh::{EndpointAddr, EndpointId, RelayUrl, TransportAddr};

use crate::{Addresses, NodeId};

/// The node at the other end of a connection.
pub(crate) fn node_of(id: EndpointId) -> NodeId {
    NodeId::from_bytes(*id.as_bytes())
}

/// What to dial; `None` for bytes that are no key.
pub(crate) fn endpoint_addr(node: NodeId, addresses: &Addresses) -> Option<EndpointAddr> {
    let id = EndpointId::from_bytes(node.as_bytes()).ok()?;
    let direct = addresses.direct().iter().map(|ip| TransportAddr::Ip(*ip));
    let relay = addresses
        .relay()
        .and_then(|url| url.parse::<RelayUrl>().ok())
        .map(TransportAddr::Relay);
    Some(EndpointAddr::from_parts(id, direct.chain(relay)))
}

/// Where an endpoint can be reached.
pub(crate) fn addresses_of(address: &EndpointAddr) -> Addresses {
    Addresses::new(
        address.ip_addrs().copied(),
        address.relay_urls().next().map(ToString::to_string),
    )
}
