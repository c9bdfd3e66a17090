//! Owns which UDP ports a node wants again, and when it gives one up.

use std::fmt;

use super::{IdentityError, StateDir, file};

/// Longest text of the file, in bytes: two numbers of five digits with their marks, and room for blanks.
const FILE_BYTES_MAX: usize = 32;

/// Stands behind a port that the last start could not have.
const MISSED: char = '?';

/// The UDP ports of a node's sockets; 0 where it has none of that kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Ports {
    /// For IPv4.
    pub(crate) v4: u16,
    /// For IPv6.
    pub(crate) v6: u16,
}

/// A UDP port that a node wants again; 0 for none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeptPort {
    pub(crate) port: u16,
    /// The last start could not have it.
    pub(crate) missed: bool,
}

/// Those that a node wants again.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct KeptPorts {
    /// For IPv4.
    pub(crate) v4: KeptPort,
    /// For IPv6.
    pub(crate) v6: KeptPort,
}

impl KeptPort {
    fn after(self, bound: u16) -> Self {
        // The machine had no such address this time.
        if bound == 0 {
            return self;
        }
        // Whoever has it now may be gone at the next start, and this is the one that others have written down.
        if bound != self.port && self.port != 0 && !self.missed {
            return Self {
                missed: true,
                ..self
            };
        }
        Self {
            port: bound,
            missed: false,
        }
    }

    fn read(text: &str) -> Option<Self> {
        let number = text.strip_suffix(MISSED);
        Some(Self {
            port: number.unwrap_or(text).parse().ok()?,
            missed: number.is_some(),
        })
    }
}

impl fmt::Display for KeptPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.port)?;
        if self.missed {
            write!(f, "{MISSED}")?;
        }
        Ok(())
    }
}

impl KeptPorts {
    /// What to try to have.
    pub(crate) const fn wanted(self) -> Ports {
        Ports {
            v4: self.v4.port,
            v6: self.v6.port,
        }
    }

    /// What to want from now on, after a start that got `bound`: a port is given up once two starts in a row could not
    /// have it.
    pub(crate) fn after(self, bound: Ports) -> Self {
        Self {
            v4: self.v4.after(bound.v4),
            v6: self.v6.after(bound.v6),
        }
    }
}

impl StateDir {
    /// The UDP ports that the node wants again.
    ///
    /// # Errors
    /// If the file is damaged (it is kept aside) or cannot be read.
    pub(crate) fn ports(&self) -> Result<Option<KeptPorts>, IdentityError> {
        let path = self.root.join("udp-ports");
        let Some(bytes) = file::read(&path, FILE_BYTES_MAX)? else {
            return Ok(None);
        };
        match read(&bytes) {
            Some(ports) => Ok(Some(ports)),
            None => Err(file::set_aside(&path, "it holds no two UDP ports")),
        }
    }

    /// Notes the UDP ports that the node wants again.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(crate) fn set_ports(&self, ports: KeptPorts) -> Result<(), IdentityError> {
        let KeptPorts { v4, v6 } = ports;
        file::make_private_dir(&self.root)?;
        file::write(
            &self.root.join("udp-ports"),
            format!("{v4} {v6}\n").as_bytes(),
        )
    }
}

fn read(bytes: &[u8]) -> Option<KeptPorts> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (v4, v6) = text.trim().split_once(' ')?;
    Some(KeptPorts {
        v4: KeptPort::read(v4)?,
        v6: KeptPort::read(v6)?,
    })
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn kept(port: u16) -> KeptPort {
        KeptPort {
            port,
            missed: false,
        }
    }

    fn missed(port: u16) -> KeptPort {
        KeptPort { port, missed: true }
    }

    #[test]
    fn ports_are_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let state = StateDir::new(dir.path().join("home"));
        assert_eq!(state.ports().unwrap(), None);
        for (v4, v6) in [
            (kept(4000), kept(0)),
            (missed(4000), kept(4001)),
            (missed(u16::MAX), missed(u16::MAX)),
        ] {
            let ports = KeptPorts { v4, v6 };
            state.set_ports(ports).unwrap();
            assert_eq!(state.ports().unwrap(), Some(ports));
        }
        let path = state.path().join("udp-ports");
        let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, 0o600);
        let long = "4000 4001 ".repeat(100);
        for damaged in [
            "",
            "4000",
            "4000 65536",
            "-1 0",
            "4000 4001 4002",
            "4000 ?",
            "4000 4001??",
            "?4000 4001",
            long.as_str(),
        ] {
            fs::write(&path, damaged).unwrap();
            let error = state.ports().unwrap_err().to_string();
            assert!(error.contains("udp-ports.damaged"), "{damaged}: {error}");
            assert_eq!(state.ports().unwrap(), None);
        }
    }

    #[test]
    fn a_port_is_given_up_once_two_starts_could_not_have_it() {
        for (before, bound, after) in [
            (kept(0), 4000, kept(4000)),
            (kept(4000), 4000, kept(4000)),
            (kept(4000), 5000, missed(4000)),
            (missed(4000), 4000, kept(4000)),
            (missed(4000), 5000, kept(5000)),
            // There was no such address.
            (kept(4000), 0, kept(4000)),
            (missed(4000), 0, missed(4000)),
            // Nothing writes that.
            (missed(0), 4000, kept(4000)),
        ] {
            assert_eq!(before.after(bound), after, "{before:?}, {bound}");
            let other = kept(7);
            let both = KeptPorts {
                v4: other,
                v6: before,
            };
            let bound = Ports { v4: 7, v6: bound };
            let wanted = KeptPorts {
                v4: other,
                v6: after,
            };
            assert_eq!(both.after(bound), wanted);
        }
    }
}
