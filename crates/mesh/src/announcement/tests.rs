//! Limits, signatures and foreign bytes of announcements.

use ciborium::Value;
use iroh_base::SecretKey;

use super::*;
use crate::codec::{self, DecodeError};
use crate::proto::{Fact, Item, Message};
use crate::signature::{self, Domain};

const DOMAIN: Domain = Domain("test of announcements");

/// A node with a real key.
struct Key(SecretKey);

impl Key {
    fn new(number: u8) -> Self {
        Self(SecretKey::from_bytes(&[number; 32]))
    }

    fn node(&self) -> NodeId {
        signature::node_of(&self.0)
    }
}

impl Authority for Key {
    fn sign(&self, bytes: &[u8]) -> Signature {
        signature::sign(&self.0, DOMAIN, bytes)
    }

    fn verify(&self, node: NodeId, bytes: &[u8], signature: &Signature) -> bool {
        signature::verify(node, DOMAIN, bytes, signature)
    }

    fn is_expelled(&self, _: NodeId) -> bool {
        false
    }

    fn accept_revocation(&mut self, _: &[u8]) -> RevocationVerdict {
        RevocationVerdict::False
    }
}

fn mesh(number: u8) -> MeshId {
    MeshId::from_bytes([number; 32])
}

/// What the node of `key` says in mesh 1.
fn said(key: &Key) -> Announcement {
    Announcement {
        mesh: mesh(1),
        node: key.node(),
        incarnation: 7,
        sequence: 3,
        ttl_ms: TTL_MS_MIN,
        leaving: false,
        role: Role::Serve,
        round_trips: Vec::new(),
        info: NodeInfo {
            state: NodeState::Serving,
            name: "attic".into(),
            ..NodeInfo::default()
        },
    }
}

/// Changes the fields of a CBOR map.
fn changed(bytes: &[u8], change: impl FnOnce(&mut Vec<(Value, Value)>)) -> Vec<u8> {
    let mut value: Value = codec::decode(bytes, usize::MAX).unwrap();
    change(value.as_map_mut().unwrap());
    codec::encode(&value)
}

fn set(fields: &mut Vec<(Value, Value)>, name: &str, value: Value) {
    fields.retain(|(key, _)| key.as_text() != Some(name));
    fields.push((name.into(), value));
}

/// Changes what is said and has `author` sign that: the bytes of the announcement.
fn said_otherwise(
    bytes: &[u8],
    author: &Key,
    change: impl FnOnce(&mut Vec<(Value, Value)>),
) -> Vec<u8> {
    changed(bytes, |envelope| {
        let body = envelope.iter().find(|(key, _)| key.as_text() == Some("b"));
        let body = changed(body.unwrap().1.as_bytes().unwrap(), change);
        let signed = [&b"mesh-llm announcement 1\n"[..], &body].concat();
        let signature = author.sign(&signed).to_vec();
        set(envelope, "b", Value::Bytes(body));
        set(envelope, "s", Value::Bytes(signature));
    })
}

#[test]
fn it_holds_in_its_mesh_and_by_its_author_only() {
    let (key, other) = (Key::new(1), Key::new(2));
    let signed = Signed::new(said(&key), &key).unwrap();
    let read = Signed::decode(signed.bytes()).unwrap();
    assert_eq!(read.announcement(), &said(&key));
    assert_eq!(read.hash(), signed.hash());
    assert!(read.is_genuine(mesh(1), &other));
    assert!(!read.is_genuine(mesh(2), &other));
    // In the name of somebody else.
    let forged = Signed::new(said(&key), &other).unwrap();
    let forged = Signed::decode(forged.bytes()).unwrap();
    assert!(!forged.is_genuine(mesh(1), &other));
    // With the mesh changed by somebody on the way, who can't sign it.
    let moved = said_otherwise(signed.bytes(), &other, |body| {
        set(body, "m", Value::Bytes(vec![2; 32]));
    });
    let moved = Signed::decode(&moved).unwrap();
    assert_eq!(moved.announcement().mesh, mesh(2));
    assert!(!moved.is_genuine(mesh(2), &key) && !moved.is_genuine(mesh(1), &key));
}

#[test]
fn another_version_of_the_envelope_is_skipped() {
    let key = Key::new(1);
    let signed = Signed::new(said(&key), &key).unwrap();
    for version in [0u64, 2, u64::MAX] {
        let bytes = changed(signed.bytes(), |envelope| {
            set(envelope, "v", version.into());
        });
        let read = Signed::decode(&bytes);
        assert_eq!(read, Err(AnnouncementError::Version(version)));
    }
    // In a message it costs nothing but itself.
    let item = |fact| Item {
        fact,
        age_ms: 0,
        urgent: false,
    };
    let died = item(Fact::Died {
        node: key.node(),
        incarnation: 9,
    });
    let items = vec![item(Fact::Announced(signed)), died.clone()];
    let message = Message::News { items }.encode();
    let version = message
        .windows(4)
        .position(|window| window == b"\xa3\x61v\x01")
        .unwrap();
    let mut newer = message.clone();
    newer[version + 3] = 2;
    let read = Message::decode(&newer).unwrap();
    assert_eq!(read, Some(Message::News { items: vec![died] }));
    let Some(Message::News { items }) = Message::decode(&message).unwrap() else {
        panic!("should be news");
    };
    assert_eq!(items.len(), 2);
}

#[test]
fn fields_of_later_versions_are_skipped_and_passed_on() {
    let key = Key::new(1);
    let signed = Signed::new(said(&key), &key).unwrap();
    let later = said_otherwise(signed.bytes(), &key, |body| {
        let parts = vec![Value::from(1), Value::from("later")];
        set(body, "zz", Value::Array(parts));
    });
    let later = changed(&later, |envelope| {
        set(envelope, "x", true.into());
    });
    let read = Signed::decode(&later).unwrap();
    assert_eq!(read.announcement(), &said(&key));
    assert!(read.is_genuine(mesh(1), &key));
    assert_eq!(read.bytes()[..], later[..]);
}

#[test]
fn what_is_too_long_is_refused() {
    let key = Key::new(1);
    let long = vec![0; ANNOUNCEMENT_BYTES_MAX + 1];
    let too_long = DecodeError::TooLong {
        bytes: long.len(),
        bytes_max: ANNOUNCEMENT_BYTES_MAX,
    };
    let read = Signed::decode(&long);
    assert_eq!(read, Err(AnnouncementError::Decode(too_long)));
    // A field of a later version, but too much of it.
    let signed = Signed::new(said(&key), &key).unwrap();
    let padded = changed(signed.bytes(), |envelope| {
        set(envelope, "x", Value::Bytes(vec![0; ANNOUNCEMENT_BYTES_MAX]));
    });
    let read = Signed::decode(&padded);
    let is_too_long = |error: &AnnouncementError| {
        matches!(
            error,
            AnnouncementError::Decode(DecodeError::TooLong { .. })
        )
    };
    assert!(read.as_ref().is_err_and(is_too_long), "{read:?}");
    // Its author is told before it is sent.
    let mut verbose = said(&key);
    verbose.info.devices = vec!["d".repeat(ANNOUNCEMENT_BYTES_MAX)];
    let made = Signed::new(verbose, &key);
    assert!(
        matches!(made, Err(AnnouncementError::TooLong { bytes }) if bytes > ANNOUNCEMENT_BYTES_MAX),
        "{made:?}"
    );
}

#[test]
fn each_field_has_its_limit() {
    let check = |field: &str, change: fn(&mut Announcement)| {
        let key = Key::new(1);
        let mut announcement = said(&key);
        change(&mut announcement);
        let signed = Signed::new(announcement, &key).unwrap();
        let error = Signed::decode(signed.bytes()).unwrap_err();
        assert_eq!(
            error.to_string(),
            format!("announcement with a bad {field}")
        );
    };
    check("name", |said| {
        said.info.name = "n".repeat(NAME_BYTES_MAX + 1);
    });
    check("region", |said| {
        said.info.region = "r".repeat(REGION_BYTES_MAX + 1);
    });
    check("ttl", |said| said.ttl_ms = TTL_MS_MAX + 1);
    check("incarnation", |said| said.incarnation = COUNTER_MAX + 1);
    check("addresses", |said| {
        said.info.addresses = vec![Vec::new(); ADDRESSES_MAX + 1];
    });
    check("address", |said| {
        said.info.addresses = vec![vec![0; ADDRESS_BYTES_MAX + 1]];
    });
    check("rate", |said| {
        said.info.rates = vec![ModelRate {
            model: "m".into(),
            per_minute: f32::NAN,
        }];
    });
    check("model name", |said| {
        said.info.wanted = vec![Model {
            name: "m".repeat(MODEL_NAME_BYTES_MAX + 1),
            ..Model::default()
        }];
    });
}

#[test]
fn what_a_node_says_of_itself_is_cut_to_what_others_accept() {
    let key = Key::new(1);
    let mut announcement = said(&key);
    let info = &mut announcement.info;
    // Two bytes a character, and whole ones only.
    info.name = "ä".repeat(NAME_BYTES_MAX);
    info.version = format!("v{}", "ä".repeat(VERSION_BYTES_MAX));
    info.addresses = vec![vec![0; ADDRESS_BYTES_MAX + 1], vec![1; 6]];
    info.rates = vec![ModelRate {
        model: "m".into(),
        per_minute: f32::INFINITY,
    }];
    info.wanted = vec![Model::default(); WANTED_MODELS_MAX + 1];
    info.trim();
    assert_eq!(info.name.len(), NAME_BYTES_MAX);
    assert_eq!(info.version.len(), VERSION_BYTES_MAX - 1);
    assert_eq!(info.addresses, [vec![1; 6]]);
    assert!(info.rates.is_empty());
    let signed = Signed::new(announcement.clone(), &key).unwrap();
    let read = Signed::decode(signed.bytes()).unwrap();
    assert_eq!(read.announcement(), &announcement);
}
