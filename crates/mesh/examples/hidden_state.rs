//! How long a hidden state of 16 KiB takes there and back between two members that are 20 ms apart, on a clean link and
//! on one that loses one packet in a hundred. `cargo xtask bench split` runs it and shows both.
//!
//! Prints one line of JSON with medians and ninth deciles in milliseconds, or `null` where the machine allows no emulated
//! network.

use std::process::ExitCode;

type Failure = Box<dyn std::error::Error>;

#[cfg(target_os = "linux")]
mod measure {
    use std::time::Instant;

    use mesh::Mesh;
    use mesh::admission::Invite;
    use mesh::announcement::NodeInfo;
    use mesh::net::{Network, Relays, Settings, StreamKind};
    use tempfile::TempDir;
    use testkit::net::{Lab, Link};

    use super::Failure;

    const ROUND_TRIP_MS: u64 = 20;
    const STATE_BYTES: usize = 16 * 1_024;
    const ECHO: StreamKind = StreamKind(1);

    /// As a chat of some length does. A window that shrinks with each loss is small by the end.
    const ECHOES: usize = 300;

    pub(super) fn both() -> Result<String, Failure> {
        testkit::net::gain_rights();
        if let Err(reason) = testkit::net::supported() {
            super::tell(&format!("not on this machine: {reason}\n"));
            return Ok("null".to_owned());
        }
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let clean = runtime.block_on(echoes(Link::round_trip_ms(ROUND_TRIP_MS)))?;
        let lossy = runtime.block_on(echoes(Link::round_trip_ms(ROUND_TRIP_MS).with_loss(0.01)))?;
        Ok(format!("{{\"clean\":{clean},\"lossy\":{lossy}}}"))
    }

    fn settings(home: &TempDir) -> Settings {
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

    async fn echoes(link: Link) -> Result<String, Failure> {
        let lab = Lab::new(2)?;
        lab.set_all(link);
        let homes = [tempfile::tempdir()?, tempfile::tempdir()?];
        let (near, far) = (settings(&homes[0]), settings(&homes[1]));
        let (near, _streams) = lab
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
        answering.abort();
        times_ms.sort_by(f64::total_cmp);
        let at = |percent: usize| times_ms[(ECHOES - 1) * percent / 100];
        near.leave().await;
        far.leave().await;
        Ok(format!(
            "{{\"median_ms\":{:.3},\"p90_ms\":{:.3}}}",
            at(50),
            at(90)
        ))
    }
}

#[cfg(not(target_os = "linux"))]
mod measure {
    pub(super) fn both() -> Result<String, super::Failure> {
        Ok("null".to_owned())
    }
}

fn main() -> ExitCode {
    match measure::both() {
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
