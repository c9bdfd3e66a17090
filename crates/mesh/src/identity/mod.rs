//! Owns what a node remembers of itself on disk: its key and ports, and for each mesh its membership,
//! known addresses, invitations and revocations. Decides nothing about them; `admission` does.
//!
//! ```text
//! STATE/key                      32 bytes, mode 0600
//! STATE/mesh-id                  the id of this node's own unnamed mesh
//! STATE/last-mesh                the id of the mesh joined last
//! STATE/udp-ports                the ports to have again, IPv4 and IPv6; 0 for none
//! STATE/meshes/ID/membership     certificates, root, name
//! STATE/meshes/ID/bootstrap      addresses of members seen
//! STATE/meshes/ID/invitations    the book of issued invitations
//! STATE/meshes/ID/revocations    what was taken back
//! ```
//!
//! Files are replaced whole, by renaming. A damaged one is renamed to `NAME.damaged` and reported.

mod error;
mod file;
mod key;
mod mesh_files;
#[cfg(feature = "net")]
mod ports;

use std::path::{Path, PathBuf};

pub use error::IdentityError;
pub use mesh_files::{BOOTSTRAP_KEPT_MAX, MeshFiles, StoredMembership};
#[cfg(feature = "net")]
pub(crate) use ports::{KeptPorts, Ports};

use iroh_base::SecretKey;

use crate::{MeshId, NodeId, signature};

/// Longest text of an id file, in bytes: 64 digits and a line end.
const ID_FILE_BYTES_MAX: usize = 128;

/// Most meshes that are listed. Nobody joins that many; a directory full of rubbish is cut here.
const MESHES_MAX: usize = 1_000;

/// The directory that holds a node's state, `~/.mesh-llm` unless told otherwise.
#[derive(Debug, Clone)]
pub struct StateDir {
    root: PathBuf,
}

/// A key was replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotation {
    /// Who the node was, if it had a key that could be read.
    pub before: Option<NodeId>,
    /// Who it is now.
    pub after: NodeId,
}

impl StateDir {
    /// The state under `root`. Nothing is touched yet.
    #[must_use]
    pub fn new(root: impl Into<PathBuf>) -> Self {
        Self { root: root.into() }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.root
    }

    /// The node's key; made at the first call.
    ///
    /// # Errors
    /// If the file has another size, or others may read it, or it cannot be read or made.
    pub fn key(&self) -> Result<SecretKey, IdentityError> {
        file::make_private_dir(&self.root)?;
        key::load_or_create(&self.root.join("key"))
    }

    /// Replaces the key. Memberships of the old one are worth nothing afterwards.
    ///
    /// # Errors
    /// If the new key cannot be written; the old one stays then.
    pub fn rotate_key(&self) -> Result<Rotation, IdentityError> {
        file::make_private_dir(&self.root)?;
        let path = self.root.join("key");
        let before = key::load(&path).ok().flatten();
        let after = key::replace(&path)?;
        Ok(Rotation {
            before: before.map(|key| signature::node_of(&key)),
            after: signature::node_of(&after),
        })
    }

    /// The id of this node's own mesh without a name; made at the first call.
    ///
    /// # Errors
    /// If the file is damaged (it is kept aside) or cannot be read or made.
    pub fn unnamed_mesh(&self, rng: &mut impl rand::Rng) -> Result<MeshId, IdentityError> {
        let path = self.root.join("mesh-id");
        if let Some(id) = read_id(&path)? {
            return Ok(id);
        }
        let id = MeshId::random(rng);
        file::make_private_dir(&self.root)?;
        file::write(&path, format!("{id}\n").as_bytes())?;
        Ok(id)
    }

    /// Makes the next [`unnamed_mesh`](Self::unnamed_mesh) another one.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn forget_unnamed_mesh(&self) -> Result<(), IdentityError> {
        file::remove(&self.root.join("mesh-id"))
    }

    /// The mesh that was joined or created last.
    ///
    /// # Errors
    /// If the file is damaged (it is kept aside) or cannot be read.
    pub fn last_mesh(&self) -> Result<Option<MeshId>, IdentityError> {
        read_id(&self.root.join("last-mesh"))
    }

    /// Notes the mesh that was joined or created last.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn set_last_mesh(&self, mesh: MeshId) -> Result<(), IdentityError> {
        file::make_private_dir(&self.root)?;
        file::write(&self.root.join("last-mesh"), format!("{mesh}\n").as_bytes())
    }

    /// The meshes that this node has files of, sorted.
    ///
    /// # Errors
    /// If the directory cannot be read.
    pub fn meshes(&self) -> Result<Vec<MeshId>, IdentityError> {
        let dir = self.root.join("meshes");
        let entries = match std::fs::read_dir(&dir) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(IdentityError::read(&dir, error)),
        };
        let mut meshes: Vec<MeshId> = entries
            .take(MESHES_MAX)
            .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
            .collect();
        meshes.sort_unstable();
        Ok(meshes)
    }

    /// The files of one mesh. Nothing is touched yet.
    #[must_use]
    pub fn mesh(&self, mesh: MeshId) -> MeshFiles {
        MeshFiles::new(self.root.join("meshes").join(mesh.to_string()))
    }
}

fn read_id(path: &Path) -> Result<Option<MeshId>, IdentityError> {
    let Some(bytes) = file::read(path, ID_FILE_BYTES_MAX)? else {
        return Ok(None);
    };
    let id = std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| text.trim().parse().ok());
    match id {
        Some(id) => Ok(Some(id)),
        None => Err(file::set_aside(path, "it holds no mesh id")),
    }
}

#[cfg(test)]
mod tests;
