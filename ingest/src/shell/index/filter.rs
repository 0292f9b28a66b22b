//! A set that may say yes too often, and never no too often: a split block Bloom filter, as Parquet's.

use super::hash::Hash;

/// Bits of a filter for each key. Of keys that are not in it, about one in 150 is taken for one that is, which costs a
/// read of the file: several times as much as asking a dozen filters.
const BITS_A_KEY: usize = 12;
const BLOCK_BITS: usize = 256;
const BLOCK_BYTES: usize = BLOCK_BITS / 8;
/// Odd numbers, one for each word of a block (Parquet's).
const SALT: [u32; 8] = [
    0x47b6_137b,
    0x4497_4d91,
    0x8824_ad5b,
    0xa2b7_289d,
    0x7054_95c7,
    0x2df1_424b,
    0x9efc_4947,
    0x5c6b_fb31,
];

/// Half a line of a core's cache: one key is looked for in one of them.
#[derive(Clone, Copy, Debug, Default)]
#[repr(align(32))]
struct Block([u32; 8]);

/// Keys that may be there.
#[derive(Debug)]
pub(super) struct Filter {
    blocks: Vec<Block>,
}

impl Filter {
    /// For so many keys.
    pub(super) fn new(keys: usize) -> Filter {
        Filter { blocks: vec![Block::default(); (keys * BITS_A_KEY).div_ceil(BLOCK_BITS).max(1)] }
    }

    /// A filter as it was written; `None` if the bytes are none.
    pub(super) fn read(bytes: &[u8]) -> Option<Filter> {
        let (words, odd) = bytes.as_chunks::<BLOCK_BYTES>();
        let block = |bytes: &[u8; BLOCK_BYTES]| {
            let mut block = Block::default();
            for (word, bytes) in block.0.iter_mut().zip(bytes.as_chunks().0) {
                *word = u32::from_le_bytes(*bytes);
            }
            block
        };
        (odd.is_empty() && !words.is_empty())
            .then(|| Filter { blocks: words.iter().map(block).collect() })
    }

    pub(super) fn write_to(&self, bytes: &mut Vec<u8>) {
        let words = self.blocks.iter().flat_map(|block| block.0);
        bytes.extend(words.flat_map(u32::to_le_bytes));
    }

    pub(super) fn bytes(&self) -> usize {
        self.blocks.len() * BLOCK_BYTES
    }

    pub(super) fn insert(&mut self, hash: Hash) {
        let at = self.block_of(hash);
        for (word, bit) in self.blocks[at].0.iter_mut().zip(bits(hash)) {
            *word |= bit;
        }
    }

    pub(super) fn may_hold(&self, hash: Hash) -> bool {
        let block = &self.blocks[self.block_of(hash)];
        // All words: at which of them it can be told that a key is not there, no core foretells.
        let words = block.0.iter().zip(bits(hash));
        words.fold(0, |missing, (word, bit)| missing | (!word & bit)) == 0
    }

    fn block_of(&self, hash: Hash) -> usize {
        // The upper half, as a part of one, of all blocks: there are far fewer than 2^32.
        (((hash.get() >> 32) * self.blocks.len() as u64) >> 32) as usize
    }
}

fn bits(hash: Hash) -> [u32; 8] {
    let lower = hash.get() as u32;
    SALT.map(|salt| 1 << (lower.wrapping_mul(salt) >> 27))
}

#[cfg(test)]
mod tests {
    use super::super::hash::mixed;
    use super::super::known::Key;
    use super::*;

    fn key(device: u64, number: u64) -> Key {
        let mut key = [0; 20];
        key[..8].copy_from_slice(&mixed(device).to_be_bytes());
        key[12..].copy_from_slice(&number.to_be_bytes());
        key
    }

    #[test]
    fn holds_what_it_was_given_and_little_else() {
        const DEVICES: u64 = 300;
        const REPORTS: u64 = 200;
        let mut filter = Filter::new((DEVICES * REPORTS) as usize);
        let given = (0..DEVICES).flat_map(|d| (0..REPORTS).map(move |n| key(d, n)));
        for key in given.clone() {
            filter.insert(Hash::of(&key));
        }
        assert!(given.into_iter().all(|key| filter.may_hold(Hash::of(&key))));
        // The same devices, other reports; and other devices.
        let others = (0..2 * DEVICES).flat_map(|d| (REPORTS..2 * REPORTS).map(move |n| key(d, n)));
        let (mut all, mut wrong) = (0, 0);
        for key in others {
            all += 1;
            wrong += usize::from(filter.may_hold(Hash::of(&key)));
        }
        assert!(wrong * 40 < all, "{wrong} of {all}");
        assert!(!Filter::new(0).may_hold(Hash::of(&key(1, 1))));
    }
}
