//! Owns the node key file and the mesh files under the state directory.
