//! Owns what a node says of itself, and its bytes. (Filled by the protocol.)
