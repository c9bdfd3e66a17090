//! Delay, loss, rate and cuts, as sockets see them.

use std::collections::BTreeSet;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, UdpSocket};
use std::time::{Duration, Instant};

use testkit::net::{Lab, Link};

use crate::wire::{HANG, address, arrived, echo, tcp, udp, until};

pub(crate) fn round_trips_take_at_least_as_long_as_is_set() {
    let lab = Lab::new(2).unwrap();
    let (near, far) = (udp(lab.host(0)), udp(lab.host(1)));
    for ms in [0, 5, 20, 80] {
        lab.set(0, 1, Link::round_trip_ms(ms));
        for _ in 0..10 {
            let took = echo(&near, &far);
            assert!(took >= Duration::from_millis(ms), "{took:?} of {ms} ms");
        }
    }
    // As many packets as were sent, and no others.
    for (from, to) in [(0, 1), (1, 0)] {
        assert_eq!(lab.counters(from, to).passed, 40);
    }
    lab.set(0, 1, Link::round_trip_ms(20).with_jitter_ms(5));
    let took: Vec<_> = (0..10).map(|_| echo(&near, &far)).collect();
    assert!(took.iter().all(|took| *took >= Duration::from_millis(20)));
    // Connecting takes one round trip.
    let began = Instant::now();
    drop(tcp(lab.host(0), lab.host(1)));
    assert!(began.elapsed() >= Duration::from_millis(20));
}

pub(crate) fn each_direction_is_set_on_its_own() {
    let lab = Lab::new(3).unwrap();
    let slow = Link {
        delay: Duration::from_millis(30),
        ..Link::default()
    };
    lab.set_direction(0, 1, slow);
    assert_eq!(lab.link(0, 1), slow);
    assert_eq!(lab.link(1, 0), Link::default());
    let sockets = [0, 1, 2].map(|index| udp(lab.host(index)));
    assert!(echo(&sockets[0], &sockets[1]) >= slow.delay);
    lab.set_direction(0, 1, Link::default().with_loss(1.0));
    sockets[0].send_to(b"lost", address(&sockets[1])).unwrap();
    until(&lab, 0, 1, |counters| counters.lost == 1);
    // Nobody else is touched.
    echo(&sockets[0], &sockets[2]);
    echo(&sockets[1], &sockets[2]);
    sockets[1].send_to(b"kept", address(&sockets[0])).unwrap();
    assert_eq!(sockets[0].recv(&mut [0; 16]).unwrap(), 4);
}

/// Numbers of the packets that get through a link.
fn survivors(link: Link, packets: u32) -> BTreeSet<u32> {
    /// Fits into the receiving socket's buffer.
    const AT_ONCE: u32 = 50;
    let lab = Lab::new(2).unwrap();
    lab.set(0, 1, link);
    let (near, far) = (udp(lab.host(0)), udp(lab.host(1)));
    let mut survivors = BTreeSet::new();
    for first in (0..packets).step_by(AT_ONCE as usize) {
        let numbers = first..first + AT_ONCE;
        for number in numbers.clone() {
            near.send_to(&number.to_le_bytes(), address(&far)).unwrap();
        }
        let decided = u64::from(numbers.end);
        until(&lab, 0, 1, |counters| {
            counters.passed + counters.lost == decided
        });
        let arrived = arrived(&far);
        survivors.extend(
            arrived
                .iter()
                .map(|b| u32::from_le_bytes(b[..].try_into().unwrap())),
        );
    }
    let counters = lab.counters(0, 1);
    assert_eq!(counters.passed, survivors.len() as u64);
    assert_eq!(counters.overflowed, 0);
    survivors
}

pub(crate) fn one_packet_in_a_hundred_is_lost_and_always_the_same() {
    let link = Link::default().with_loss(0.01);
    let first = survivors(link, 4_000);
    let lost = 4_000 - first.len();
    // 40 are expected; a fair draw lies outside of this once in 10,000 seeds.
    assert!((16..=66).contains(&lost), "{lost}");
    assert_eq!(first, survivors(link, 4_000));
    assert_ne!(first, survivors(link.with_seed(2), 4_000));
}

pub(crate) fn a_cut_link_passes_nothing_until_it_is_restored() {
    let lab = Lab::new(3).unwrap();
    let sockets = [0, 1, 2].map(|index| udp(lab.host(index)));
    echo(&sockets[0], &sockets[1]);
    // What is on its way when the cable is pulled is gone as well.
    lab.set(0, 1, Link::round_trip_ms(2_000));
    sockets[0].send_to(b"late", address(&sockets[1])).unwrap();
    until(&lab, 0, 1, |counters| counters.passed == 2);
    lab.cut(0, 1);
    assert_eq!(lab.counters(0, 1).cut, 1);
    assert_eq!(lab.counters(0, 1).passed, 1);
    lab.set(0, 1, Link::default());
    sockets[0].send_to(b"cut", address(&sockets[1])).unwrap();
    sockets[1].send_to(b"cut", address(&sockets[0])).unwrap();
    until(&lab, 0, 1, |counters| counters.cut == 2);
    until(&lab, 1, 0, |counters| counters.cut == 1);
    assert!(arrived(&sockets[0]).is_empty() && arrived(&sockets[1]).is_empty());
    echo(&sockets[0], &sockets[2]);
    lab.restore(0, 1);
    echo(&sockets[0], &sockets[1]);

    lab.isolate(2);
    for index in [0, 1] {
        sockets[2]
            .send_to(b"cut", address(&sockets[index]))
            .unwrap();
        until(&lab, 2, index, |counters| counters.cut == 1);
    }
    echo(&sockets[0], &sockets[1]);
    lab.rejoin(2);
    echo(&sockets[1], &sockets[2]);
}

fn noise(bytes: usize) -> Vec<u8> {
    let numbers = (0u64..).map(|number| number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32);
    numbers.map(|number| number as u8).take(bytes).collect()
}

/// Sends a stream from the first host to the second, doing something half way.
fn stream(lab: &Lab, bytes: usize, half_way: impl FnOnce()) {
    let (mut near, mut far) = tcp(lab.host(0), lab.host(1));
    let sent = noise(bytes);
    let mut received = vec![0; bytes];
    let (first, second) = received.split_at_mut(bytes / 2);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            near.write_all(&sent).unwrap();
            drop(near);
        });
        far.read_exact(first).unwrap();
        half_way();
        far.read_exact(second).unwrap();
    });
    assert_eq!(far.read(&mut [0]).unwrap(), 0);
    assert!(received == sent);
}

pub(crate) fn streams_arrive_whole_whatever_the_link_does() {
    let lab = Lab::new(2).unwrap();
    let clean = Link::default();
    let lossy = Link::round_trip_ms(2).with_loss(0.01);
    // Large packets of many segments, then single ones, and from one to the other on the way: half
    // of it is more than all buffers hold.
    stream(&lab, 32 << 20, || {});
    stream(&lab, 32 << 20, || lab.set(0, 1, lossy));
    assert!(lab.counters(0, 1).lost > 0);
    stream(&lab, 2 << 20, || {});
    stream(&lab, 8 << 20, || lab.set(0, 1, clean));
    stream(&lab, 32 << 20, || {
        lab.cut(0, 1);
        lab.restore(0, 1);
    });
}

pub(crate) fn a_rate_bounds_a_stream() {
    let lab = Lab::new(2).unwrap();
    lab.set(0, 1, Link::default().with_rate_mbit(80));
    let began = Instant::now();
    // 2 MB of 10 MB a second.
    stream(&lab, 2_000_000, || {});
    assert!(began.elapsed() >= Duration::from_millis(200));
}

pub(crate) fn multicast_reaches_all_that_are_not_cut_off() {
    let lab = Lab::new(4).unwrap();
    let group = Ipv4Addr::new(224, 0, 0, 251);
    let members = [0, 1, 2, 3].map(|index| {
        lab.host(index).inside(|| {
            let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 5_353)).unwrap();
            // Without naming an interface: the route decides.
            socket
                .join_multicast_v4(&group, &Ipv4Addr::UNSPECIFIED)
                .unwrap();
            socket.set_multicast_loop_v4(false).unwrap();
            socket.set_read_timeout(Some(HANG)).unwrap();
            socket
        })
    });
    lab.cut(0, 3);
    members[0].send_to(b"who", (group, 5_353)).unwrap();
    for member in &members[1..3] {
        let mut bytes = [0; 16];
        let (length, from) = member.recv_from(&mut bytes).unwrap();
        assert_eq!(&bytes[..length], b"who");
        assert_eq!(from.ip(), lab.host(0).ip());
    }
    assert!(arrived(&members[3]).is_empty() && arrived(&members[0]).is_empty());
}
