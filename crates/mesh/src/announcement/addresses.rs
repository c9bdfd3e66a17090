//! Owns how addresses stand in announcements, which keep bytes of kinds that this version does not know.

use std::net::SocketAddr;

use super::{ADDRESS_BYTES_MAX, ADDRESSES_MAX};
use crate::Addresses;

const TAG_SOCKET: u8 = 0;
const TAG_RELAY: u8 = 1;

/// The form that announcements carry: the relay first, so that a limit never cuts it off.
pub(crate) fn to_announcement(addresses: &Addresses) -> Vec<Vec<u8>> {
    let relay = addresses
        .relay()
        .map(|url| tagged(TAG_RELAY, url.as_bytes()));
    let direct = addresses.direct().iter().map(|socket| {
        let ip = match socket {
            SocketAddr::V4(v4) => v4.ip().octets().to_vec(),
            SocketAddr::V6(v6) => v6.ip().octets().to_vec(),
        };
        tagged(
            TAG_SOCKET,
            &[ip, socket.port().to_be_bytes().to_vec()].concat(),
        )
    });
    relay
        .into_iter()
        .chain(direct)
        .filter(|bytes| bytes.len() <= ADDRESS_BYTES_MAX)
        .take(ADDRESSES_MAX)
        .collect()
}

/// Reads [`to_announcement`]; leaves out what it does not know.
pub(crate) fn from_announcement(announced: &[Vec<u8>]) -> Addresses {
    let direct = announced
        .iter()
        .filter_map(|bytes| match bytes.split_first() {
            Some((&TAG_SOCKET, rest)) => socket(rest),
            _ => None,
        });
    let relay = announced
        .iter()
        .find_map(|bytes| match bytes.split_first() {
            Some((&TAG_RELAY, rest)) => String::from_utf8(rest.to_vec()).ok(),
            _ => None,
        });
    Addresses::new(direct, relay)
}

fn tagged(tag: u8, rest: &[u8]) -> Vec<u8> {
    [&[tag], rest].concat()
}

fn socket(bytes: &[u8]) -> Option<SocketAddr> {
    let (ip, port) = bytes.split_last_chunk::<2>()?;
    let port = u16::from_be_bytes(*port);
    match ip.len() {
        4 => Some(SocketAddr::from((<[u8; 4]>::try_from(ip).ok()?, port))),
        16 => Some(SocketAddr::from((<[u8; 16]>::try_from(ip).ok()?, port))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn any_announced_addresses_are_read_or_left_out(
            announced in proptest::collection::vec(proptest::collection::vec(0u8..3, 0..24), 0..30),
        ) {
            let read = from_announcement(&announced);
            prop_assert!(read.direct().len() <= announced.len());
            let again = to_announcement(&read);
            prop_assert!(again.len() <= ADDRESSES_MAX);
            let kept = from_announcement(&again);
            prop_assert_eq!(kept.relay(), read.relay());
            prop_assert!(read.direct().starts_with(kept.direct()));
        }
    }

    #[test]
    fn announced_addresses_read_back_and_strange_ones_are_left_out() {
        let addresses = Addresses::new(
            ["10.0.0.1:4000", "[2001:db8::1]:4001"].map(|text| text.parse().unwrap()),
            Some("https://relay.example/".into()),
        );
        let mut announced = to_announcement(&addresses);
        announced.extend([
            vec![],
            vec![TAG_SOCKET, 1],
            vec![9, 9],
            vec![TAG_RELAY, 0xff],
        ]);
        assert_eq!(from_announcement(&announced), addresses);
    }
}
