//! RSA PKCS#1 v1.5 with SHA-256 (RFC 8017, 8.2.2): `s^65537 mod n` of eight signatures at once,
//! each with a key of its own, compared with the whole encoded message.

use std::arch::x86_64::__m512i;

use fearless_simd::Avx512;
use num_bigint::BigUint;

use super::der::{self, BIT_STRING, INTEGER, SEQUENCE};
use super::limbs::{
    LANES, LIMB_BITS, LIMB_MASK, Lanes, by_eight, is_below, lane, limbs_of, limbs_of_be, load,
    load_all, montgomery_product, negative_inverse, set_lane, store_all,
};

/// Limbs of the numbers, by which keys are kept apart: for moduli of up to 2048, 3072 and 4096 bits,
/// with two bits to spare (see [`montgomery_product`]).
const SIZES: [usize; 3] = [40, 60, 80];
const SPARE_BITS: u64 = 2;
/// The one exponent that these checks compute, in DER. Nearly all keys have it.
const EXPONENT: &[u8] = &[0x01, 0x00, 0x01];
/// `DigestInfo` of a SHA-256 digest up to the digest (RFC 8017, 9.2).
const DIGEST_INFO: &[u8] = &[
    0x30, 0x31, 0x30, 0x0d, 0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01, 0x05,
    0x00, 0x04, 0x20,
];
const MODULUS_BYTES_MAX: usize = 512;

/// A public key with the exponent 65537.
pub struct Key {
    modulus_bytes: usize,
    /// Limbs of the modulus, then those of `R²` modulo it.
    limbs: Box<[u64]>,
    /// `-1/n` modulo 2^52.
    n0: u64,
}

impl Key {
    pub(super) fn new(spki: &[u8]) -> Option<Key> {
        let modulus = modulus_of(spki)?;
        let n = BigUint::from_bytes_be(modulus);
        let is_odd = n.bit(0);
        let size = SIZES
            .into_iter()
            .find(|size| n.bits() + SPARE_BITS <= (size * LIMB_BITS) as u64)
            .filter(|_| is_odd && (2048..=4096).contains(&n.bits()))?;
        let r_squared = (BigUint::from(1u8) << (2 * size * LIMB_BITS)) % &n;
        let limbs = |number: &BigUint| -> Vec<u64> {
            let bytes = number.to_bytes_le();
            limbs_of::<LIMB_BITS, { SIZES[2] }>(&bytes)[..size].to_vec()
        };
        let limbs = [limbs(&n), limbs(&r_squared)].concat().into_boxed_slice();
        let n0 = negative_inverse(limbs[0]);
        Some(Key { modulus_bytes: modulus.len(), limbs, n0 })
    }

    fn size(&self) -> usize {
        self.limbs.len() / 2
    }

    /// The modulus, and `R²` modulo it, of a key of `L` limbs.
    fn numbers<const L: usize>(&self) -> Option<(&[u64; L], &[u64; L])> {
        let (n, r_squared) = self.limbs.split_at(self.size());
        Some((n.try_into().ok()?, r_squared.try_into().ok()?))
    }
}

/// The modulus of a key with the exponent 65537. Only the one form of DER that such keys have is read
/// (RFC 5280, 4.1; RFC 8017, A.1.1); of another, nothing is known here.
fn modulus_of(spki: &[u8]) -> Option<&[u8]> {
    const RSA_ENCRYPTION: &[u8] =
        &[0x30, 0x0d, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0x00];
    let (body, nothing) = der::element(spki, SEQUENCE)?;
    let (bits, after) = der::element(body.strip_prefix(RSA_ENCRYPTION)?, BIT_STRING)?;
    let (numbers, behind) = der::element(bits.strip_prefix(&[0])?, SEQUENCE)?;
    let (modulus, exponent) = der::element(numbers, INTEGER)?;
    let (exponent, rest) = der::element(exponent, INTEGER)?;
    let whole = [nothing, after, behind, rest].iter().all(|left| left.is_empty());
    let modulus = der::natural(modulus)?;
    // The encoded message is compared in whole bytes, so that the modulus must have its highest bit.
    (whole && exponent == EXPONENT && modulus[0] & 0x80 != 0).then_some(modulus)
}

/// A signature to be checked.
pub(super) struct Check<'a> {
    pub key: &'a Key,
    pub sha256: &'a [u8; 32],
    pub signature: &'a [u8],
}

/// Tells of those of the signatures that verify, by the number beside each.
pub(super) fn verify(here: Avx512, checks: &[(usize, Check<'_>)], found: &mut dyn FnMut(usize)) {
    let mut of_size = |size: usize, together: &dyn Fn(&[&Check<'_>]) -> [bool; LANES]| {
        by_eight(checks.iter().filter(|(_, check)| check.key.size() == size), found, together);
    };
    of_size(SIZES[0], &|checks| verify_lanes(checks, |lanes| public_40(here, lanes)));
    of_size(SIZES[1], &|checks| verify_lanes(checks, |lanes| public_60(here, lanes)));
    of_size(SIZES[2], &|checks| verify_lanes(checks, |lanes| public_80(here, lanes)));
}

/// What the computation takes of each lane.
struct Operands<const L: usize> {
    signature: Lanes<L>,
    n: Lanes<L>,
    r_squared: Lanes<L>,
    n0: [u64; LANES],
}

fn verify_lanes<const L: usize>(
    checks: &[&Check<'_>],
    public: impl Fn(&Operands<L>) -> Lanes<L>,
) -> [bool; LANES] {
    let zero = [[0; LANES]; L];
    let mut lanes = Operands { signature: zero, n: zero, r_squared: zero, n0: [0; LANES] };
    // A lane without a signature computes with zeros.
    let mut expected: [Option<[u64; L]>; LANES] = [None; LANES];
    for (i, check) in checks.iter().enumerate() {
        let key = check.key;
        let Some((n, r_squared)) = key.numbers::<L>() else { continue };
        let Some(signature) = representative(check.signature, key.modulus_bytes, n) else {
            continue;
        };
        set_lane(&mut lanes.signature, i, &signature);
        set_lane(&mut lanes.n, i, n);
        set_lane(&mut lanes.r_squared, i, r_squared);
        lanes.n0[i] = key.n0;
        expected[i] = Some(encoded_message(check.sha256, key.modulus_bytes));
    }
    let results = public(&lanes);
    std::array::from_fn(|i| {
        expected[i].is_some_and(|expected| {
            let result = lane(&results, i);
            result == expected || result == sum(&expected, &lane(&lanes.n, i))
        })
    })
}

/// A signature as a number, which has the modulus's length and is below it (RFC 8017, 5.2.2).
fn representative<const L: usize>(
    signature: &[u8],
    modulus_bytes: usize,
    n: &[u64; L],
) -> Option<[u64; L]> {
    let number = (signature.len() == modulus_bytes).then(|| limbs_of_be::<LIMB_BITS, L>(signature));
    number.filter(|number| is_below(number, n))
}

/// The encoded message: 0, 1, bytes of ones, 0, `DigestInfo` (RFC 8017, 9.2).
fn encoded_message<const L: usize>(sha256: &[u8; 32], modulus_bytes: usize) -> [u64; L] {
    let mut message = [0xff; MODULUS_BYTES_MAX];
    let message = &mut message[..modulus_bytes];
    let info = modulus_bytes - DIGEST_INFO.len() - sha256.len();
    message[0] = 0;
    message[1] = 1;
    message[info - 1] = 0;
    message[info..info + DIGEST_INFO.len()].copy_from_slice(DIGEST_INFO);
    message[modulus_bytes - sha256.len()..].copy_from_slice(sha256);
    limbs_of_be::<LIMB_BITS, L>(message)
}

fn sum<const L: usize>(a: &[u64; L], b: &[u64; L]) -> [u64; L] {
    let mut carry = 0;
    std::array::from_fn(|i| {
        let sum = a[i] + b[i] + carry;
        carry = sum >> LIMB_BITS;
        sum & LIMB_MASK
    })
}

/// `s^65537` modulo each key's modulus, to which that may have been added once.
#[target_feature(enable = "avx512f,avx512ifma")]
#[inline]
fn public<const L: usize>(
    signature: &[__m512i; L],
    r_squared: &[__m512i; L],
    n: &[__m512i; L],
    n0: __m512i,
) -> [__m512i; L] {
    let mut power = montgomery_product(signature, r_squared, n, n0);
    for _ in 0..16 {
        power = montgomery_product(&power, &power, n, n0);
    }
    // The last factor takes the power out of Montgomery's form.
    montgomery_product(&power, signature, n, n0)
}

/// The library's macro takes functions without parameters of type, so there is one of each size.
macro_rules! public_of_size {
    ($name:ident, $limbs:literal) => {
        fearless_simd::kernel!(
            fn $name(here: Avx512, lanes: &Operands<$limbs>) -> Lanes<$limbs> {
                let [signature, r_squared, n] = [&lanes.signature, &lanes.r_squared, &lanes.n]
                    .map(|lanes| load_all(here, lanes));
                store_all(here, public(&signature, &r_squared, &n, load(here, &lanes.n0)))
            }
        );
    };
}

public_of_size!(public_40, 40);
public_of_size!(public_60, 60);
public_of_size!(public_80, 80);

#[cfg(test)]
mod tests;
