//! What the server is told by its caller: secrets, who may talk to it, and every bound.
//!
//! Reads no file and no environment; whoever starts the server resolves those.

use std::fmt;
use std::time::Duration;

/// Settings of the API server. [`Config::default`] is right for a loopback listener.
#[derive(Clone)]
pub struct Config {
    /// When set, every route but `/health` wants it as `Authorization: Bearer KEY` or `x-api-key`.
    pub api_key: Option<String>,
    /// Other machines can reach the listener. The `Host` rule is then off (the name they use is
    /// unknown here) and [`crate::serve`] insists on an `api_key`.
    pub listen_all: bool,
    /// Names besides the loopback ones under which a loopback listener may be addressed
    /// (`Host` header, without port).
    pub hosts: Vec<String>,
    /// Web origins besides loopback ones that may call from a browser, as
    /// `https://example.org[:port]`; `*` allows all.
    pub cors_origins: Vec<String>,
    /// Longest request body, bytes.
    pub body_bytes_max: usize,
    /// Connections that are open at the same time; more wait in the kernel's queue.
    pub connections_max: usize,
    /// Longest wait for the complete head of a request; also how long a kept-alive connection
    /// may idle.
    pub header_read_timeout: Duration,
    /// Longest pause between two pieces of a request body.
    pub body_stall_timeout: Duration,
    /// Longest time for a whole request body.
    pub body_read_timeout: Duration,
    /// Longest time in which a client takes none of the bytes that wait for it.
    pub write_stall_timeout: Duration,
    /// A comment line is sent on a stream that has been silent for so long.
    pub keep_alive_interval: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            api_key: None,
            listen_all: false,
            hosts: Vec::new(),
            cors_origins: Vec::new(),
            // A 128 k-token conversation is about 1 MiB of JSON; long batches of texts to embed
            // are the largest honest bodies.
            body_bytes_max: 16 * 1024 * 1024,
            // Far more than slots and queue together can serve, far fewer than usual limits on
            // open files.
            connections_max: 512,
            // Longer than the idle time of the pools in the usual HTTP clients, so that the
            // client closes first and no request meets a closing connection.
            header_read_timeout: Duration::from_secs(60),
            body_stall_timeout: Duration::from_secs(20),
            body_read_timeout: Duration::from_secs(120),
            // A laptop may sleep over a short break; beyond that its slot is worth more.
            write_stall_timeout: Duration::from_secs(60),
            // Proxies commonly cut silent connections after 30 or 60 s.
            keep_alive_interval: Duration::from_secs(10),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("api_key", &self.api_key.as_ref().map(|_| "(set)"))
            .field("listen_all", &self.listen_all)
            .field("hosts", &self.hosts)
            .field("cors_origins", &self.cors_origins)
            .field("body_bytes_max", &self.body_bytes_max)
            .field("connections_max", &self.connections_max)
            .finish_non_exhaustive()
    }
}
