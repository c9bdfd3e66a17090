//! Owns the invitation string that one user passes to another: its contents, signature and text form.
//!
//! Text: `mesh1` and base32 (either case) of a length, a body, a signature and a checksum. Length and
//! checksum tell a string that was cut off or mistyped from one that is forged. Base32 is one word
//! for a double click, and its capitals fit the small alphabet of QR codes.

mod error;

pub use error::TicketError;

use data_encoding::BASE32_NOPAD;
use iroh_base::SecretKey;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::admission::{
    CLOCK_SKEW_MS, Certificate, Refusal, TicketId, TicketRef, Trust, chain_from_wire,
    chain_to_wire, role_number, role_of,
};
use crate::codec::{self, Blob, DecodeError, Fixed};
use crate::signature::{self, Domain, SIGNATURE_BYTES};
use crate::{Addresses, AddressesWire, MeshId, NodeId, Role};

/// How every ticket begins; the digit is the version of the format.
pub const PREFIX: &str = "mesh1";

/// What all versions begin with.
const PREFIX_ANY: &str = "mesh";

/// Longest text that is looked at, in bytes. A ticket of the root takes about 400, one from the end
/// of the longest chain about 8,000.
pub const TEXT_BYTES_MAX: usize = 16 * 1_024;

/// Most bytes of the decoded ticket: text carries five bits a character after the prefix.
pub const TICKET_BYTES_MAX: usize = (TEXT_BYTES_MAX - PREFIX.len()) * 5 / 8;

/// Most nodes to start from. The issuer and a few that are up when it is not.
pub const BOOTSTRAP_MAX: usize = 4;

/// Longest name of a mesh, in characters.
pub const NAME_CHARS_MAX: usize = 64;

const LENGTH_BYTES: usize = 2;
const CHECKSUM_BYTES: usize = 4;

const DOMAIN: Domain = Domain("mesh-llm ticket 1");

/// What a ticket says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Terms {
    /// The mesh.
    pub mesh: MeshId,
    /// What people call it.
    pub name: Option<String>,
    /// Its originator.
    pub root: NodeId,
    /// Who invites, and signs.
    pub issuer: NodeId,
    /// The issuer's certificates up to the root.
    pub chain: Vec<Certificate>,
    /// Which of the issuer's tickets.
    pub id: TicketId,
    /// What it admits as.
    pub role: Role,
    /// Until when it admits, if not for ever, in milliseconds since 1970.
    pub expires_unix_ms: Option<u64>,
    /// How many nodes it admits, if that is counted.
    pub uses_max: Option<u32>,
    /// Where to ask: nodes and their addresses, at most [`BOOTSTRAP_MAX`].
    pub bootstrap: Vec<(NodeId, Addresses)>,
}

/// Signed [`Terms`]. The signed bytes are kept, so that it can be passed on unchanged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    terms: Terms,
    body: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

#[derive(Serialize, Deserialize)]
struct TermsWire {
    #[serde(rename = "m")]
    mesh: Fixed<32>,
    #[serde(rename = "l", default, skip_serializing_if = "Option::is_none")]
    name: Option<String>,
    #[serde(rename = "o")]
    root: Fixed<32>,
    /// Absent where the root is the issuer.
    #[serde(rename = "i", default, skip_serializing_if = "Option::is_none")]
    issuer: Option<Fixed<32>>,
    #[serde(rename = "c", default, skip_serializing_if = "Vec::is_empty")]
    chain: Vec<Blob>,
    #[serde(rename = "t")]
    id: Fixed<{ TicketId::BYTES }>,
    #[serde(rename = "r")]
    role: u8,
    #[serde(rename = "e", default, skip_serializing_if = "Option::is_none")]
    expires_unix_ms: Option<u64>,
    #[serde(rename = "u", default, skip_serializing_if = "Option::is_none")]
    uses_max: Option<u32>,
    #[serde(rename = "b", default)]
    bootstrap: Vec<BootstrapWire>,
}

#[derive(Serialize, Deserialize)]
struct BootstrapWire {
    /// Absent for the issuer.
    #[serde(rename = "n", default, skip_serializing_if = "Option::is_none")]
    node: Option<Fixed<32>>,
    #[serde(flatten)]
    addresses: AddressesWire,
}

impl Ticket {
    /// Signs `terms` with the key of their issuer.
    #[must_use]
    pub fn sign(mut terms: Terms, key: &SecretKey) -> Self {
        debug_assert_eq!(signature::node_of(key), terms.issuer);
        terms.bootstrap.truncate(BOOTSTRAP_MAX);
        terms.name = terms.name.map(|name| short_name(&name));
        let body = codec::encode(&TermsWire::from(&terms));
        let signature = signature::sign(key, DOMAIN, &body);
        Self {
            terms,
            body,
            signature,
        }
    }

    /// What it says. True only if [`check`](Self::check) says so.
    #[must_use]
    pub const fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Its name among all tickets.
    #[must_use]
    pub const fn reference(&self) -> TicketRef {
        TicketRef {
            issuer: self.terms.issuer,
            id: self.terms.id,
        }
    }

    /// Checks that it is signed by a serving member of the mesh it names, and not over.
    pub fn check(&self, now_unix_ms: u64) -> Result<(), Refusal> {
        let terms = &self.terms;
        if !signature::verify(terms.issuer, DOMAIN, &self.body, &self.signature) {
            return Err(Refusal::BadSignature);
        }
        let trust = Trust::new(terms.mesh, terms.root, Default::default());
        let standing = trust.check_links(terms.issuer, &terms.chain)?;
        if standing.role != Role::Serve {
            return Err(Refusal::MayNotInvite);
        }
        if terms
            .expires_unix_ms
            .is_some_and(|end| end.saturating_add(CLOCK_SKEW_MS) < now_unix_ms)
        {
            return Err(Refusal::TicketExpired);
        }
        Ok(())
    }

    /// Its bytes: length, body, signature, checksum.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        let signed = self.body.len() + SIGNATURE_BYTES;
        let mut bytes = Vec::with_capacity(LENGTH_BYTES + signed + CHECKSUM_BYTES);
        // A longer ticket than two bytes can count is refused by every reader anyway.
        let length = u16::try_from(signed).unwrap_or(u16::MAX);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(&self.body);
        bytes.extend_from_slice(&self.signature);
        let checksum = checksum(&bytes);
        bytes.extend_from_slice(&checksum);
        bytes
    }

    /// Reads [`to_bytes`](Self::to_bytes); checks no signature.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, TicketError> {
        if bytes.len() > TICKET_BYTES_MAX {
            return Err(TicketError::TooLong);
        }
        let (length, rest) = bytes
            .split_first_chunk::<LENGTH_BYTES>()
            .ok_or(TicketError::CutOff)?;
        let length = usize::from(u16::from_be_bytes(*length));
        let whole = length + CHECKSUM_BYTES;
        if rest.len() < whole {
            return Err(TicketError::CutOff);
        }
        if rest.len() > whole {
            return Err(TicketError::Extra);
        }
        let (signed, sum) = rest.split_at(length);
        if checksum(&bytes[..LENGTH_BYTES + length]) != sum {
            return Err(TicketError::Mistyped);
        }
        let (body, signature) = signed
            .split_last_chunk::<SIGNATURE_BYTES>()
            .ok_or_else(|| TicketError::Malformed("no signature".into()))?;
        let wire: TermsWire = codec::decode(body, TICKET_BYTES_MAX).map_err(malformed)?;
        Ok(Self {
            terms: wire.read().map_err(malformed)?,
            body: body.to_vec(),
            signature: *signature,
        })
    }
}

impl std::fmt::Display for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(PREFIX)?;
        f.write_str(&BASE32_NOPAD.encode(&self.to_bytes()).to_ascii_lowercase())
    }
}

impl std::str::FromStr for Ticket {
    type Err = TicketError;

    /// Reads the text form in either case, also broken over lines as terminals do.
    fn from_str(text: &str) -> Result<Self, TicketError> {
        if text.len() > TEXT_BYTES_MAX {
            return Err(TicketError::TooLong);
        }
        let word: String = text
            .chars()
            .filter(|c| !c.is_whitespace())
            .map(|c| c.to_ascii_lowercase())
            .collect();
        let rest = word
            .strip_prefix(PREFIX_ANY)
            .ok_or(TicketError::NotATicket)?;
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let coded = match rest.strip_prefix('1') {
            Some(coded) => coded,
            None if digits > 0 => return Err(TicketError::Newer),
            None => return Err(TicketError::NotATicket),
        };
        let coded = coded.to_ascii_uppercase();
        let bytes = decode_base32(coded.as_bytes())?;
        Self::from_bytes(&bytes)
    }
}

/// Decodes base32. A length or a rest that no whole bytes give means that the end is missing.
fn decode_base32(coded: &[u8]) -> Result<Vec<u8>, TicketError> {
    let known = |byte: &u8| byte.is_ascii_uppercase() || (b'2'..=b'7').contains(byte);
    if let Some(byte) = coded.iter().find(|byte| !known(byte)) {
        let character = char::from(*byte).to_ascii_lowercase();
        return Err(TicketError::Character { character });
    }
    BASE32_NOPAD.decode(coded).map_err(|_| TicketError::CutOff)
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let hash = Sha256::digest(bytes);
    [hash[0], hash[1], hash[2], hash[3]]
}

fn malformed(error: DecodeError) -> TicketError {
    TicketError::Malformed(error.to_string())
}

/// A mesh's name as it may travel: printable and short.
pub(crate) fn short_name(name: &str) -> String {
    name.chars()
        .filter(|c| !c.is_control())
        .take(NAME_CHARS_MAX)
        .collect()
}

impl From<&Terms> for TermsWire {
    fn from(terms: &Terms) -> Self {
        let issuer = terms.issuer;
        Self {
            mesh: terms.mesh.into(),
            name: terms.name.clone(),
            root: terms.root.into(),
            issuer: (issuer != terms.root).then(|| issuer.into()),
            chain: chain_to_wire(&terms.chain),
            id: Fixed(*terms.id.as_bytes()),
            role: role_number(terms.role),
            expires_unix_ms: terms.expires_unix_ms,
            uses_max: terms.uses_max,
            bootstrap: terms
                .bootstrap
                .iter()
                .map(|(node, addresses)| BootstrapWire {
                    node: (*node != issuer).then(|| (*node).into()),
                    addresses: addresses.to_wire(),
                })
                .collect(),
        }
    }
}

impl TermsWire {
    fn read(self) -> Result<Terms, DecodeError> {
        let root = NodeId::from(self.root);
        let issuer = self.issuer.map_or(root, NodeId::from);
        Ok(Terms {
            mesh: self.mesh.into(),
            name: self.name.map(|name| short_name(&name)),
            root,
            issuer,
            chain: chain_from_wire(&self.chain)?,
            id: TicketId::from_bytes(self.id.0),
            role: role_of(self.role)?,
            expires_unix_ms: self.expires_unix_ms,
            uses_max: self.uses_max,
            bootstrap: self
                .bootstrap
                .into_iter()
                .take(BOOTSTRAP_MAX)
                .map(|entry| {
                    let node = entry.node.map_or(issuer, NodeId::from);
                    (node, Addresses::from_wire(entry.addresses))
                })
                .collect(),
        })
    }
}

#[cfg(test)]
mod tests;
