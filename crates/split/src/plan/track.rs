//! Running sums over a model's legal cuts, so that any stage's memory and time cost two look-ups.

use std::ops::Range;

use super::memory::{Room, TENTHS, weight_tenths};
use super::shape::ModelShape;

/// Sums up to each legal cut. A stage is a range of indices into them.
#[derive(Debug)]
pub(super) struct Track {
    /// Layer numbers: 0, the cuts, the number of layers.
    points: Vec<u32>,
    tenths: Vec<u128>,
    active: Vec<u128>,
    weights: Vec<u64>,
    kv: Vec<u64>,
    /// What the host keeps beside its layers, in tenths of a byte and in bytes.
    host_tenths: u128,
    host_bytes: u64,
    head_active: u128,
}

impl Track {
    pub(super) fn new(model: &ModelShape, room: Room) -> Self {
        let parts = model.parts();
        let mut points = vec![0];
        points.extend(&parts.cuts);
        points.push(model.layer_count());
        let host_bytes = parts.embedding_bytes + parts.head_bytes;
        let mut track = Self {
            tenths: vec![0],
            active: vec![0],
            weights: vec![0],
            kv: vec![0],
            host_tenths: weight_tenths(host_bytes),
            host_bytes,
            head_active: parts.head_active_bytes.into(),
            points,
        };
        let (mut tenths, mut active, mut weights, mut kv) = (0, 0, 0, 0u64);
        for ends in track.points.windows(2) {
            for layer in &parts.layers[ends[0] as usize..ends[1] as usize] {
                tenths += layer.tenths(room);
                active += u128::from(layer.active_bytes);
                weights += layer.weight_bytes;
                kv = kv.saturating_add(layer.kv_bytes(room));
            }
            track.tenths.push(tenths);
            track.active.push(active);
            track.weights.push(weights);
            track.kv.push(kv);
        }
        track
    }

    /// Number of pieces between cuts: the most stages that there can be.
    pub(super) fn pieces(&self) -> usize {
        self.points.len() - 1
    }

    /// The cut before a layer, if a stage may begin there or end before it.
    pub(super) fn cut(&self, layer: u32) -> Option<usize> {
        self.points.binary_search(&layer).ok()
    }

    pub(super) fn layers(&self, stage: Range<usize>) -> Range<u32> {
        self.points[stage.start]..self.points[stage.end]
    }

    pub(super) fn tenths(&self, stage: Range<usize>) -> u128 {
        self.tenths[stage.end] - self.tenths[stage.start]
    }

    pub(super) fn active(&self, stage: Range<usize>) -> u128 {
        self.active[stage.end] - self.active[stage.start]
    }

    /// Active bytes of all layers before a cut.
    pub(super) fn active_before(&self, point: usize) -> u128 {
        self.active[point]
    }

    pub(super) fn weights(&self, stage: Range<usize>) -> u64 {
        self.weights[stage.end] - self.weights[stage.start]
    }

    pub(super) fn kv(&self, stage: Range<usize>) -> u64 {
        self.kv[stage.end].saturating_sub(self.kv[stage.start])
    }

    pub(super) fn host_tenths(&self) -> u128 {
        self.host_tenths
    }

    pub(super) fn host_bytes(&self) -> u64 {
        self.host_bytes
    }

    pub(super) fn head_active(&self) -> u128 {
        self.head_active
    }

    /// Tenths of a byte of the whole model.
    pub(super) fn needed(&self) -> u128 {
        self.tenths(0..self.pieces()) + self.host_tenths
    }
}

/// Whole bytes that hold so many tenths.
pub(super) fn bytes(tenths: u128) -> u64 {
    u64::try_from(tenths.div_ceil(TENTHS)).unwrap_or(u64::MAX)
}
