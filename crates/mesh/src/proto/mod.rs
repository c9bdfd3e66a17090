//! Owns the membership state machine: who is in the mesh and alive. No IO, no clock, no keys.
