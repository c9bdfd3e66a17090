//! How many clients a member lets in per second, and how many bare QUIC connections this machine
//! makes in the same time. `cargo xtask bench mesh` runs it and shows both.
//!
//!     join_rate TICKET COUNT AT_ONCE
//!
//! Each of the COUNT joins is a node of its own, with a new key and socket, that says what a real
//! one says. A bare connection is what QUIC itself costs: a new key and socket, a handshake and one
//! byte there and back. Prints one line of JSON.

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Instant;

use futures::StreamExt;
use iroh::endpoint::presets;
use iroh::{Endpoint, EndpointAddr, RelayMode};
use mesh::announcement::NodeInfo;
use mesh::net::{Network, Settings};
use mesh::ticket::Ticket;
use mesh::{Mesh, Role};

type Failure = Box<dyn std::error::Error>;

const USAGE: &str = "usage: join_rate TICKET COUNT AT_ONCE";

/// Protocol of the bare connections.
const ALPN: &[u8] = b"mesh-llm/bench";

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = std::env::args().skip(1);
    let mut next = || arguments.next().ok_or(USAGE);
    let ticket: Ticket = next()?.parse()?;
    let count: usize = next()?.parse()?;
    let at_once: usize = next()?.parse()?;
    let bare = bare_per_second(count, at_once).await?;
    let joins = joins_per_second(&ticket, count, at_once).await?;
    print(&format!(
        "{{\"joins_per_second\":{joins:.2},\"bare_per_second\":{bare:.2}}}\n"
    ));
    Ok(())
}

/// Standard output is data.
#[expect(clippy::print_stdout, reason = "the result of the program")]
fn print(text: &str) {
    print!("{text}");
}

async fn joins_per_second(ticket: &Ticket, count: usize, at_once: usize) -> Result<f64, Failure> {
    let join = || async {
        let settings = Settings {
            network: Network::loopback(),
            role: Role::Client,
            ..Settings::new(None, NodeInfo::default())
        };
        Mesh::join(settings, ticket).await
    };
    let start = Instant::now();
    let joins = futures::stream::iter((0..count).map(|_| join())).buffer_unordered(at_once);
    let joined: Vec<_> = joins.collect().await;
    let seconds = start.elapsed().as_secs_f64();
    for result in joined {
        let (mesh, _streams) = result?;
        mesh.leave().await;
    }
    Ok(count as f64 / seconds)
}

async fn endpoint() -> Result<Endpoint, Failure> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let builder = Endpoint::builder(presets::Minimal)
        .relay_mode(RelayMode::Disabled)
        .alpns(vec![ALPN.to_vec()])
        .clear_ip_transports()
        .bind_addr(address)?;
    Ok(builder.bind().await?)
}

async fn bare_per_second(count: usize, at_once: usize) -> Result<f64, Failure> {
    let server = endpoint().await?;
    let port = server.bound_sockets().first().ok_or("no socket")?.port();
    let address =
        EndpointAddr::new(server.id()).with_ip_addr(SocketAddr::from((Ipv4Addr::LOCALHOST, port)));
    let accepting = tokio::spawn({
        let server = server.clone();
        async move {
            while let Some(incoming) = server.accept().await {
                tokio::spawn(answer(incoming));
            }
        }
    });
    let start = Instant::now();
    let connects = (0..count).map(|_| bare(address.clone()));
    let connects = futures::stream::iter(connects).buffer_unordered(at_once);
    let connected: Vec<_> = connects.collect().await;
    let seconds = start.elapsed().as_secs_f64();
    for result in connected {
        result?.close().await;
    }
    accepting.abort();
    server.close().await;
    Ok(count as f64 / seconds)
}

async fn bare(address: EndpointAddr) -> Result<Endpoint, Failure> {
    let client = endpoint().await?;
    let connection = client.connect(address, ALPN).await?;
    let (mut send, mut recv) = connection.open_bi().await?;
    send.write_all(&[1]).await?;
    let mut byte = [0];
    recv.read_exact(&mut byte).await?;
    Ok(client)
}

/// Gives the byte back, and holds the connection until the other side closes it.
async fn answer(incoming: iroh::endpoint::Incoming) -> Option<()> {
    let connection = incoming.await.ok()?;
    let (mut send, mut recv) = connection.accept_bi().await.ok()?;
    let mut byte = [0];
    recv.read_exact(&mut byte).await.ok()?;
    send.write_all(&byte).await.ok()?;
    connection.closed().await;
    Some(())
}
