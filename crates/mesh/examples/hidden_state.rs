//! How long a hidden state of 16 KiB takes there and back between two members that are 20 ms apart: on a clean link, on
//! one that loses one packet in a hundred, and on one of 100 Mbit/s without and with weights that are fetched meanwhile.
//! `cargo xtask bench split` runs it and shows the first two.
//!
//! Prints one line of JSON with medians and ninth deciles in milliseconds, and how fast weights came in megabits per
//! second, or `null` where the machine allows no emulated network.

use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

#[cfg(target_os = "linux")]
mod measure {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::Instant;

    use mesh::Mesh;
    use mesh::admission::Invite;
    use mesh::announcement::NodeInfo;
    use mesh::net::{Network, RecvStream, Relays, Settings, StreamKind, Streams};
    use tempfile::TempDir;
    use testkit::net::{Lab, Link};
    use tokio::task::JoinSet;

    use super::Failure;

    const ROUND_TRIP_MS: u64 = 20;
    const STATE_BYTES: usize = 16 * 1_024;
    const ECHO: StreamKind = StreamKind(1);
    const WEIGHTS: StreamKind = StreamKind(3);

    /// Of the link that weights fill.
    const NARROW_MBIT: u64 = 100;

    /// Streams of a fetch.
    const FETCHES: usize = 4;

    /// Bytes that are written and read at once.
    const CHUNK_BYTES: usize = 256 * 1_024;

    /// As a chat of some length does. A window that shrinks with each loss is small by the end.
    const ECHOES: usize = 300;

    pub(super) fn all() -> Result<String, Failure> {
        testkit::net::gain_rights();
        if let Err(reason) = testkit::net::supported() {
            super::tell(&format!("not on this machine: {reason}\n"));
            return Ok("null".to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let link = Link::round_trip_ms(ROUND_TRIP_MS);
        let clean = runtime.block_on(echoes(link, 0))?;
        let lossy = runtime.block_on(echoes(link.with_loss(0.01), 0))?;
        let link = link.with_rate_mbit(NARROW_MBIT);
        let narrow = runtime.block_on(echoes(link, 0))?;
        let beside = runtime.block_on(echoes(link, FETCHES))?;
        Ok(format!(
            "{{\"clean\":{clean},\"lossy\":{lossy},\"narrow\":{narrow},\"beside_weights\":{beside}}}"
        ))
    }

    /// Sends without end to everybody who asks.
    async fn give(mut streams: Streams) {
        let mut giving = JoinSet::new();
        while let Some(mut stream) = streams.next().await {
            giving.spawn(async move {
                let chunk = vec![7; CHUNK_BYTES];
                while stream.send.write_all(&chunk).await.is_ok() {}
            });
        }
    }

    /// Reads and counts what comes.
    async fn take(mut stream: RecvStream, bytes: Arc<AtomicU64>) {
        let mut chunk = vec![0; CHUNK_BYTES];
        while let Ok(Some(read)) = stream.read(&mut chunk).await {
            bytes.fetch_add(read as u64, Ordering::Relaxed);
        }
    }

    fn settings(home: &TempDir) -> Settings {
        // All addresses of the host, and nothing that reaches beyond the lab.
        let network = Network {
            relays: Relays::None,
            local_discovery: false,
            ..Network::default()
        };
        let state = mesh::identity::StateDir::new(home.path());
        Settings {
            network,
            ..Settings::new(Some(state), NodeInfo::default())
        }
    }

    /// While so many streams bring weights from the near member to the far one.
    async fn echoes(link: Link, fetches: usize) -> Result<String, Failure> {
        let lab = Lab::new(2)?;
        lab.set_all(link);
        let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
        let (near, far) = (settings(&homes[0]), settings(&homes[1]));
        let (near, near_streams) = lab
            .host(0)
            .run(async { Mesh::create(near, None).await })
            .await?;
        let ticket = near.invite(Invite::default()).await?;
        let joining = async move { Mesh::join(far, &ticket).await };
        let (far, mut streams) = lab.host(1).run(joining).await?;
        let answering = lab.host(1).runtime().spawn(async move {
            let mut stream = streams.next().await?;
            tokio::io::copy(&mut stream.recv, &mut stream.send)
                .await
                .ok()
        });
        let (mut send, mut receive) = near.open(far.node_id(), ECHO).await?;
        let mut tasks = JoinSet::new();
        tasks.spawn_on(give(near_streams), lab.host(0).runtime().handle());
        let bytes = Arc::new(AtomicU64::new(0));
        let mut asked = Vec::new();
        for _ in 0..fetches {
            let (send, recv) = far.open_bulk(near.node_id(), WEIGHTS).await?;
            // Without it the other side might stop.
            asked.push(send);
            let taking = take(recv, Arc::clone(&bytes));
            tasks.spawn_on(taking, lab.host(1).runtime().handle());
        }
        let began = Instant::now();
        // Where a stage runs: on the machine's own threads.
        let echo = async move {
            let (state, mut answer) = (vec![1; STATE_BYTES], vec![0; STATE_BYTES]);
            let mut times_ms = Vec::with_capacity(ECHOES);
            for _ in 0..ECHOES {
                let began = Instant::now();
                send.write_all(&state).await.ok()?;
                receive.read_exact(&mut answer).await.ok()?;
                times_ms.push(began.elapsed().as_secs_f64() * 1e3);
            }
            Some(times_ms)
        };
        let mut times_ms = lab
            .host(0)
            .run(echo)
            .await
            .ok_or("the connection was lost")?;
        let bits = bytes.load(Ordering::Relaxed) as f64 * 8.0;
        let weights_mbit = bits / 1e6 / began.elapsed().as_secs_f64();
        answering.abort();
        tasks.shutdown().await;
        times_ms.sort_by(f64::total_cmp);
        let at = |percent: usize| times_ms[(ECHOES - 1) * percent / 100];
        near.leave().await;
        far.leave().await;
        Ok(format!(
            "{{\"median_ms\":{:.3},\"p90_ms\":{:.3},\"weights_mbit\":{weights_mbit:.1}}}",
            at(50),
            at(90)
        ))
    }
}

#[cfg(not(target_os = "linux"))]
mod measure {
    pub(super) fn all() -> Result<String, super::Failure> {
        Ok("null".to_owned())
    }
}

fn main() -> ExitCode {
    match measure::all() {
        Ok(json) => {
            print(&format!("{json}\n"));
            ExitCode::SUCCESS
        }
        Err(error) => {
            tell(&format!("error: {error}\n"));
            ExitCode::FAILURE
        }
    }
}

/// Standard output is data.
#[expect(clippy::print_stdout, reason = "the result of the program")]
fn print(text: &str) {
    print!("{text}");
}

fn tell(text: &str) {
    eprint!("{text}");
}
