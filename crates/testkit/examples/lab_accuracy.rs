//! How exact and how fast the emulated network is on this machine, alone and with all cores busy:
//! `cargo run --release -p testkit --example lab_accuracy`.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::print_stdout)]

#[cfg(target_os = "linux")]
mod measure {
    use std::io::{Read as _, Write as _};
    use std::net::{TcpListener, TcpStream, UdpSocket};
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::{Duration, Instant};

    use testkit::net::{self, Lab, Link};

    const ECHOES: usize = 100;
    const STREAM_TIME: Duration = Duration::from_secs(2);

    pub(crate) fn all() {
        net::gain_rights();
        if let Err(reason) = net::supported() {
            println!("not on this machine: {reason}");
            return;
        }
        println!("one datagram of 64 bytes there and back, {ECHOES} times, in ms");
        println!(
            "{:>20} {:>8} {:>8} {:>8} {:>8}",
            "set", "fastest", "median", "90 %", "slowest"
        );
        for ms in [0, 5, 20, 80] {
            echoes(ms, "");
        }
        with_busy_cores(|| {
            for ms in [0, 5, 20, 80] {
                echoes(ms, ", busy cores");
            }
        });
        println!("one TCP stream for {} s", STREAM_TIME.as_secs());
        println!(
            "{:>20} {:>8} {:>24}",
            "set", "Gbit/s", "cores used by the switch"
        );
        let clean = Link::round_trip_ms;
        for (name, link) in [
            ("0 ms", clean(0)),
            ("5 ms", clean(5)),
            ("20 ms", clean(20)),
            // So little that it shows what single packets cost.
            ("0 ms, loss", clean(0).with_loss(1e-9)),
            ("20 ms, loss", clean(20).with_loss(1e-9)),
            ("20 ms, 1 % loss", clean(20).with_loss(0.01)),
            ("20 ms, 100 Mbit/s", clean(20).with_rate_mbit(100)),
        ] {
            stream(name, link);
        }
    }

    fn echoes(ms: u64, name: &str) {
        let lab = Lab::new(2).unwrap();
        lab.set(0, 1, Link::round_trip_ms(ms));
        let sockets = [0, 1].map(|index| {
            let host = lab.host(index);
            host.inside(|| UdpSocket::bind((host.ip(), 0)).unwrap())
        });
        let [near, far] = &sockets;
        near.connect(far.local_addr().unwrap()).unwrap();
        far.connect(near.local_addr().unwrap()).unwrap();
        let mut took: Vec<_> = std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut bytes = [0; 64];
                for _ in 0..ECHOES {
                    far.recv(&mut bytes).unwrap();
                    far.send(&bytes).unwrap();
                }
            });
            let echo = |_| {
                let mut bytes = [0; 64];
                let began = Instant::now();
                near.send(&bytes).unwrap();
                near.recv(&mut bytes).unwrap();
                began.elapsed()
            };
            (0..ECHOES).map(echo).collect()
        });
        took.sort();
        let at = |share: usize| took[(took.len() - 1) * share / 100].as_secs_f64() * 1e3;
        let late = [lab.counters(0, 1), lab.counters(1, 0)].map(|counters| counters.late_max);
        println!(
            "{:>20} {:8.3} {:8.3} {:8.3} {:8.3} {:20.3}",
            format!("{ms} ms{name}"),
            at(0),
            at(50),
            at(90),
            at(100),
            late[0].max(late[1]).as_secs_f64() * 1e3
        );
    }

    /// Keeps every core busy with ordinary work meanwhile.
    fn with_busy_cores(work: impl FnOnce()) {
        let over = AtomicBool::new(false);
        let cores = std::thread::available_parallelism().unwrap().get();
        std::thread::scope(|scope| {
            for _ in 0..cores {
                scope.spawn(|| {
                    while !over.load(Ordering::Relaxed) {
                        std::hint::spin_loop();
                    }
                });
            }
            work();
            over.store(true, Ordering::Relaxed);
        });
    }

    fn stream(name: &str, link: Link) {
        let lab = Lab::new(2).unwrap();
        lab.set(0, 1, link);
        let host = lab.host(1);
        let listener = host.inside(|| TcpListener::bind((host.ip(), 0)).unwrap());
        let address = listener.local_addr().unwrap();
        let mut near = lab.host(0).inside(|| TcpStream::connect(address).unwrap());
        let (mut far, _) = listener.accept().unwrap();
        let switch_before = switch_time();
        let (bits, took) = std::thread::scope(|scope| {
            scope.spawn(move || {
                let bytes = vec![0; 1 << 18];
                let began = Instant::now();
                while began.elapsed() < STREAM_TIME {
                    near.write_all(&bytes).unwrap();
                }
            });
            let mut bytes = vec![0; 1 << 18];
            let began = Instant::now();
            let mut received = 0;
            loop {
                match far.read(&mut bytes).unwrap() {
                    0 => break (received as f64 * 8.0, began.elapsed()),
                    count => received += count,
                }
            }
        });
        let switch = switch_time() - switch_before;
        println!(
            "{name:>20} {:8.2} {:24.2}",
            bits / took.as_secs_f64() / 1e9,
            switch.as_secs_f64() / took.as_secs_f64()
        );
    }

    /// For how long the switch's thread has run so far.
    fn switch_time() -> Duration {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap().flatten();
        let mut switches = tasks.filter(|task| {
            let name = std::fs::read_to_string(task.path().join("comm"));
            name.is_ok_and(|name| name.trim() == "lab-switch")
        });
        let task = switches.next().expect("the switch runs");
        let times = std::fs::read_to_string(task.path().join("schedstat")).unwrap();
        let ran_ns = times.split_whitespace().next().unwrap().parse().unwrap();
        Duration::from_nanos(ran_ns)
    }
}

fn main() {
    #[cfg(target_os = "linux")]
    measure::all();
    #[cfg(not(target_os = "linux"))]
    println!("network namespaces are a thing of Linux");
}
