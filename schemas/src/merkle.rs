//! Merkle trees as RFC 6962 (2.1) hashes them, over SHA-256: what a line stands on, and the lines of a
//! period, each in one root that a stranger can compute again.

use std::fmt;

use aws_lc_rs::digest::{Context, SHA256};

use crate::hex::hex;

/// A SHA-256 value, written in lower-case hexadecimal.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Hash(pub [u8; 32]);

impl fmt::Display for Hash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex(&self.0))
    }
}

impl std::str::FromStr for Hash {
    type Err = String;

    /// Only the form in which it is written: 64 lower-case hexadecimal digits.
    fn from_str(s: &str) -> Result<Self, String> {
        let mut hash = [0; 32];
        let digits = s.as_bytes();
        if digits.len() != 64 {
            return Err(format!("a SHA-256 has 64 hexadecimal digits, not {}", digits.len()));
        }
        for (byte, pair) in hash.iter_mut().zip(digits.chunks(2)) {
            let digit = |c: u8| match c {
                b'0'..=b'9' => Some(c - b'0'),
                b'a'..=b'f' => Some(c - b'a' + 10),
                _ => None,
            };
            let (high, low) = digit(pair[0])
                .zip(digit(pair[1]))
                .ok_or_else(|| format!("'{s}' is no hexadecimal SHA-256"))?;
            *byte = high << 4 | low;
        }
        Ok(Hash(hash))
    }
}

fn sha256(parts: &[&[u8]]) -> Hash {
    let mut context = Context::new(&SHA256);
    for part in parts {
        context.update(part);
    }
    let mut hash = [0; 32];
    hash.copy_from_slice(context.finish().as_ref());
    Hash(hash)
}

/// SHA-256 of bytes.
#[must_use]
pub fn digest(bytes: &[u8]) -> Hash {
    sha256(&[bytes])
}

/// The hash of a leaf: SHA-256(0x00 ‖ entry).
#[must_use]
pub fn leaf(entry: &[u8]) -> Hash {
    sha256(&[&[0], entry])
}

fn node(left: &Hash, right: &Hash) -> Hash {
    sha256(&[&[1], &left.0, &right.0])
}

/// The next link of a chain: SHA-256(link before ‖ hash of the entry's leaf); the first stands on zeros.
#[must_use]
pub fn link(before: &Hash, leaf: &Hash) -> Hash {
    sha256(&[&before.0, &leaf.0])
}

/// The root of a tree; of none, the SHA-256 of nothing.
#[must_use]
pub fn root(leaves: &[Hash]) -> Hash {
    // Level by level, what is left alone goes up as it is: the same tree as the RFC's, which splits at
    // the largest power of two.
    let mut level = leaves.to_vec();
    if level.is_empty() {
        return sha256(&[]);
    }
    while level.len() > 1 {
        level = level
            .chunks(2)
            .map(|pair| match pair {
                [left, right] => node(left, right),
                alone => alone[0],
            })
            .collect();
    }
    level[0]
}

/// The audit path of a leaf: the hashes by which its root is computed, from the leaf up. `None` if there
/// is no such leaf.
#[must_use]
pub fn path(leaves: &[Hash], index: usize) -> Option<Vec<Hash>> {
    if index >= leaves.len() {
        return None;
    }
    let mut path = Vec::new();
    let (mut level, mut at) = (leaves.to_vec(), index);
    while level.len() > 1 {
        if let Some(sibling) = level.get(at ^ 1) {
            path.push(*sibling);
        }
        level = level.chunks(2).map(root).collect();
        at /= 2;
    }
    Some(path)
}

/// The root that a leaf and its audit path give in a tree of so many leaves (RFC 9162, 2.1.3.2). `None`
/// if the path does not fit.
#[must_use]
pub fn root_by_path(leaf: Hash, index: usize, size: usize, path: &[Hash]) -> Option<Hash> {
    let (mut at, mut last) = (index, size.checked_sub(1)?);
    if at > last {
        return None;
    }
    let mut hash = leaf;
    for sibling in path {
        if last == 0 {
            return None;
        }
        if at % 2 == 1 || at == last {
            hash = node(sibling, &hash);
            while at % 2 == 0 && at != 0 {
                (at, last) = (at / 2, last / 2);
            }
        } else {
            hash = node(&hash, sibling);
        }
        (at, last) = (at / 2, last / 2);
    }
    (last == 0).then_some(hash)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The definition of RFC 6962, 2.1.
    fn by_definition(leaves: &[Hash]) -> Hash {
        match leaves {
            [] => sha256(&[]),
            [one] => *one,
            _ => {
                let k = leaves.len().next_power_of_two() / 2;
                node(&by_definition(&leaves[..k]), &by_definition(&leaves[k..]))
            }
        }
    }

    /// The test vectors of the reference implementation of RFC 6962 (certificate-transparency).
    #[test]
    fn roots_are_those_of_the_reference_implementation() {
        let entries: [&[u8]; 8] = [
            b"",
            b"\x00",
            b"\x10",
            b"\x20\x21",
            b"\x30\x31",
            b"\x40\x41\x42\x43",
            b"\x50\x51\x52\x53\x54\x55\x56\x57",
            b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
        ];
        let leaves: Vec<Hash> = entries.iter().map(|entry| leaf(entry)).collect();
        for (n, expected) in [
            (0, "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"),
            (1, "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"),
            (2, "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125"),
            (8, "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328"),
        ] {
            assert_eq!(root(&leaves[..n]).to_string(), expected, "{n} leaves");
        }
    }

    proptest! {
        #[test]
        fn every_leaf_leads_to_the_root_by_its_path_alone(n in 1usize..70) {
            let leaves: Vec<Hash> = (0..n).map(|i| leaf(&i.to_be_bytes())).collect();
            let expected = by_definition(&leaves);
            prop_assert_eq!(root(&leaves), expected);
            for (i, of_leaf) in leaves.iter().enumerate() {
                let path = path(&leaves, i).unwrap_or_default();
                prop_assert_eq!(root_by_path(*of_leaf, i, n, &path), Some(expected));
                let other = leaf(b"another");
                prop_assert_ne!(root_by_path(other, i, n, &path), Some(expected));
            }
            prop_assert_eq!(path(&leaves, n), None);
        }
    }
}
