//! Owns the invitation string that one user passes to another.
