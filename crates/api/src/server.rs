//! The accept loop: bounded connections, deadlines for slow peers, an orderly stop.
//!
//! `axum::serve` would do but for two things: it sets no deadline for a request's head, and it
//! closes idle connections at once on stop, where a client that reuses one should get a 503.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio::time::Sleep;

use crate::state::App;

/// Read buffer of a connection, bytes: bounds a request's head.
const BUFFER_BYTES_MAX: usize = 64 * 1024;
/// Pause after an accept failed for lack of resources, which only time can cure.
const ACCEPT_RETRY: Duration = Duration::from_millis(100);

/// Serves `router` on `listener` until `shutdown` resolves and the answers under way are out.
///
/// After `shutdown` no connection is accepted, and requests on open ones get a 503. How long
/// running answers may take is the caller's decision: [`node::Node::shutdown`] ends them. Dropping
/// the future closes everything at once.
///
/// # Errors
/// When the listener has no address, or is reachable from other machines while no API key is set.
pub(crate) async fn serve(
    listener: TcpListener,
    app: Arc<App>,
    router: Router,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let address = listener.local_addr()?;
    if !address.ip().is_loopback() && app.config.api_key.is_none() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{address} can be reached from other machines; hint: set an API key"),
        ));
    }
    let server = Server {
        router,
        slots: Arc::new(Semaphore::new(app.config.connections_max)),
        stop: watch::Sender::new(false),
        app,
    };
    server.run(listener, shutdown).await;
    Ok(())
}

struct Server {
    app: Arc<App>,
    router: Router,
    slots: Arc<Semaphore>,
    /// Tells connections to close once they are idle.
    stop: watch::Sender<bool>,
}

impl Server {
    async fn run(&self, listener: TcpListener, shutdown: impl Future<Output = ()>) {
        let mut connections = JoinSet::new();
        let mut shutdown = pin!(shutdown);
        loop {
            tokio::select! {
                biased;
                () = &mut shutdown => break,
                Some(_) = connections.join_next() => {}
                stream = self.accept(&listener) => self.spawn(stream, &mut connections),
            }
        }
        self.app.drain();
        // Until the last answer is out, new and idle connections get a 503 that says why.
        let idle = self.app.idle();
        let mut idle = pin!(idle);
        loop {
            tokio::select! {
                biased;
                () = &mut idle => break,
                Some(_) = connections.join_next() => {}
                stream = self.accept(&listener) => self.spawn(stream, &mut connections),
            }
        }
        drop(listener);
        self.stop.send_replace(true);
        while connections.join_next().await.is_some() {}
    }

    /// The next connection, once there is room for it.
    async fn accept(
        &self,
        listener: &TcpListener,
    ) -> (TcpStream, tokio::sync::OwnedSemaphorePermit) {
        loop {
            let Ok(permit) = Arc::clone(&self.slots).acquire_owned().await else {
                // The semaphore is never closed.
                std::future::pending::<()>().await;
                continue;
            };
            match listener.accept().await {
                Ok((stream, _)) => return (stream, permit),
                Err(error) if is_of_peer(&error) => {}
                Err(error) => {
                    tracing::warn!(%error, "no connection can be accepted");
                    tokio::time::sleep(ACCEPT_RETRY).await;
                }
            }
        }
    }

    fn spawn(
        &self,
        (stream, permit): (TcpStream, tokio::sync::OwnedSemaphorePermit),
        connections: &mut JoinSet<()>,
    ) {
        // Small writes must leave at once; without this each token could wait for an ACK.
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "TCP_NODELAY can't be set");
        }
        let config = &self.app.config;
        let io = TokioIo::new(Writable::new(stream, config.write_stall_timeout));
        let service = TowerToHyperService::new(self.router.clone());
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(config.header_read_timeout)
            .max_buf_size(BUFFER_BYTES_MAX)
            .serve_connection(io, service);
        let mut stop = self.stop.subscribe();
        connections.spawn(async move {
            let _permit = permit;
            let mut connection = pin!(connection);
            let stopped = async move {
                // Fails when the server is gone, which is a stop too.
                let _ = stop.wait_for(|&stop| stop).await;
            };
            let ended = tokio::select! {
                ended = connection.as_mut() => ended,
                () = stopped => {
                    connection.as_mut().graceful_shutdown();
                    connection.await
                }
            };
            if let Err(error) = ended {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
}

fn is_of_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::ConnectionReset
    )
}

/// A stream whose writes fail when the peer takes nothing for too long.
struct Writable {
    stream: TcpStream,
    patience: Duration,
    /// Runs while the peer takes nothing.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl Writable {
    fn new(stream: TcpStream, patience: Duration) -> Self {
        Self {
            stream,
            patience,
            deadline: None,
        }
    }

    fn watch<T>(
        &mut self,
        polled: Poll<io::Result<T>>,
        context: &mut Context<'_>,
    ) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.deadline = None;
            return polled;
        }
        let patience = self.patience;
        let deadline = self
            .deadline
            .get_or_insert_with(|| Box::pin(tokio::time::sleep(patience)));
        ready!(deadline.as_mut().poll(context));
        Poll::Ready(Err(io::ErrorKind::TimedOut.into()))
    }
}

impl AsyncRead for Writable {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Writable {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
