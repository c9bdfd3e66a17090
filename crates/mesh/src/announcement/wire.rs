//! Owns the CBOR form of an announcement. Keys are short because a thousand nodes repeat them.
//!
//! A field that is missing has its default; a field that is unknown is skipped. Both let versions mix.

use serde::{Deserialize, Serialize};

use super::{
    ADDRESS_BYTES_MAX, ADDRESSES_MAX, Announcement, COUNTER_MAX, Compute, DEVICE_BYTES_MAX,
    DEVICES_MAX, FINGERPRINT_BYTES_MAX, LOCAL_MODELS_MAX, MODEL_NAME_BYTES_MAX, Model, ModelRate,
    NAME_BYTES_MAX, NodeInfo, NodeState, RATES_MAX, REGION_BYTES_MAX, ROUND_TRIPS_MAX, RoundTrip,
    SERVING_MODELS_MAX, SPLIT_MODELS_MAX, ServedModel, SplitModel, SplitStage, TTL_MS_MAX,
    TTL_MS_MIN, VERSION_BYTES_MAX, WANTED_MODELS_MAX,
};
use crate::Role;
use crate::codec::{Blob, Fixed};

/// Why a readable value is not an announcement: the name of the field beyond its limit.
type OutOfBounds = &'static str;

#[derive(Serialize, Deserialize)]
pub(super) struct Body {
    #[serde(rename = "m")]
    mesh: Fixed<32>,
    #[serde(rename = "n")]
    node: Fixed<32>,
    #[serde(rename = "i")]
    incarnation: u64,
    #[serde(rename = "q")]
    sequence: u64,
    #[serde(rename = "t")]
    ttl_ms: u64,
    #[serde(rename = "l", default, skip_serializing_if = "is_false")]
    leaving: bool,
    #[serde(rename = "r", default, skip_serializing_if = "is_zero_u8")]
    role: u8,
    #[serde(rename = "p", default, skip_serializing_if = "Vec::is_empty")]
    round_trips: Vec<(u64, u32)>,
    #[serde(rename = "s", default)]
    state: u8,
    #[serde(rename = "a", default, skip_serializing_if = "String::is_empty")]
    name: String,
    #[serde(rename = "g", default, skip_serializing_if = "String::is_empty")]
    region: String,
    #[serde(rename = "v", default, skip_serializing_if = "String::is_empty")]
    version: String,
    #[serde(rename = "b", default)]
    started_at_unix_ms: u64,
    #[serde(rename = "d", default, skip_serializing_if = "Vec::is_empty")]
    addresses: Vec<Blob>,
    #[serde(rename = "h", default, skip_serializing_if = "Vec::is_empty")]
    devices: Vec<String>,
    #[serde(rename = "x", default)]
    memory_total_bytes: u64,
    #[serde(rename = "f", default)]
    memory_free_bytes: u64,
    /// Bandwidth and threads.
    #[serde(rename = "c", default, skip_serializing_if = "Option::is_none")]
    compute: Option<(u32, u32)>,
    #[serde(rename = "o", default, skip_serializing_if = "Vec::is_empty")]
    serving: Vec<WireServed>,
    #[serde(rename = "w", default, skip_serializing_if = "Vec::is_empty")]
    wanted: Vec<WireModel>,
    #[serde(rename = "k", default, skip_serializing_if = "Vec::is_empty")]
    local: Vec<WireModel>,
    #[serde(rename = "e", default, skip_serializing_if = "Vec::is_empty")]
    rates: Vec<WireRate>,
    #[serde(rename = "y", default, skip_serializing_if = "Vec::is_empty")]
    splits: Vec<WireSplit>,
}

#[derive(Serialize, Deserialize)]
struct WireModel {
    #[serde(rename = "n")]
    name: String,
    #[serde(rename = "f", default, skip_serializing_if = "String::is_empty")]
    fingerprint: String,
    #[serde(rename = "s", default, skip_serializing_if = "is_zero_u64")]
    size_bytes: u64,
    #[serde(rename = "c", default, skip_serializing_if = "is_zero_u32")]
    context_length: u32,
    #[serde(rename = "d", default, skip_serializing_if = "is_false")]
    draft: bool,
    #[serde(rename = "e", default, skip_serializing_if = "is_false")]
    embeds: bool,
}

#[derive(Serialize, Deserialize)]
struct WireServed {
    #[serde(rename = "m")]
    model: WireModel,
    #[serde(rename = "s", default, skip_serializing_if = "is_zero_u32")]
    slots: u32,
    #[serde(rename = "b", default, skip_serializing_if = "is_zero_u32")]
    busy: u32,
    #[serde(rename = "q", default, skip_serializing_if = "is_zero_u32")]
    queued: u32,
}

#[derive(Serialize, Deserialize)]
struct WireSplit {
    #[serde(rename = "m")]
    model: WireModel,
    #[serde(rename = "s", default, skip_serializing_if = "is_zero_u32")]
    slots: u32,
    #[serde(rename = "t", default, skip_serializing_if = "is_zero_u32")]
    term: u32,
    #[serde(rename = "g", default, skip_serializing_if = "is_zero_u8")]
    stage: u8,
    #[serde(rename = "f", default, skip_serializing_if = "is_false")]
    forced: bool,
    #[serde(rename = "b", default, skip_serializing_if = "is_zero_u64")]
    host_bytes: u64,
}

/// Also part of a table pull, where clients tell their demand.
#[derive(Serialize, Deserialize)]
pub(crate) struct WireRate {
    #[serde(rename = "m")]
    model: String,
    #[serde(rename = "r")]
    per_minute: f32,
}

// The signatures are serde's.
#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero_u8(value: &u8) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero_u32(value: &u32) -> bool {
    *value == 0
}

#[expect(clippy::trivially_copy_pass_by_ref)]
fn is_zero_u64(value: &u64) -> bool {
    *value == 0
}

impl From<&Announcement> for Body {
    fn from(a: &Announcement) -> Self {
        Self {
            mesh: a.mesh.into(),
            node: a.node.into(),
            incarnation: a.incarnation,
            sequence: a.sequence,
            ttl_ms: a.ttl_ms,
            leaving: a.leaving,
            role: match a.role {
                Role::Serve => 0,
                Role::Client => 1,
            },
            round_trips: a.round_trips.iter().map(|r| (r.peer, r.us)).collect(),
            state: state_number(a.info.state),
            name: a.info.name.clone(),
            region: a.info.region.clone(),
            version: a.info.version.clone(),
            started_at_unix_ms: a.info.started_at_unix_ms,
            addresses: a.info.addresses.iter().cloned().map(Blob).collect(),
            devices: a.info.devices.clone(),
            memory_total_bytes: a.info.memory_total_bytes,
            memory_free_bytes: a.info.memory_free_bytes,
            compute: a.info.compute.map(|c| (c.bandwidth_mb_s, c.threads)),
            serving: a.info.serving.iter().map(WireServed::from).collect(),
            wanted: a.info.wanted.iter().map(WireModel::from).collect(),
            local: a.info.local.iter().map(WireModel::from).collect(),
            rates: a.info.rates.iter().map(WireRate::from).collect(),
            splits: a.info.splits.iter().map(WireSplit::from).collect(),
        }
    }
}

impl Body {
    pub(super) fn into_announcement(self) -> Result<Announcement, OutOfBounds> {
        limit(self.incarnation <= COUNTER_MAX, "incarnation")?;
        limit(self.sequence <= COUNTER_MAX, "sequence")?;
        limit((TTL_MS_MIN..=TTL_MS_MAX).contains(&self.ttl_ms), "ttl")?;
        limit(self.round_trips.len() <= ROUND_TRIPS_MAX, "round trips")?;
        Ok(Announcement {
            mesh: self.mesh.into(),
            node: self.node.into(),
            incarnation: self.incarnation,
            sequence: self.sequence,
            ttl_ms: self.ttl_ms,
            leaving: self.leaving,
            role: match self.role {
                0 => Role::Serve,
                1 => Role::Client,
                _ => return Err("role"),
            },
            round_trips: (self.round_trips.iter())
                .map(|&(peer, us)| RoundTrip { peer, us })
                .collect(),
            info: NodeInfo {
                state: state_of(self.state).ok_or("state")?,
                name: text(self.name, NAME_BYTES_MAX, "name")?,
                region: text(self.region, REGION_BYTES_MAX, "region")?,
                version: text(self.version, VERSION_BYTES_MAX, "version")?,
                started_at_unix_ms: self.started_at_unix_ms,
                addresses: list(self.addresses, ADDRESSES_MAX, "addresses", |Blob(a)| {
                    limit(a.len() <= ADDRESS_BYTES_MAX, "address").map(|()| a)
                })?,
                devices: list(self.devices, DEVICES_MAX, "devices", |d| {
                    text(d, DEVICE_BYTES_MAX, "device")
                })?,
                memory_total_bytes: self.memory_total_bytes,
                memory_free_bytes: self.memory_free_bytes,
                compute: self.compute.map(|(bandwidth_mb_s, threads)| Compute {
                    bandwidth_mb_s,
                    threads,
                }),
                serving: list(self.serving, SERVING_MODELS_MAX, "serving", served)?,
                wanted: list(self.wanted, WANTED_MODELS_MAX, "wanted", model)?,
                local: list(self.local, LOCAL_MODELS_MAX, "local", model)?,
                rates: rates(self.rates)?,
                splits: list(self.splits, SPLIT_MODELS_MAX, "splits", split)?,
            },
        })
    }
}

/// The domain form of `wire`, if it keeps its limits.
pub(crate) fn rates(wire: Vec<WireRate>) -> Result<Vec<ModelRate>, OutOfBounds> {
    list(wire, RATES_MAX, "rates", |rate| {
        let fine = rate.per_minute.is_finite() && rate.per_minute >= 0.0;
        limit(fine, "rate")?;
        Ok(ModelRate {
            model: text(rate.model, MODEL_NAME_BYTES_MAX, "rate")?,
            per_minute: rate.per_minute,
        })
    })
}

fn model(wire: WireModel) -> Result<Model, OutOfBounds> {
    Ok(Model {
        name: text(wire.name, MODEL_NAME_BYTES_MAX, "model name")?,
        fingerprint: text(wire.fingerprint, FINGERPRINT_BYTES_MAX, "fingerprint")?,
        size_bytes: wire.size_bytes,
        context_length: wire.context_length,
        draft: wire.draft,
        embeds: wire.embeds,
    })
}

fn served(wire: WireServed) -> Result<ServedModel, OutOfBounds> {
    Ok(ServedModel {
        model: model(wire.model)?,
        slots: wire.slots,
        busy: wire.busy,
        queued: wire.queued,
    })
}

fn split(wire: WireSplit) -> Result<SplitModel, OutOfBounds> {
    Ok(SplitModel {
        model: model(wire.model)?,
        slots: wire.slots,
        term: wire.term,
        stage: match wire.stage {
            0 => SplitStage::Waiting,
            1 => SplitStage::Coming,
            2 => SplitStage::Ready,
            _ => return Err("stage"),
        },
        forced: wire.forced,
        host_bytes: wire.host_bytes,
    })
}

fn limit(fine: bool, field: OutOfBounds) -> Result<(), OutOfBounds> {
    if fine { Ok(()) } else { Err(field) }
}

fn text(value: String, bytes_max: usize, field: OutOfBounds) -> Result<String, OutOfBounds> {
    limit(value.len() <= bytes_max, field).map(|()| value)
}

fn list<T, U>(
    values: Vec<T>,
    len_max: usize,
    field: OutOfBounds,
    convert: impl FnMut(T) -> Result<U, OutOfBounds>,
) -> Result<Vec<U>, OutOfBounds> {
    limit(values.len() <= len_max, field)?;
    values.into_iter().map(convert).collect()
}

impl From<&Model> for WireModel {
    fn from(model: &Model) -> Self {
        Self {
            name: model.name.clone(),
            fingerprint: model.fingerprint.clone(),
            size_bytes: model.size_bytes,
            context_length: model.context_length,
            draft: model.draft,
            embeds: model.embeds,
        }
    }
}

impl From<&ServedModel> for WireServed {
    fn from(served: &ServedModel) -> Self {
        Self {
            model: (&served.model).into(),
            slots: served.slots,
            busy: served.busy,
            queued: served.queued,
        }
    }
}

impl From<&SplitModel> for WireSplit {
    fn from(split: &SplitModel) -> Self {
        Self {
            model: (&split.model).into(),
            slots: split.slots,
            term: split.term,
            stage: match split.stage {
                SplitStage::Waiting => 0,
                SplitStage::Coming => 1,
                SplitStage::Ready => 2,
            },
            forced: split.forced,
            host_bytes: split.host_bytes,
        }
    }
}

impl From<&ModelRate> for WireRate {
    fn from(rate: &ModelRate) -> Self {
        Self {
            model: rate.model.clone(),
            per_minute: rate.per_minute,
        }
    }
}

fn state_number(state: NodeState) -> u8 {
    match state {
        NodeState::Serving => 0,
        NodeState::Standby => 1,
        NodeState::Client => 2,
        NodeState::Idle => 3,
        NodeState::Joining => 4,
    }
}

fn state_of(number: u8) -> Option<NodeState> {
    Some(match number {
        0 => NodeState::Serving,
        1 => NodeState::Standby,
        2 => NodeState::Client,
        3 => NodeState::Idle,
        4 => NodeState::Joining,
        _ => return None,
    })
}
