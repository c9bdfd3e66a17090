//! Owns the sockets of these tests.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::time::{Duration, Instant};

use testkit::net::{Counters, Host, Lab};

/// Ends a test that hangs.
pub(crate) const HANG: Duration = Duration::from_secs(60);

pub(crate) fn udp(host: &Host) -> UdpSocket {
    let socket = host.inside(|| UdpSocket::bind((host.ip(), 0)).unwrap());
    socket.set_read_timeout(Some(HANG)).unwrap();
    socket
}

pub(crate) fn address(socket: &UdpSocket) -> SocketAddr {
    socket.local_addr().unwrap()
}

/// Both ends of a connection from one host to the other.
pub(crate) fn tcp(from: &Host, to: &Host) -> (TcpStream, TcpStream) {
    let listener = to.inside(|| TcpListener::bind((to.ip(), 0)).unwrap());
    let address = listener.local_addr().unwrap();
    let ends = std::thread::scope(|scope| {
        let accepted = scope.spawn(|| listener.accept().unwrap().0);
        let near = from.inside(|| TcpStream::connect_timeout(&address, HANG).unwrap());
        (near, accepted.join().unwrap())
    });
    for end in [&ends.0, &ends.1] {
        end.set_read_timeout(Some(HANG)).unwrap();
        end.set_write_timeout(Some(HANG)).unwrap();
    }
    ends
}

/// A datagram there and back; gives how long it took.
pub(crate) fn echo(near: &UdpSocket, far: &UdpSocket) -> Duration {
    let began = Instant::now();
    near.send_to(b"ping", address(far)).unwrap();
    let mut bytes = [0; 16];
    let (length, from) = far.recv_from(&mut bytes).unwrap();
    far.send_to(&bytes[..length], from).unwrap();
    let (length, from) = near.recv_from(&mut bytes).unwrap();
    assert_eq!((&bytes[..length], from), (b"ping".as_slice(), address(far)));
    began.elapsed()
}

/// What has arrived so far.
pub(crate) fn arrived(socket: &UdpSocket) -> Vec<Vec<u8>> {
    socket.set_nonblocking(true).unwrap();
    let mut all = Vec::new();
    let mut bytes = [0; 2_048];
    loop {
        match socket.recv_from(&mut bytes) {
            Ok((length, _)) => all.push(bytes[..length].to_vec()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) => panic!("{error}"),
        }
    }
    socket.set_nonblocking(false).unwrap();
    all
}

/// Waits until what was counted in a direction is as wanted.
pub(crate) fn until(lab: &Lab, from: usize, to: usize, wanted: impl Fn(&Counters) -> bool) {
    let end = Instant::now() + HANG;
    while !wanted(&lab.counters(from, to)) {
        let counters = lab.counters(from, to);
        assert!(Instant::now() < end, "stays at {counters:?}");
        std::thread::yield_now();
    }
}
