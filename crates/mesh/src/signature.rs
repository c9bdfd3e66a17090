//! Owns how bytes are signed by a node: ed25519 over a domain and the body, so that a signature for
//! one purpose is worth nothing for another.

use iroh_base::{PublicKey, SecretKey, Signature};

use crate::NodeId;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// What a signature is for. Each signed type has its own.
#[derive(Debug, Clone, Copy)]
pub struct Domain(pub &'static str);

impl Domain {
    fn message(self, body: &[u8]) -> Vec<u8> {
        let mut message = Vec::with_capacity(self.0.len() + 1 + body.len());
        message.extend_from_slice(self.0.as_bytes());
        // No domain contains a zero byte, so none is the beginning of another with more body.
        message.push(0);
        message.extend_from_slice(body);
        message
    }
}

/// Signs `body` for the purpose `domain`.
#[must_use]
pub fn sign(key: &SecretKey, domain: Domain, body: &[u8]) -> [u8; SIGNATURE_BYTES] {
    key.sign(&domain.message(body)).to_bytes()
}

/// Whether `signer` signed `body` for the purpose `domain`. False also for bytes that are no key.
#[must_use]
pub fn verify(
    signer: NodeId,
    domain: Domain,
    body: &[u8],
    signature: &[u8; SIGNATURE_BYTES],
) -> bool {
    PublicKey::from_bytes(signer.as_bytes()).is_ok_and(|key| {
        key.verify(&domain.message(body), &Signature::from_bytes(signature))
            .is_ok()
    })
}

/// The node that owns `key`.
#[must_use]
pub fn node_of(key: &SecretKey) -> NodeId {
    NodeId::from_bytes(*key.public().as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Domain = Domain("one");
    const TWO: Domain = Domain("two");

    #[test]
    fn a_signature_fits_its_signer_domain_and_body_only() {
        let key = SecretKey::from_bytes(&[1; 32]);
        let (node, other) = (node_of(&key), node_of(&SecretKey::from_bytes(&[2; 32])));
        let signature = sign(&key, ONE, b"body");
        assert!(verify(node, ONE, b"body", &signature));
        assert!(!verify(other, ONE, b"body", &signature));
        assert!(!verify(node, TWO, b"body", &signature));
        assert!(!verify(node, ONE, b"bodies", &signature));
        assert!(!verify(
            NodeId::from_bytes([0xff; 32]),
            ONE,
            b"body",
            &signature
        ));
    }
}
