//! Hosts: what runs inside, and what it can reach.

use std::io::{ErrorKind, Read as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::{Command, Stdio};

use testkit::net::Lab;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::wire::{HANG, address, arrived, echo, udp, until};

pub(crate) fn a_host_has_its_own_loopback_and_no_way_out() {
    let lab = Lab::new(2).unwrap();
    let outside = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = outside.local_addr().unwrap();
    let refused = lab.host(0).inside(|| TcpStream::connect(address));
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::ConnectionRefused);
    // The same port inside is free, and reached from inside only.
    let inside = lab.host(0).inside(|| TcpListener::bind(address).unwrap());
    drop(outside);
    lab.host(0).inside(|| TcpStream::connect(address).unwrap());
    inside.accept().unwrap();
    for from_elsewhere in [
        lab.host(1).inside(|| TcpStream::connect(address)),
        TcpStream::connect(address),
    ] {
        let error = from_elsewhere.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
    }
    let interfaces = lab.host(0).inside(interfaces);
    assert_eq!(interfaces, ["lab0", "lo"]);
    // A packet for the world is sent, and ends at the switch.
    let socket = udp(lab.host(0));
    let world: SocketAddr = "192.0.2.1:9".parse().unwrap();
    socket.send_to(b"anybody", world).unwrap();
    let far = udp(lab.host(1));
    echo(&socket, &far);
    assert_eq!(lab.counters(0, 1).passed, 1);
}

/// Names of the calling thread's interfaces.
pub(crate) fn interfaces() -> Vec<String> {
    let table = std::fs::read_to_string("/proc/thread-self/net/dev").unwrap();
    let rows = table.lines().skip(2);
    let mut names: Vec<_> = rows
        .map(|row| row.split_once(':').unwrap().0.trim().to_owned())
        .collect();
    names.sort();
    names
}

pub(crate) fn labs_side_by_side_do_not_see_each_other() {
    let labs = [Lab::new(2).unwrap(), Lab::new(2).unwrap()];
    let sockets = labs.each_ref().map(|lab| {
        let bound = lab
            .host(1)
            .inside(|| UdpSocket::bind((lab.host(1).ip(), 7_000)).unwrap());
        bound.set_read_timeout(Some(HANG)).unwrap();
        (udp(lab.host(0)), bound)
    });
    let [(near, far), (other_near, other_far)] = &sockets;
    assert_eq!(address(far), address(other_far));
    labs[0].cut(0, 1);
    near.send_to(b"cut", address(far)).unwrap();
    until(&labs[0], 0, 1, |counters| counters.cut == 1);
    assert!(arrived(other_far).is_empty());
    echo(other_near, other_far);
}

pub(crate) fn tasks_run_inside() {
    let lab = Lab::new(2).unwrap();
    let outside = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    outside.block_on(async {
        // Bound to loopback: nobody but the host itself gets there.
        let listener = lab
            .host(0)
            .run(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.await.unwrap();
        let address = listener.local_addr().unwrap();
        lab.host(0).runtime().spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.write_all(b"hello").await.unwrap();
        });
        let elsewhere = lab
            .host(1)
            .run(tokio::net::TcpStream::connect(address))
            .await;
        assert_eq!(elsewhere.unwrap_err().kind(), ErrorKind::ConnectionRefused);
        let said = lab.host(0).run(async move {
            let mut stream = tokio::net::TcpStream::connect(address).await.unwrap();
            let mut said = String::new();
            stream.read_to_string(&mut said).await.unwrap();
            said
        });
        assert_eq!(said.await, "hello");
        // Threads for blocking work are inside, too.
        let blocking = || tokio::task::spawn_blocking(super::hosts::interfaces);
        let names = lab.host(1).run(async move { blocking().await.unwrap() });
        assert_eq!(names.await, ["lab0", "lo"]);
        // The lab ends inside a runtime, with a task that never does.
        lab.host(1).runtime().spawn(std::future::pending::<()>());
        drop(lab);
    });
}

pub(crate) fn panics_inside_come_out() {
    let lab = Lab::new(1).unwrap();
    let text = |outcome: Result<(), Box<dyn std::any::Any + Send>>| {
        *outcome.unwrap_err().downcast::<&str>().unwrap()
    };
    let host = AssertUnwindSafe(lab.host(0));
    let inside = catch_unwind(|| host.inside(|| std::panic::panic_any("in a thread")));
    assert_eq!(text(inside), "in a thread");
    let outside = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let outside = AssertUnwindSafe(outside);
    let inside =
        catch_unwind(|| outside.block_on(host.run(async { std::panic::panic_any("in a task") })));
    assert_eq!(text(inside), "in a task");
    // The host goes on.
    assert_eq!(lab.host(0).inside(|| 7), 7);
}

pub(crate) fn a_paused_process_stays_and_a_dropped_one_ends() {
    let lab = Lab::new(1).unwrap();
    let host = lab.host(0);
    let mut command = Command::new("cat");
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut process = host.spawn(command).unwrap();
    let pid = i32::try_from(process.id()).unwrap();
    assert_eq!(host.processes(), [pid]);
    let state = || {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
        stat.rsplit_once(") ").unwrap().1.chars().next().unwrap()
    };
    process.pause().unwrap();
    while state() != 'T' {
        std::thread::yield_now();
    }
    process.resume().unwrap();
    while state() == 'T' {
        std::thread::yield_now();
    }
    // Ends by itself with its input.
    drop(process.stdin.take());
    let mut rest = String::new();
    process
        .stdout
        .take()
        .unwrap()
        .read_to_string(&mut rest)
        .unwrap();
    assert!(process.wait().unwrap().success());

    let mut command = Command::new("sleep");
    command.arg("1000");
    let process = host.spawn(command).unwrap();
    assert_eq!(host.processes().len(), 1);
    drop(process);
    assert!(host.processes().is_empty());

    let mut command = Command::new("sleep");
    command.arg("1000");
    let mut process = host.spawn(command).unwrap();
    process.interrupt().unwrap();
    assert_eq!(process.wait().unwrap().code(), None);
}

pub(crate) fn programs_that_do_not_exist_are_an_error() {
    let lab = Lab::new(1).unwrap();
    let outcome = lab.host(0).spawn(Command::new("/no/such/program"));
    assert_eq!(outcome.unwrap_err().kind(), ErrorKind::NotFound);
}
