//! Owns the list of everything that reads foreign bytes, each as a function that may be given any
//! bytes: it must not panic, and what it reads must survive being written and read again.
//!
//! The targets in `fuzz/` and the property tests call the same functions.

use iroh_base::SecretKey;

use crate::admission::{
    Authority, Certificate, Invitations, Invite, Membership, Redemption, Refusal, Revocation,
    Target, Trust,
};
use crate::announcement::addresses;
use crate::announcement::{
    Announcement, Compute, Model, ModelRate, NodeInfo, RoundTrip, ServedModel, Signed, SplitModel,
    SplitStage,
};
use crate::proto::{Fact, Item, Message, Page, TableVersion};
use crate::signature::{self, SIGNATURE_BYTES};
use crate::ticket::Ticket;
use crate::wire::{self, Hello, Join, Joined, Rejection};
use crate::{Addresses, MeshId, NodeId, Role};

/// Something that reads foreign bytes.
#[derive(Debug, Clone, Copy)]
pub struct Decoder {
    /// The name of its fuzz target.
    pub name: &'static str,
    /// Reads; true if the bytes were accepted.
    pub read: fn(&[u8]) -> bool,
    /// Bytes that are accepted, to begin with.
    pub samples: fn() -> Vec<Vec<u8>>,
}

/// All of them.
pub const DECODERS: [Decoder; 11] = [
    Decoder {
        name: "ticket",
        read: ticket,
        samples: || {
            vec![
                sample().ticket.to_bytes(),
                sample().ticket.to_string().into_bytes(),
            ]
        },
    },
    Decoder {
        name: "certificate",
        read: certificate,
        samples: || vec![sample().membership.chain[0].to_bytes()],
    },
    Decoder {
        name: "membership",
        read: membership,
        samples: || vec![sample().membership.to_bytes()],
    },
    Decoder {
        name: "revocation",
        read: revocation,
        samples: || {
            sample()
                .revocations
                .iter()
                .map(Revocation::to_bytes)
                .collect()
        },
    },
    Decoder {
        name: "invitations",
        read: invitations,
        samples: || vec![sample().book.to_bytes()],
    },
    Decoder {
        name: "announcement",
        read: announcement,
        samples: || vec![announced().bytes().to_vec()],
    },
    Decoder {
        name: "message",
        read: message,
        samples: || messages().iter().map(Message::encode).collect(),
    },
    Decoder {
        name: "hello",
        read: hello,
        samples: || vec![sample().hello().to_bytes()],
    },
    Decoder {
        name: "answer",
        read: answer,
        samples: || {
            let hello = sample().hello();
            let shown = Rejection {
                refusal: Refusal::Expelled,
                proof: Some(sample().revocations[0].to_bytes()),
            };
            let later = Refusal::Other("later".into()).into();
            [Ok(&hello), Err(&shown), Err(&later)]
                .map(wire::answer_to_bytes)
                .into()
        },
    },
    Decoder {
        name: "join",
        read: join,
        samples: || {
            let (ticket, role) = (sample().ticket, Role::Client);
            vec![Join { ticket, role }.to_bytes()]
        },
    },
    Decoder {
        name: "joined",
        read: joined,
        samples: || {
            let joined = Joined {
                membership: sample().membership,
                name: Some("home".into()),
                nodes: vec![(node(2), addresses())],
            };
            [Ok(joined), Err(Refusal::UsedUp)]
                .map(|j| wire::joined_to_bytes(&j))
                .into()
        },
    },
];

/// Bytes that the decoder of this name accepts; none if there is no such decoder.
#[must_use]
pub fn samples(name: &str) -> Vec<Vec<u8>> {
    let named = DECODERS.iter().find(|decoder| decoder.name == name);
    named.map_or_else(Vec::new, |decoder| (decoder.samples)())
}

/// A ticket, as bytes and as text.
pub fn ticket(bytes: &[u8]) -> bool {
    let read = Ticket::from_bytes(bytes).ok();
    if let Some(ticket) = &read {
        assert_eq!(ticket.to_string().parse().as_ref(), Ok(ticket));
        let _ = ticket.check(NOW);
    }
    let text = std::str::from_utf8(bytes).ok();
    let parsed = text.and_then(|text| text.parse::<Ticket>().ok());
    if let Some(ticket) = &parsed {
        assert_eq!(Ticket::from_bytes(&ticket.to_bytes()).as_ref(), Ok(ticket));
    }
    read.is_some() || parsed.is_some()
}

/// One link of a membership.
pub fn certificate(bytes: &[u8]) -> bool {
    let Ok(read) = Certificate::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(
        Certificate::from_bytes(&read.to_bytes()).as_ref(),
        Ok(&read)
    );
    let _ = read.signature_fits();
    true
}

/// A membership, and what holds it against a mesh.
pub fn membership(bytes: &[u8]) -> bool {
    let Ok(read) = Membership::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(Membership::from_bytes(&read.to_bytes()).as_ref(), Ok(&read));
    let trust = Trust::new(read.mesh, read.root, Default::default());
    let _ = trust.check(read.node, &read, NOW);
    true
}

/// A revocation, and what adds it to a set.
pub fn revocation(bytes: &[u8]) -> bool {
    let Ok(read) = Revocation::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(Revocation::from_bytes(&read.to_bytes()).as_ref(), Ok(&read));
    let mut trust = Trust::new(mesh(), node(1), Default::default());
    let _ = trust.revoke(read);
    true
}

/// A book of invitations.
pub fn invitations(bytes: &[u8]) -> bool {
    let Ok(read) = Invitations::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(
        Invitations::from_bytes(&read.to_bytes()).as_ref(),
        Ok(&read)
    );
    let _ = read.list();
    true
}

/// An announcement. It is passed on as it came, so nothing writes it again but its author.
pub fn announcement(bytes: &[u8]) -> bool {
    let Ok(read) = Signed::decode(bytes) else {
        return false;
    };
    assert_eq!(&read.bytes()[..], bytes);
    let said = read.announcement().clone();
    let mut trimmed = said.info.clone();
    trimmed.trim();
    assert_eq!(trimmed, said.info, "what is read keeps all limits");
    let again = Signed::new(said, &KeyAuthority).map(|signed| Signed::decode(signed.bytes()));
    // It may have come in a longer form than ours, never in a shorter one by much.
    if let Ok(again) = again {
        let again = again.map(|signed| signed.announcement().clone());
        assert_eq!(again.as_ref(), Ok(read.announcement()));
    }
    let _ = read.is_genuine(mesh(), &KeyAuthority);
    let ways = addresses::from_announcement(&read.announcement().info.addresses);
    let again = addresses::from_announcement(&addresses::to_announcement(&ways));
    assert!(
        ways.direct().starts_with(again.direct()),
        "no address is made up"
    );
    true
}

/// A message of the membership protocol.
pub fn message(bytes: &[u8]) -> bool {
    let Ok(Some(read)) = Message::decode(bytes) else {
        return false;
    };
    let again = Message::decode(&read.encode());
    assert_eq!(again, Ok(Some(read)));
    true
}

/// What a node shows of itself first.
pub fn hello(bytes: &[u8]) -> bool {
    let Ok(read) = Hello::from_bytes(bytes) else {
        return false;
    };
    let again = Hello::from_bytes(&read.to_bytes());
    assert_eq!(again.as_ref(), Ok(&read));
    true
}

/// The answer to it.
pub fn answer(bytes: &[u8]) -> bool {
    let Ok(read) = wire::answer_from_bytes(bytes) else {
        return false;
    };
    let again = wire::answer_from_bytes(&wire::answer_to_bytes(read.as_ref()));
    assert_eq!(again, Ok(read));
    true
}

/// A request to join.
pub fn join(bytes: &[u8]) -> bool {
    let Ok(read) = Join::from_bytes(bytes) else {
        return false;
    };
    assert_eq!(Join::from_bytes(&read.to_bytes()).as_ref(), Ok(&read));
    true
}

/// The answer to it.
pub fn joined(bytes: &[u8]) -> bool {
    let Ok(read) = wire::joined_from_bytes(bytes) else {
        return false;
    };
    let again = wire::joined_from_bytes(&wire::joined_to_bytes(&read));
    assert_eq!(again, Ok(read));
    true
}

/// The wall clock of the samples.
const NOW: u64 = 1_800_000_000_000;

/// Signs with the key of the samples' originator.
struct KeyAuthority;

impl crate::announcement::Authority for KeyAuthority {
    fn sign(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        key(1).sign(bytes).to_bytes()
    }

    fn verify(&self, node: NodeId, bytes: &[u8], signature: &[u8; SIGNATURE_BYTES]) -> bool {
        signature::verify(node, signature::Domain(""), bytes, signature)
    }

    fn is_expelled(&self, _: NodeId) -> bool {
        false
    }

    fn accept_revocation(&mut self, _: &[u8]) -> crate::announcement::RevocationVerdict {
        crate::announcement::RevocationVerdict::Added
    }
}

/// A member two links below the originator, with everything that it holds.
struct Sample {
    membership: Membership,
    ticket: Ticket,
    book: Invitations,
    revocations: Vec<Revocation>,
}

impl Sample {
    fn hello(&self) -> Hello {
        Hello {
            membership: self.membership.clone(),
            instance: 7,
            addresses: addresses(),
        }
    }
}

fn key(number: u8) -> SecretKey {
    SecretKey::from_bytes(&[number; 32])
}

fn node(number: u8) -> NodeId {
    signature::node_of(&key(number))
}

fn mesh() -> MeshId {
    MeshId::from_bytes([9; 32])
}

fn addresses() -> Addresses {
    let direct = [([10, 0, 0, 1], 4_000).into(), ([0u16; 8], 4_001).into()];
    Addresses::new(direct, Some("https://relay.example/".into()))
}

fn sample() -> Sample {
    let mut book = Invitations::default();
    let mut authority = Authority {
        key: key(1),
        membership: Membership::of_root(mesh(), node(1)),
    };
    let mut rng = <rand::rngs::StdRng as rand::SeedableRng>::seed_from_u64(1);
    let mut admitted = None;
    for number in 2..=3 {
        let invite = Invite {
            uses_max: Some(3),
            ..Invite::default()
        };
        let bootstrap = vec![(node(2), addresses())];
        let name = Some("home".into());
        let ticket = book.invite(&authority, name, invite, bootstrap, NOW, &mut rng);
        let Ok(ticket) = ticket else { break };
        let redemption = Redemption {
            ticket: &ticket,
            node: node(number),
            role: Role::Serve,
        };
        let trust = Trust::new(mesh(), node(1), Default::default());
        let Ok(membership) = book.redeem(&authority, &trust, redemption, NOW) else {
            break;
        };
        authority = Authority {
            key: key(number),
            membership: membership.clone(),
        };
        admitted = Some((membership, ticket));
    }
    let (membership, ticket) = admitted.unwrap_or_else(|| unreachable!("the root may invite"));
    let targets = [Target::Node(node(4)), Target::Ticket(ticket.reference())];
    let revocations = targets
        .map(|target| Revocation::sign(mesh(), target, membership.chain.clone(), NOW, &key(3)));
    Sample {
        membership,
        ticket,
        book,
        revocations: revocations.into(),
    }
}

fn announced() -> std::sync::Arc<Signed> {
    let model = Model {
        name: "a-model".into(),
        fingerprint: "b3:00".into(),
        size_bytes: 1 << 33,
        context_length: 8_192,
        draft: true,
        embeds: false,
    };
    let rate = ModelRate {
        model: "a-model".into(),
        per_minute: 1.5,
    };
    let announcement = Announcement {
        mesh: mesh(),
        node: node(1),
        incarnation: NOW,
        sequence: 3,
        ttl_ms: 240_000,
        leaving: false,
        role: Role::Serve,
        round_trips: vec![RoundTrip { peer: 1, us: 900 }],
        info: NodeInfo {
            name: "machine".into(),
            region: "here".into(),
            version: "1".into(),
            started_at_unix_ms: NOW,
            addresses: vec![vec![0, 10, 0, 0, 1, 1, 1]],
            devices: vec!["a card".into()],
            memory_total_bytes: 1 << 34,
            memory_free_bytes: 1 << 33,
            compute: Some(Compute {
                bandwidth_mb_s: 80_000,
                threads: 8,
            }),
            serving: vec![ServedModel {
                model: model.clone(),
                slots: 4,
                busy: 1,
                queued: 2,
            }],
            wanted: vec![model.clone()],
            local: vec![model.clone()],
            rates: vec![rate],
            splits: vec![SplitModel {
                model,
                slots: 2,
                term: 3,
                stage: SplitStage::Coming,
                forced: true,
                host_bytes: 1 << 30,
            }],
            ..NodeInfo::default()
        },
    };
    let signed = Signed::new(announcement, &KeyAuthority);
    signed.unwrap_or_else(|error| unreachable!("a short announcement: {error}"))
}

fn messages() -> Vec<Message> {
    let item = |fact| Item {
        fact,
        age_ms: 12,
        urgent: true,
    };
    let died = Fact::Died {
        node: node(2),
        incarnation: 4,
    };
    let suspected = Fact::Suspected {
        node: node(2),
        incarnation: 4,
        sequence: 5,
    };
    let revoked = Fact::Revoked(sample().revocations[0].to_bytes().into());
    let items = [Fact::Announced(announced()), died, suspected, revoked].map(item);
    let version = TableVersion {
        source: 1,
        change: 2,
    };
    let rates = announced().announcement().info.rates.clone();
    vec![
        Message::Link {
            wanted: true,
            root: 1,
        },
        Message::Refuse,
        Message::News {
            items: items.clone().into(),
        },
        Message::Have {
            hashes: vec![1, 2],
            offered: true,
        },
        Message::Want {
            hashes: vec![3],
            graft: true,
        },
        Message::Prune,
        Message::Compare { root: 5 },
        Message::Parts {
            digests: vec![1, 2, 3, 4],
        },
        Message::Entries {
            parts: 16,
            differing: vec![3, 15],
            hashes: vec![8],
        },
        Message::Ping {
            nonce: 1,
            round_trip_us: Some(2),
        },
        Message::Pong { nonce: 1 },
        Message::Probe { target: node(2) },
        Message::Reached { target: node(2) },
        Message::Pull {
            have: Some(version),
            root: 4,
            whole: true,
            rates,
        },
        Message::Unchanged {
            version,
            next_ms: 10_000,
        },
        Message::Table(Page {
            version,
            restart: true,
            more: true,
            items: items.into(),
            next_ms: 10_000,
        }),
    ]
}
