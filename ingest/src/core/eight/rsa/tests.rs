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
        set_lane(&mut lanes.signature, i, &limbs_of::<LIMB_BITS, L>(&s.to_bytes_le()));
        set_lane(&mut lanes.n, i, &limbs_of::<LIMB_BITS, L>(&n.to_bytes_le()));
        set_lane(
            &mut lanes.r_squared,
            i,
            &limbs_of::<LIMB_BITS, L>(&((&r * &r) % n).to_bytes_le()),
        );
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
