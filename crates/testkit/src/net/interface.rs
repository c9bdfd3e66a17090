//! Owns the set-up of a host's interfaces, addresses and routes, in the calling thread's namespace.

use std::io;
use std::net::{IpAddr, Ipv4Addr};

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_EXCL, NLM_F_REQUEST, NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{
    AfSpecInet6, AfSpecUnspec, In6AddrGenMode, LinkAttribute, LinkFlags, LinkMessage,
};
use netlink_packet_route::route::{
    RouteAttribute, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use netlink_sys::{Socket, SocketAddr, protocols::NETLINK_ROUTE};

/// Longest answer: an error with the request that caused it.
const ANSWER_BYTES_MAX: usize = 8 * 1_024;

/// A namespace has its loopback interface from the start, with this number.
const LOOPBACK_INDEX: u32 = 1;

/// What an Ethernet carries, so that packets are as large as they mostly are.
const MTU_BYTES: u32 = 1_500;

/// Packets that wait for the emulator: more than all senders of a host put out at once, so that
/// losses are the link's.
const QUEUE_PACKETS: u32 = 8_192;

/// Bits of an address that name the network.
pub(super) const PREFIX_BITS: u8 = 24;

/// Brings up loopback, and `name` with this address, all other addresses and multicast behind it.
/// No IPv6 but on loopback: the emulator carries none.
pub(super) fn configure(name: &str, ip: Ipv4Addr) -> io::Result<()> {
    let mut netlink = Netlink::open()?;
    netlink.set_link(up(LOOPBACK_INDEX, Vec::new()))?;
    let index = netlink.index_of(name)?;
    let mut no_ipv6 = LinkMessage::default();
    no_ipv6.header.index = index;
    let no_address = AfSpecInet6::AddrGenMode(In6AddrGenMode::None);
    no_ipv6.attributes = vec![LinkAttribute::AfSpecUnspec(vec![AfSpecUnspec::Inet6(
        vec![no_address],
    )])];
    // Fails where the kernel has no IPv6, which is as well.
    let _ = netlink.set_link(no_ipv6);
    netlink.set_link(up(
        index,
        vec![
            LinkAttribute::Mtu(MTU_BYTES),
            LinkAttribute::TxQueueLen(QUEUE_PACKETS),
        ],
    ))?;
    netlink.add_address(index, ip)?;
    // A route of its own for multicast, so that it does not depend on the default one.
    netlink.add_route(index, Ipv4Addr::new(224, 0, 0, 0), 4)?;
    netlink.add_route(index, Ipv4Addr::UNSPECIFIED, 0)
}

fn up(index: u32, attributes: Vec<LinkAttribute>) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = attributes;
    message
}

/// A connection to the kernel's routing tables.
struct Netlink {
    socket: Socket,
}

impl Netlink {
    fn open() -> io::Result<Self> {
        let mut socket = Socket::new(NETLINK_ROUTE)?;
        socket.bind_auto()?;
        socket.connect(&SocketAddr::new(0, 0))?;
        Ok(Self { socket })
    }

    fn index_of(&mut self, name: &str) -> io::Result<u32> {
        let mut message = LinkMessage::default();
        message.attributes = vec![LinkAttribute::IfName(name.into())];
        match self.ask(RouteNetlinkMessage::GetLink(message), 0)? {
            Some(RouteNetlinkMessage::NewLink(link)) => Ok(link.header.index),
            _ => Err(io::Error::other("the kernel does not tell an interface")),
        }
    }

    fn set_link(&mut self, message: LinkMessage) -> io::Result<()> {
        self.ask(RouteNetlinkMessage::SetLink(message), NLM_F_ACK)?;
        Ok(())
    }

    fn add_address(&mut self, index: u32, ip: Ipv4Addr) -> io::Result<()> {
        let mut message = AddressMessage::default();
        message.header.family = AddressFamily::Inet;
        message.header.prefix_len = PREFIX_BITS;
        message.header.index = index;
        message.attributes = vec![
            AddressAttribute::Local(IpAddr::V4(ip)),
            AddressAttribute::Address(IpAddr::V4(ip)),
        ];
        self.add(RouteNetlinkMessage::NewAddress(message))
    }

    fn add_route(&mut self, index: u32, to: Ipv4Addr, prefix_bits: u8) -> io::Result<()> {
        let mut message = RouteMessage::default();
        message.header.address_family = AddressFamily::Inet;
        message.header.destination_prefix_length = prefix_bits;
        message.header.table = RouteHeader::RT_TABLE_MAIN;
        message.header.protocol = RouteProtocol::Static;
        message.header.scope = RouteScope::Link;
        message.header.kind = RouteType::Unicast;
        message.attributes = vec![RouteAttribute::Oif(index)];
        if prefix_bits > 0 {
            let to = RouteAttribute::Destination(IpAddr::V4(to).into());
            message.attributes.push(to);
        }
        self.add(RouteNetlinkMessage::NewRoute(message))
    }

    fn add(&mut self, message: RouteNetlinkMessage) -> io::Result<()> {
        self.ask(message, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)?;
        Ok(())
    }

    /// Sends one request and reads its one answer: what was asked for, or an acknowledgement.
    fn ask(
        &mut self,
        message: RouteNetlinkMessage,
        flags: u16,
    ) -> io::Result<Option<RouteNetlinkMessage>> {
        let mut request = NetlinkMessage::from(message);
        request.header.flags = NLM_F_REQUEST | flags;
        request.finalize();
        let mut bytes = vec![0; request.buffer_len()];
        request.serialize(&mut bytes);
        self.socket.send(&bytes, 0)?;
        let mut answer = Vec::with_capacity(ANSWER_BYTES_MAX);
        self.socket.recv(&mut answer, 0)?;
        let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(&answer)
            .map_err(|error| io::Error::other(error.to_string()))?;
        match answer.payload {
            NetlinkPayload::Error(error) if error.code.is_some() => Err(error.to_io()),
            NetlinkPayload::InnerMessage(message) => Ok(Some(message)),
            _ => Ok(None),
        }
    }
}
