//! Members made for tests: keys from numbers, and admission without any network.

use iroh_base::SecretKey;
use rand::SeedableRng as _;
use rand::rngs::StdRng;

use super::{Authority, Invitations, Invite, Membership, Redemption, Refusal, Trust};
use crate::ticket::Ticket;
use crate::{MeshId, NodeId, Role, signature};

/// The wall clock in these tests.
pub(crate) const NOW: u64 = 1_800_000_000_000;

pub(crate) const HOUR: u64 = 3_600_000;

pub(crate) fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

pub(crate) fn node(number: u8) -> NodeId {
    signature::node_of(&key(number))
}

/// A member with its book.
pub(crate) struct Person {
    pub(crate) authority: Authority,
    pub(crate) book: Invitations,
}

impl Person {
    /// The originator of mesh `mesh`.
    pub(crate) fn root(number: u8, mesh: u8) -> Self {
        let mesh = MeshId::from_bytes([mesh; 32]);
        Self {
            authority: Authority {
                key: key(number),
                membership: Membership::of_root(mesh, node(number)),
            },
            book: Invitations::default(),
        }
    }

    pub(crate) fn id(&self) -> NodeId {
        self.authority.node()
    }

    pub(crate) fn membership(&self) -> &Membership {
        &self.authority.membership
    }

    pub(crate) fn trust(&self) -> Trust {
        let membership = self.membership();
        Trust::new(membership.mesh, membership.root, Default::default())
    }

    pub(crate) fn invite(&mut self, invite: Invite) -> Ticket {
        let mut rng = StdRng::seed_from_u64(self.book.list().len() as u64);
        self.book
            .invite(&self.authority, None, invite, Vec::new(), NOW, &mut rng)
            .unwrap()
    }

    /// Lets `number` in by `ticket`, or says why not.
    pub(crate) fn admit(
        &mut self,
        ticket: &Ticket,
        number: u8,
        role: Role,
    ) -> Result<Person, Refusal> {
        let trust = self.trust();
        self.admit_knowing(&trust, ticket, number, role)
    }

    pub(crate) fn admit_knowing(
        &mut self,
        trust: &Trust,
        ticket: &Ticket,
        number: u8,
        role: Role,
    ) -> Result<Person, Refusal> {
        let redemption = Redemption {
            ticket,
            node: node(number),
            role,
        };
        let membership = self.book.redeem(&self.authority, trust, redemption, NOW)?;
        Ok(Person {
            authority: Authority {
                key: key(number),
                membership,
            },
            book: Invitations::default(),
        })
    }

    /// Invites and admits `number` as a serving member.
    pub(crate) fn bring(&mut self, number: u8) -> Person {
        let ticket = self.invite(Invite::default());
        self.admit(&ticket, number, Role::Serve).unwrap()
    }
}
