//! Owns the limits of an announcement. Every number says why it is that number.

/// Most bytes of a signed announcement. The longest legal one of ordinary length, with all lists
/// half full, takes about 6 KiB; a usual one 600 bytes.
pub const ANNOUNCEMENT_BYTES_MAX: usize = 12 * 1024;

/// Most bytes of a node's name: a line of a table.
pub const NAME_BYTES_MAX: usize = 64;

/// Most bytes of a region.
pub const REGION_BYTES_MAX: usize = 32;

/// Most bytes of the program's version, with a commit behind it.
pub const VERSION_BYTES_MAX: usize = 48;

/// Most addresses: some interfaces with two address families each, and a relay.
pub const ADDRESSES_MAX: usize = 8;

/// Most bytes of an address: a relay's URL is the longest kind.
pub const ADDRESS_BYTES_MAX: usize = 128;

/// Most devices: a machine with eight accelerators, its processor, and some room.
pub const DEVICES_MAX: usize = 16;

/// Most bytes of a device's description.
pub const DEVICE_BYTES_MAX: usize = 64;

/// Most models that one node serves at a time; memory ends before.
pub const SERVING_MODELS_MAX: usize = 8;

/// Most models that one node hosts over several machines at a time: each takes the memory of some.
pub const SPLIT_MODELS_MAX: usize = 4;

/// Most models that one node asks for.
pub const WANTED_MODELS_MAX: usize = 8;

/// Most models on disk that are told. People with more have the first ones told.
pub const LOCAL_MODELS_MAX: usize = 24;

/// Most bytes of a model's name: an organisation, a repository and a file's name.
pub const MODEL_NAME_BYTES_MAX: usize = 128;

/// Most bytes of a fingerprint: a hash of 32 bytes in hex with a prefix.
pub const FINGERPRINT_BYTES_MAX: usize = 80;

/// Most models whose demand one node tells.
pub const RATES_MAX: usize = 16;

/// Most peers to which round trips are told: about as many as a node has neighbours.
pub const ROUND_TRIPS_MAX: usize = 8;

/// Longest time that an announcement holds, in milliseconds. The slowest refresh, at the largest
/// mesh, is a quarter of it.
pub const TTL_MS_MAX: u64 = 30 * 60 * 1000;

/// Shortest time that an announcement holds, in milliseconds: a few heartbeats.
pub const TTL_MS_MIN: u64 = 30 * 1000;

/// Largest incarnation and sequence. Unix milliseconds reach it in the year 10,889 or later;
/// below it, adding one never overflows.
pub const COUNTER_MAX: u64 = 1 << 48;
