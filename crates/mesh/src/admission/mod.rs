//! Owns who may be in a mesh: certificates, their chains, revocations, invitations. Pure.
