//! Machines in one process, joined by pipes that can be cut and frozen.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use futures::FutureExt;
use futures::future::BoxFuture;
use mesh::NodeId;
use split::station::{Offer, Station};
use split::transport::{Duplex, Transport};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::sync::watch;

use crate::fake::Fake;

/// Bytes that a pipe holds; a few frames of the tests.
const PIPE_BYTES: usize = 4 << 10;

/// Takes the streams that others open to a machine.
pub(crate) type Accept = Arc<dyn Fn(NodeId, Duplex) -> BoxFuture<'static, ()> + Send + Sync>;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    Up,
    /// Streams stay open, and nothing moves.
    Frozen,
    /// All streams are closed, and no new ones can be opened.
    Cut,
}

struct Machine {
    accept: Accept,
    link: watch::Sender<Link>,
}

#[derive(Default, Clone)]
pub(crate) struct Net {
    machines: Arc<Mutex<BTreeMap<NodeId, Machine>>>,
}

pub(crate) fn node(number: u8) -> NodeId {
    NodeId::from_bytes([number; 32])
}

impl Net {
    pub(crate) fn add(&self, number: u8, accept: Accept) {
        let link = watch::Sender::new(Link::Up);
        let machine = Machine { accept, link };
        self.machines.lock().unwrap().insert(node(number), machine);
    }

    /// A machine with a station; with layers, if it gives some.
    pub(crate) fn station(&self, number: u8, fake: Option<(&Fake, u64)>) -> Station {
        let offer = fake.map(|(fake, budget_bytes)| Offer {
            source: Arc::new(fake.clone()),
            budget_bytes,
        });
        let station = Station::new(node(number), self.transport(number), offer);
        self.add_station(number, &station);
        station
    }

    pub(crate) fn add_station(&self, number: u8, station: &Station) {
        let station = station.clone();
        let accept = move |peer, stream| {
            let station = station.clone();
            async move { station.accept(peer, stream).await }.boxed()
        };
        self.add(number, Arc::new(accept));
    }

    pub(crate) fn transport(&self, number: u8) -> Arc<dyn Transport> {
        Arc::new(Wire {
            net: self.clone(),
            me: node(number),
        })
    }

    pub(crate) fn set(&self, number: u8, link: Link) {
        let machines = self.machines.lock().unwrap();
        machines[&node(number)].link.send_replace(link);
    }
}

struct Wire {
    net: Net,
    me: NodeId,
}

impl Transport for Wire {
    fn open(&self, peer: NodeId) -> BoxFuture<'_, io::Result<Duplex>> {
        let machines = self.net.machines.lock().unwrap();
        let Some(machine) = machines.get(&peer) else {
            return async { Err(io::ErrorKind::NotFound.into()) }.boxed();
        };
        let links = [
            machines[&self.me].link.subscribe(),
            machine.link.subscribe(),
        ];
        if links.iter().any(|link| *link.borrow() == Link::Cut) {
            return async { Err(io::ErrorKind::ConnectionRefused.into()) }.boxed();
        }
        let (mine, here) = tokio::io::duplex(PIPE_BYTES);
        let (theirs, there) = tokio::io::duplex(PIPE_BYTES);
        let (here_read, here_write) = tokio::io::split(here);
        let (there_read, there_write) = tokio::io::split(there);
        tokio::spawn(carry(here_read, there_write, links.clone()));
        tokio::spawn(carry(there_read, here_write, links));
        tokio::spawn((machine.accept)(self.me, halves(theirs)));
        async { Ok(halves(mine)) }.boxed()
    }
}

fn halves(stream: DuplexStream) -> Duplex {
    let (read, write) = tokio::io::split(stream);
    Duplex {
        read: Box::new(read),
        write: Box::new(Closing(write)),
    }
}

/// Ends its direction of a pipe when it is dropped, as a stream of QUIC does.
struct Closing(tokio::io::WriteHalf<DuplexStream>);

impl Drop for Closing {
    fn drop(&mut self) {
        let _ = self.0.shutdown().now_or_never();
    }
}

impl tokio::io::AsyncWrite for Closing {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        std::pin::Pin::new(&mut self.0).poll_write(cx, bytes)
    }

    fn poll_flush(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(
        mut self: std::pin::Pin<&mut Self>,
        cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::pin::Pin::new(&mut self.0).poll_shutdown(cx)
    }
}

/// Carries bytes one way while both machines' links are up.
async fn carry(
    mut from: tokio::io::ReadHalf<DuplexStream>,
    mut to: tokio::io::WriteHalf<DuplexStream>,
    mut links: [watch::Receiver<Link>; 2],
) {
    let [a, b] = &mut links;
    let (mut a2, mut b2) = (a.clone(), b.clone());
    let cut = async {
        tokio::select! {
            _ = a2.wait_for(|l| *l == Link::Cut) => {}
            _ = b2.wait_for(|l| *l == Link::Cut) => {}
        }
    };
    let carried = async {
        let mut buffer = [0; 1_024];
        while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
            let _ = a.wait_for(|l| *l != Link::Frozen).await;
            let _ = b.wait_for(|l| *l != Link::Frozen).await;
            if to.write_all(&buffer[..bytes]).await.is_err() {
                break;
            }
        }
        // Neither does an end get through a frozen link.
        let _ = a.wait_for(|l| *l != Link::Frozen).await;
        let _ = b.wait_for(|l| *l != Link::Frozen).await;
    };
    tokio::select! {
        () = cut => {}
        () = carried => {}
    }
    let _ = to.shutdown().await;
}
