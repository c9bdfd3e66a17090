//! Fuzz target: any bytes as a membership, a revocation and a book of invitations.
#![no_main]

use mesh::admission::{Invitations, Membership, Revocation, Trust};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    if let Ok(membership) = Membership::from_bytes(bytes) {
        let mut trust = Trust::new(membership.mesh, membership.root, Default::default());
        let _ = trust.check(membership.node, &membership, 1_800_000_000_000);
        if let Ok(revocation) = Revocation::from_bytes(bytes) {
            let _ = trust.revoke(revocation);
        }
        let again = Membership::from_bytes(&membership.to_bytes());
        assert_eq!(again.as_ref(), Ok(&membership));
    }
    if let Ok(revocation) = Revocation::from_bytes(bytes) {
        assert_eq!(
            Revocation::from_bytes(&revocation.to_bytes()).as_ref(),
            Ok(&revocation)
        );
    }
    let _ = Invitations::from_bytes(bytes);
});
