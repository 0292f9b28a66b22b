//! RSA PKCS#1 v1.5 with SHA-256 (RFC 8017, 8.2.2): `s^65537 mod n` of eight signatures at once,
//! each with a key of its own, compared with the whole encoded message.

use std::arch::x86_64::__m512i;

use fearless_simd::Avx512;
use num_bigint::BigUint;

use super::der::{self, BIT_STRING, INTEGER, SEQUENCE};
use super::limbs::{
    LANES, LIMB_BITS, LIMB_MASK, Lanes, lane, limbs_of, load, montgomery_product, negative_inverse,
    set_lane, store,
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
            limbs_of::<{ SIZES[2] }>(&bytes)[..size].to_vec()
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

/// The modulus of a key with the exponent 65537. Only the one form of DER that
/// such keys have is read (RFC 5280, 4.1; RFC 8017, A.1.1); of another, nothing is known here.
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
        let checks: Vec<_> = checks.iter().filter(|(_, check)| check.key.size() == size).collect();
        // One alone is not faster here.
        for checks in checks.chunks(LANES).filter(|checks| checks.len() > 1) {
            let of_lanes: Vec<&Check<'_>> = checks.iter().map(|(_, check)| check).collect();
            let verified = checks.iter().zip(together(&of_lanes)).filter(|(_, verified)| *verified);
            verified.for_each(|((place, _), _)| found(*place));
        }
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
    let number = (signature.len() == modulus_bytes).then(|| limbs_of_be(signature))?;
    number.iter().rev().lt(n.iter().rev()).then_some(number)
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
    limbs_of_be(message)
}

fn limbs_of_be<const L: usize>(bytes: &[u8]) -> [u64; L] {
    let mut reversed = [0; MODULUS_BYTES_MAX];
    let reversed = &mut reversed[..bytes.len()];
    reversed.copy_from_slice(bytes);
    reversed.reverse();
    limbs_of(reversed)
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
                let load = |lanes: &[u64; LANES]| load(here, lanes);
                let signature = lanes.signature.each_ref().map(load);
                let r_squared = lanes.r_squared.each_ref().map(load);
                let n = lanes.n.each_ref().map(load);
                public(&signature, &r_squared, &n, load(&lanes.n0)).map(|limb| store(here, limb))
            }
        );
    };
}

public_of_size!(public_40, 40);
public_of_size!(public_60, 60);
public_of_size!(public_80, 80);

#[cfg(test)]
mod tests {
    use aws_lc_rs::digest::{SHA256, digest};
    use aws_lc_rs::encoding::AsDer as _;
    use aws_lc_rs::rand::SystemRandom;
    use aws_lc_rs::rsa::{KeyPair, KeySize};
    use aws_lc_rs::signature::{KeyPair as _, RSA_PKCS1_SHA256};
    use fearless_simd::Level;
    use proptest::prelude::*;
    use schemas::key::{Algorithm, parse_spki};

    use super::*;

    struct Signer {
        pair: KeyPair,
        spki: Vec<u8>,
    }

    impl Signer {
        fn new(size: KeySize) -> Signer {
            let pair = KeyPair::generate(size).unwrap();
            let spki = pair.public_key().as_der().unwrap().as_ref().to_vec();
            Signer { pair, spki }
        }

        fn sign(&self, message: &[u8]) -> Vec<u8> {
            let mut signature = vec![0; self.pair.public_modulus_len()];
            let random = SystemRandom::new();
            self.pair.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
            signature
        }
    }

    fn sha256(message: &[u8]) -> [u8; 32] {
        digest(&SHA256, message).as_ref().try_into().unwrap()
    }

    /// Every signature is found to verify where aws-lc says so, and only there.
    #[test]
    fn nothing_else_is_found_than_aws_lc_finds() {
        let Some(here) = Level::new().as_avx512() else {
            assert!(!super::super::is_here());
            return;
        };
        let sizes = [KeySize::Rsa2048, KeySize::Rsa2048, KeySize::Rsa3072, KeySize::Rsa4096];
        let signers = sizes.map(Signer::new);
        // The signer, the message, what is held to be its signature.
        let mut cases: Vec<(usize, Vec<u8>, Vec<u8>)> = Vec::new();
        for (i, signer) in signers.iter().enumerate() {
            for text in ["", "a report", "another report"] {
                cases.push((i, text.into(), signer.sign(text.as_bytes())));
            }
            let good = signer.sign(b"a report");
            let n = BigUint::from_bytes_be(modulus_of(&signer.spki).unwrap());
            let number = BigUint::from_bytes_be(&good);
            let mut wrong: Vec<Vec<u8>> = [0, 1, 100, good.len() - 1]
                .map(|at| {
                    let mut flipped = good.clone();
                    flipped[at] ^= 1;
                    flipped
                })
                .to_vec();
            wrong.push((&number + &n).to_bytes_be());
            wrong.push((&n - &number).to_bytes_be());
            wrong.push(n.to_bytes_be());
            wrong.push((&n - 1u8).to_bytes_be());
            wrong.push(vec![0; good.len()]);
            wrong.push(vec![0xff; good.len()]);
            wrong.push(good[1..].to_vec());
            wrong.push([&[0], good.as_slice()].concat());
            wrong.push(Vec::new());
            cases.extend(wrong.into_iter().map(|wrong| (i, b"a report".to_vec(), wrong)));
            cases.push((i, b"a report!".to_vec(), good.clone()));
            cases.push(((i + 1) % signers.len(), b"a report".to_vec(), good));
        }
        let keys = signers.each_ref().map(|signer| Key::new(&signer.spki).unwrap());
        let digests: Vec<[u8; 32]> = cases.iter().map(|(_, message, _)| sha256(message)).collect();
        let checks: Vec<(usize, Check<'_>)> = cases
            .iter()
            .zip(&digests)
            .map(|((i, _, signature), sha256)| Check { key: &keys[*i], sha256, signature })
            .enumerate()
            .collect();
        let verify = |checks: &[(usize, Check<'_>)]| {
            let mut found = vec![false; checks.len()];
            verify(here, checks, &mut |place| found[place] = true);
            found
        };
        let found = verify(&checks);
        for ((i, message, signature), found) in cases.iter().zip(&found) {
            let key = parse_spki(Algorithm::Rs256, &signers[*i].spki).unwrap();
            let expected = key.verify_sig(message, signature).is_ok();
            assert_eq!(*found, expected, "key {i}, {} bytes", signature.len());
        }
        assert_eq!(found.iter().filter(|found| **found).count(), 3 * signers.len());
        // One alone is left to aws-lc.
        assert_eq!(verify(&checks[..1]), [false]);
        assert_eq!(verify(&checks[..2]), [true, true]);
    }

    #[test]
    fn keys_in_another_form_are_left_to_aws_lc() {
        let spki = Signer::new(KeySize::Rsa2048).spki;
        assert!(Key::new(&spki).is_some());
        let change = |at: usize, byte: u8| {
            let mut changed = spki.clone();
            changed[at] = byte;
            changed
        };
        let last = spki.len() - 1;
        // The last bytes are 02 03 01 00 01; before them ends the modulus.
        for (what, der) in [
            ("exponent 65539", change(last, 3)),
            ("an even modulus", change(last - 5, 2)),
            ("a shorter exponent", change(last - 3, 2)),
            ("no sequence", change(0, 0x31)),
            ("a modulus without its highest bit", change(33, 0x7f)),
            ("cut", spki[..last].to_vec()),
            ("bytes behind it", [spki.as_slice(), &[0]].concat()),
            ("nothing", Vec::new()),
        ] {
            assert!(Key::new(&der).is_none(), "{what}");
        }
    }

    fn power<const L: usize>(
        public: impl Fn(&Operands<L>) -> Lanes<L>,
        numbers: &[(BigUint, BigUint)],
    ) {
        let zero = [[0; LANES]; L];
        let mut lanes = Operands { signature: zero, n: zero, r_squared: zero, n0: [0; LANES] };
        let r = BigUint::from(1u8) << (LIMB_BITS * L);
        for (i, (s, n)) in numbers.iter().enumerate() {
            set_lane(&mut lanes.signature, i, &limbs_of(&s.to_bytes_le()));
            set_lane(&mut lanes.n, i, &limbs_of(&n.to_bytes_le()));
            set_lane(&mut lanes.r_squared, i, &limbs_of(&((&r * &r) % n).to_bytes_le()));
            lanes.n0[i] = negative_inverse(lanes.n[0][i]);
        }
        let results = public(&lanes);
        for (i, (s, n)) in numbers.iter().enumerate() {
            let result = lane(&results, i)
                .iter()
                .rev()
                .fold(BigUint::ZERO, |number, limb| (number << LIMB_BITS) + *limb);
            let expected = s.modpow(&BigUint::from(65537u32), n);
            assert!(result == expected || result == &expected + n, "{s}^65537 modulo {n}");
        }
    }

    /// A number of many bits: random ones, or long runs of zeros and of ones, where carries travel far.
    fn number(bits: u64) -> impl Strategy<Value = BigUint> {
        let words = usize::try_from(bits / 32).unwrap();
        let word = prop_oneof![Just(0u32), Just(u32::MAX), any::<u32>()];
        prop_oneof![
            prop::collection::vec(any::<u32>(), words),
            prop::collection::vec(word, words),
            Just(vec![u32::MAX; words]),
            Just(vec![0; words]),
        ]
        .prop_map(BigUint::new)
    }

    fn lanes(bits: u64) -> impl Strategy<Value = Vec<(BigUint, BigUint)>> {
        let odd = number(bits).prop_map(move |mut n| {
            n.set_bit(0, true);
            n.set_bit(bits - 1, true);
            n
        });
        let lane = (number(bits), odd).prop_map(|(s, n)| (s % &n, n));
        prop::collection::vec(lane, LANES)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(48))]

        #[test]
        fn powers_are_those_of_big_integers(
            small in lanes(2048), medium in lanes(3072), large in lanes(4096),
        ) {
            if let Some(here) = Level::new().as_avx512() {
                power(|lanes| public_40(here, lanes), &small);
                power(|lanes| public_60(here, lanes), &medium);
                power(|lanes| public_80(here, lanes), &large);
            }
        }
    }
}
