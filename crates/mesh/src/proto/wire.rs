//! Owns the CBOR form of the messages.
//!
//! All messages are one map with a kind and the fields that the kind needs. A newer version may
//! add fields, kinds and facts: readers skip what they do not know.

use serde::{Deserialize, Serialize};

use super::message::{Fact, Item, Message, Page, TableVersion};
use super::{HASHES_MAX, MESSAGE_BYTES_MAX, REVOCATION_BYTES_MAX};
use crate::announcement::{COUNTER_MAX, Signed, WireRate, rates_from_wire};
use crate::codec::{self, Blob, DecodeError, Fixed};

/// Most items of one message that are looked at. The smallest kind takes about 60 bytes.
const ITEMS_MAX: usize = 1_024;

/// Most parts of a table; their numbers are one byte.
const PARTS_MAX: usize = 256;

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// Too long, or not CBOR, or not of the expected shape.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A field is missing or beyond its limit.
    #[error("message of kind {kind} with a bad {field}")]
    Field {
        /// The message's kind, by number.
        kind: u8,
        /// Which field.
        field: &'static str,
    },
}

/// The one shape of all messages.
#[derive(Default, Serialize, Deserialize)]
struct Wire {
    #[serde(rename = "k")]
    kind: u8,
    #[serde(rename = "f", default, skip_serializing_if = "Option::is_none")]
    flag: Option<bool>,
    #[serde(rename = "g", default, skip_serializing_if = "Option::is_none")]
    more: Option<bool>,
    #[serde(rename = "r", default, skip_serializing_if = "Option::is_none")]
    root: Option<u64>,
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    number: Option<u64>,
    #[serde(rename = "t", default, skip_serializing_if = "Option::is_none")]
    round_trip_us: Option<u32>,
    #[serde(rename = "v", default, skip_serializing_if = "Option::is_none")]
    version: Option<(u64, u64)>,
    #[serde(rename = "h", default, skip_serializing_if = "Option::is_none")]
    hashes: Option<Blob>,
    #[serde(rename = "p", default, skip_serializing_if = "Option::is_none")]
    parts: Option<Blob>,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    who: Option<Fixed<32>>,
    #[serde(rename = "i", default, skip_serializing_if = "Vec::is_empty")]
    items: Vec<WireItem>,
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    rates: Vec<WireRate>,
}

/// The one shape of all items.
#[derive(Serialize, Deserialize)]
struct WireItem {
    #[serde(rename = "k")]
    kind: u8,
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    age_ms: Option<u64>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    urgent: Option<bool>,
    #[serde(rename = "b", default, skip_serializing_if = "Option::is_none")]
    bytes: Option<Blob>,
    #[serde(rename = "w", default, skip_serializing_if = "Option::is_none")]
    who: Option<Fixed<32>>,
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    incarnation: Option<u64>,
    #[serde(rename = "q", default, skip_serializing_if = "Option::is_none")]
    sequence: Option<u64>,
}

mod kind {
    pub(super) const LINK: u8 = 1;
    pub(super) const REFUSE: u8 = 2;
    pub(super) const NEWS: u8 = 3;
    pub(super) const HAVE: u8 = 4;
    pub(super) const WANT: u8 = 5;
    pub(super) const PRUNE: u8 = 6;
    pub(super) const COMPARE: u8 = 7;
    pub(super) const PARTS: u8 = 8;
    pub(super) const ENTRIES: u8 = 9;
    pub(super) const PING: u8 = 10;
    pub(super) const PONG: u8 = 11;
    pub(super) const PROBE: u8 = 12;
    pub(super) const REACHED: u8 = 13;
    pub(super) const PULL: u8 = 14;
    pub(super) const UNCHANGED: u8 = 15;
    pub(super) const TABLE: u8 = 16;

    pub(super) const ANNOUNCED: u8 = 1;
    pub(super) const DIED: u8 = 2;
    pub(super) const SUSPECTED: u8 = 3;
    pub(super) const REVOKED: u8 = 4;
}

impl Message {
    /// The bytes to send; the receiver's limit is [`MESSAGE_BYTES_MAX`].
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        codec::encode(&Wire::from(self))
    }

    /// Reads a message. `None`: a kind that this version does not know, to be skipped. Signatures
    /// are not checked here; single items that are unknown or unreadable are left out.
    pub fn decode(bytes: &[u8]) -> Result<Option<Self>, MessageError> {
        let wire: Wire = codec::decode(bytes, MESSAGE_BYTES_MAX)?;
        let kind = wire.kind;
        wire.into_message()
            .map_err(|field| MessageError::Field { kind, field })
    }
}

impl From<&Message> for Wire {
    fn from(message: &Message) -> Self {
        let empty = |kind| Self {
            kind,
            ..Self::default()
        };
        match message {
            Message::Link { wanted, root } => Self {
                flag: Some(*wanted),
                root: Some(*root),
                ..empty(kind::LINK)
            },
            Message::Refuse => empty(kind::REFUSE),
            Message::News { items } => Self {
                items: items.iter().map(WireItem::from).collect(),
                ..empty(kind::NEWS)
            },
            Message::Have { hashes, offered } => Self {
                hashes: Some(packed(hashes)),
                flag: offered.then_some(true),
                ..empty(kind::HAVE)
            },
            Message::Want { hashes, graft } => Self {
                hashes: Some(packed(hashes)),
                flag: graft.then_some(true),
                ..empty(kind::WANT)
            },
            Message::Prune => empty(kind::PRUNE),
            Message::Compare { root } => Self {
                root: Some(*root),
                ..empty(kind::COMPARE)
            },
            Message::Parts { digests } => Self {
                parts: Some(Blob(digests.iter().flat_map(|d| d.to_le_bytes()).collect())),
                ..empty(kind::PARTS)
            },
            Message::Entries {
                parts,
                differing,
                hashes,
            } => Self {
                number: Some(u64::from(*parts)),
                parts: Some(Blob(differing.clone())),
                hashes: Some(packed(hashes)),
                ..empty(kind::ENTRIES)
            },
            Message::Ping {
                nonce,
                round_trip_us,
            } => Self {
                number: Some(*nonce),
                round_trip_us: *round_trip_us,
                ..empty(kind::PING)
            },
            Message::Pong { nonce } => Self {
                number: Some(*nonce),
                ..empty(kind::PONG)
            },
            Message::Probe { target } => Self {
                who: Some((*target).into()),
                ..empty(kind::PROBE)
            },
            Message::Reached { target } => Self {
                who: Some((*target).into()),
                ..empty(kind::REACHED)
            },
            Message::Pull {
                have,
                root,
                whole,
                rates,
            } => Self {
                flag: whole.then_some(true),
                version: have.map(|v| (v.source, v.change)),
                root: Some(*root),
                rates: rates.iter().map(WireRate::from).collect(),
                ..empty(kind::PULL)
            },
            Message::Unchanged { version, next_ms } => Self {
                version: Some((version.source, version.change)),
                number: Some(*next_ms),
                ..empty(kind::UNCHANGED)
            },
            Message::Table(page) => Self {
                version: Some((page.version.source, page.version.change)),
                flag: page.restart.then_some(true),
                more: page.more.then_some(true),
                items: page.items.iter().map(WireItem::from).collect(),
                number: Some(page.next_ms),
                ..empty(kind::TABLE)
            },
        }
    }
}

impl Wire {
    fn into_message(self) -> Result<Option<Message>, &'static str> {
        let flag = self.flag.unwrap_or(false);
        Ok(Some(match self.kind {
            kind::LINK => Message::Link {
                wanted: flag,
                root: self.root.ok_or("root")?,
            },
            kind::REFUSE => Message::Refuse,
            kind::NEWS => Message::News {
                items: items(self.items)?,
            },
            kind::HAVE => Message::Have {
                hashes: unpacked(self.hashes)?,
                offered: flag,
            },
            kind::WANT => Message::Want {
                hashes: unpacked(self.hashes)?,
                graft: flag,
            },
            kind::PRUNE => Message::Prune,
            kind::COMPARE => Message::Compare {
                root: self.root.ok_or("root")?,
            },
            kind::PARTS => Message::Parts {
                digests: digests(&self.parts.ok_or("parts")?.0)?,
            },
            kind::ENTRIES => self.into_entries()?,
            kind::PING => Message::Ping {
                nonce: self.number.ok_or("nonce")?,
                round_trip_us: self.round_trip_us,
            },
            kind::PONG => Message::Pong {
                nonce: self.number.ok_or("nonce")?,
            },
            kind::PROBE => Message::Probe {
                target: self.who.ok_or("target")?.into(),
            },
            kind::REACHED => Message::Reached {
                target: self.who.ok_or("target")?.into(),
            },
            kind::PULL => Message::Pull {
                have: self.version.map(version),
                root: self.root.ok_or("root")?,
                whole: flag,
                rates: rates_from_wire(self.rates)?,
            },
            kind::UNCHANGED => Message::Unchanged {
                version: self.version.map(version).ok_or("version")?,
                next_ms: self.number.ok_or("time")?,
            },
            kind::TABLE => Message::Table(Page {
                version: self.version.map(version).ok_or("version")?,
                restart: flag,
                more: self.more.unwrap_or(false),
                items: items(self.items)?,
                next_ms: self.number.ok_or("time")?,
            }),
            _ => return Ok(None),
        }))
    }

    fn into_entries(self) -> Result<Message, &'static str> {
        let parts = self.number.ok_or("parts")?;
        let known = usize::try_from(parts).ok();
        if !known.is_some_and(|p| p.is_power_of_two() && p <= PARTS_MAX) {
            return Err("parts");
        }
        let Blob(differing) = self.parts.ok_or("parts")?;
        if differing.len() > PARTS_MAX || differing.iter().any(|&p| u64::from(p) >= parts) {
            return Err("parts");
        }
        Ok(Message::Entries {
            parts: u32::try_from(parts).map_err(|_| "parts")?,
            differing,
            hashes: unpacked(self.hashes)?,
        })
    }
}

fn version((source, change): (u64, u64)) -> TableVersion {
    TableVersion { source, change }
}

/// Little-endian, eight bytes each: half of what a list of CBOR numbers takes to read.
fn packed(hashes: &[u64]) -> Blob {
    Blob(hashes.iter().flat_map(|hash| hash.to_le_bytes()).collect())
}

fn unpacked(blob: Option<Blob>) -> Result<Vec<u64>, &'static str> {
    let Blob(bytes) = blob.ok_or("hashes")?;
    let (chunks, rest) = bytes.as_chunks::<8>();
    if !rest.is_empty() || chunks.len() > HASHES_MAX {
        return Err("hashes");
    }
    Ok(chunks.iter().map(|c| u64::from_le_bytes(*c)).collect())
}

fn digests(bytes: &[u8]) -> Result<Vec<u32>, &'static str> {
    let (chunks, rest) = bytes.as_chunks::<4>();
    if !rest.is_empty() || !chunks.len().is_power_of_two() || chunks.len() > PARTS_MAX {
        return Err("parts");
    }
    Ok(chunks.iter().map(|c| u32::from_le_bytes(*c)).collect())
}

fn items(wire: Vec<WireItem>) -> Result<Vec<Item>, &'static str> {
    if wire.len() > ITEMS_MAX {
        return Err("number of items");
    }
    Ok(wire.into_iter().filter_map(WireItem::into_item).collect())
}

impl From<&Item> for WireItem {
    fn from(item: &Item) -> Self {
        let (kind, who, incarnation, sequence, bytes) = match &item.fact {
            Fact::Announced(signed) => (
                kind::ANNOUNCED,
                None,
                None,
                None,
                Some(signed.bytes().to_vec()),
            ),
            Fact::Died { node, incarnation } => {
                (kind::DIED, Some(*node), Some(*incarnation), None, None)
            }
            Fact::Suspected {
                node,
                incarnation,
                sequence,
            } => {
                let life = (Some(*incarnation), Some(*sequence));
                (kind::SUSPECTED, Some(*node), life.0, life.1, None)
            }
            Fact::Revoked(blob) => (kind::REVOKED, None, None, None, Some(blob.to_vec())),
        };
        Self {
            kind,
            age_ms: (item.age_ms > 0).then_some(item.age_ms),
            urgent: item.urgent.then_some(true),
            bytes: bytes.map(Blob),
            who: who.map(Fixed::from),
            incarnation,
            sequence,
        }
    }
}

impl WireItem {
    /// `None` for what this version does not understand.
    fn into_item(self) -> Option<Item> {
        let counter = |value: Option<u64>| value.filter(|&v| v <= COUNTER_MAX);
        let fact = match self.kind {
            kind::ANNOUNCED => Fact::Announced(Signed::decode(&self.bytes?.0).ok()?),
            kind::DIED => Fact::Died {
                node: self.who?.into(),
                incarnation: counter(self.incarnation)?,
            },
            kind::SUSPECTED => Fact::Suspected {
                node: self.who?.into(),
                incarnation: counter(self.incarnation)?,
                sequence: counter(self.sequence)?,
            },
            kind::REVOKED => {
                let Blob(bytes) = self.bytes?;
                if bytes.len() > REVOCATION_BYTES_MAX {
                    return None;
                }
                Fact::Revoked(bytes.into())
            }
            _ => return None,
        };
        Some(Item {
            fact,
            age_ms: self.age_ms.unwrap_or(0),
            urgent: self.urgent.unwrap_or(false),
        })
    }
}
