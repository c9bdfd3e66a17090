//! Owns `Mesh`, the cheap handle that other crates hold.
