//! Hashes of keys: one for the filters on the disk, and one of each process for its table in memory.

use std::hash::{BuildHasher, Hasher, RandomState};

use super::known::Key;

/// Of a key.
#[derive(Clone, Copy, Debug)]
pub(super) struct Hash(u64);

impl Hash {
    /// Keys begin with a digest; their last eight bytes are a number that counts up.
    pub(super) fn of(key: &Key) -> Hash {
        Hash::with(0, key)
    }

    /// Another one for each seed.
    fn with(seed: u64, key: &Key) -> Hash {
        let mut halves = [[0; 8]; 2];
        halves[0].copy_from_slice(&key[..8]);
        halves[1].copy_from_slice(&key[12..]);
        let [device, number] = halves.map(u64::from_le_bytes);
        Hash(mixed(device ^ mixed(number ^ seed)))
    }

    pub(super) fn get(self) -> u64 {
        self.0
    }
}

/// The finalizer of MurmurHash3.
pub(super) fn mixed(mut x: u64) -> u64 {
    x ^= x >> 33;
    x = x.wrapping_mul(0xff51_afd7_ed55_8ccd);
    x ^= x >> 33;
    x = x.wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    x ^ (x >> 33)
}

/// Keys are digests and numbers, so little has to be done to spread them. Anybody may choose the numbers, so each
/// process spreads them by a secret of its own.
#[derive(Clone)]
pub struct Seeded(u64);

impl Default for Seeded {
    fn default() -> Self {
        Seeded(RandomState::new().hash_one(()))
    }
}

impl BuildHasher for Seeded {
    type Hasher = OfKey;

    fn build_hasher(&self) -> OfKey {
        OfKey { seed: self.0, hash: 0 }
    }
}

pub struct OfKey {
    seed: u64,
    hash: u64,
}

impl Hasher for OfKey {
    fn write(&mut self, bytes: &[u8]) {
        if let Ok(key) = <&Key>::try_from(bytes) {
            self.hash = Hash::with(self.seed, key).get();
        }
    }

    // The length of the array, which is always the same.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.hash
    }
}
