use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use fearless_simd::Level;
use proptest::prelude::*;

use super::*;

fn found(cases: &[([u8; 32], Vec<u8>, Vec<u8>)]) -> Option<Vec<bool>> {
    let Some(here) = Level::new().as_avx512() else {
        assert!(!super::super::is_here());
        return None;
    };
    let check = |(key, message, signature)| Check { key, message, signature };
    let checks: Vec<(usize, Check<'_>)> =
        cases.iter().map(|(k, m, s)| check((k, m.as_slice(), s.as_slice()))).enumerate().collect();
    let mut found = vec![false; cases.len()];
    verify(here, &checks, &mut |place| found[place] = true);
    Some(found)
}

fn aws_lc(key: &[u8], message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

fn hex(text: &str) -> Vec<u8> {
    let byte = |at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    (0..text.len()).step_by(2).map(byte).collect()
}

fn bytes_of(number: &BigUint) -> [u8; 32] {
    let mut bytes = [0; 32];
    let held = number.to_bytes_le();
    bytes[..held.len()].copy_from_slice(&held);
    bytes
}

/// Every signature is found to verify where aws-lc says so, and only there.
#[test]
fn nothing_else_is_found_than_aws_lc_finds() {
    let mut cases = Vec::new();
    for seed in 0..16u8 {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let key: [u8; 32] = pair.public_key().as_ref().try_into().unwrap();
        for text in ["", "a report", &"a long report ".repeat(100)] {
            let good = pair.sign(text.as_bytes()).as_ref().to_vec();
            cases.push((key, text.as_bytes().to_vec(), good.clone()));
            cases.push((key, format!("{text}!").into_bytes(), good.clone()));
            for bit in [0, 7, 255, 256, 300, 507, 511] {
                let mut wrong = good.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                cases.push((key, text.as_bytes().to_vec(), wrong));
            }
            // The same S, modulo the order of the base point.
            let s = BigUint::from_bytes_le(&good[32..]) + &CONSTANTS.order;
            let more = [&good[..32], &bytes_of(&s)].concat();
            let other = [&[key[0] ^ 1], &key[1..]].concat().try_into().unwrap();
            cases.push((key, text.as_bytes().to_vec(), more));
            cases.push((other, text.as_bytes().to_vec(), good.clone()));
            cases.push((key, text.as_bytes().to_vec(), good[..63].to_vec()));
            cases.push((key, text.as_bytes().to_vec(), [&good[..], &[0]].concat()));
            cases.push((key, text.as_bytes().to_vec(), Vec::new()));
        }
    }
    let Some(found) = found(&cases) else { return };
    for ((key, message, signature), found) in cases.iter().zip(&found) {
        assert_eq!(*found, aws_lc(key, message, signature), "{signature:02x?}");
    }
    assert_eq!(found.iter().filter(|found| **found).count(), 16 * 3);
}

/// RFC 8032, 7.1: tests 1 to 3.
#[test]
fn the_vectors_of_the_standard_verify() {
    let cases = [
        (
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
            "",
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b",
        ),
        (
            "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
            "72",
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00",
        ),
        (
            "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
            "af82",
            "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed28dc027beceea1ec40a",
        ),
    ];
    let cases: Vec<_> = cases
        .iter()
        .map(|(key, message, signature)| {
            (hex(key).try_into().unwrap(), hex(message), hex(signature))
        })
        .collect();
    if let Some(found) = found(&cases) {
        assert_eq!(found, [true, true, true]);
    }
}

/// Keys that are no points, points of small order, numbers in another form: what is found, aws-lc
/// finds too.
#[test]
fn odd_keys_and_points_are_never_found_alone() {
    let p = (BigUint::from(1u8) << 255) - 19u8;
    let mut points: Vec<[u8; 32]> = Vec::new();
    for number in [0u32, 1, 2, 3, 5, 18] {
        points.push(bytes_of(&BigUint::from(number)));
        points.push(bytes_of(&(&p + number)));
        points.push(bytes_of(&(&p - number - 1u8)));
    }
    let small = "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a";
    points.push(hex(small).try_into().unwrap());
    let negative = |point: &[u8; 32]| {
        let mut point = *point;
        point[31] ^= 0x80;
        point
    };
    points.extend(points.clone().iter().map(negative));
    let mut cases = Vec::new();
    for key in &points {
        for r in &points {
            for s in [BigUint::ZERO, BigUint::from(1u8), &CONSTANTS.order - 1u8] {
                let signature = [r.as_slice(), &bytes_of(&s)].concat();
                cases.push((*key, b"a report".to_vec(), signature));
            }
        }
    }
    let Some(found) = found(&cases) else { return };
    for ((key, message, signature), found) in cases.iter().zip(&found) {
        assert!(!found || aws_lc(key, message, signature), "{key:02x?} {signature:02x?}");
    }
    assert!(found.contains(&true), "a small point verifies with S = 0 where R is minus [k]A");
}

fn limb() -> impl Strategy<Value = u64> {
    // The largest that sums and products leave.
    let most = (1 << LIMB_BITS) + (1 << 15) - 1;
    prop_oneof![Just(0), Just(LIMB_MASK), Just(most), 0..=most]
}

fn number(limbs: &[u64; LIMBS]) -> BigUint {
    limbs.iter().rev().fold(BigUint::ZERO, |number, limb| (number << LIMB_BITS) + *limb)
}

proptest! {
    #[test]
    fn numbers_are_those_of_big_integers(
        a in prop::collection::vec(prop::array::uniform5(limb()), LANES),
        b in prop::collection::vec(prop::array::uniform5(limb()), LANES),
    ) {
        let Some(here) = Level::new().as_avx512() else { return Ok(()) };
        let p = (BigUint::from(1u8) << 255) - 19u8;
        let lanes = |numbers: &[[u64; LIMBS]]| -> Lanes<LIMBS> {
            std::array::from_fn(|limb| std::array::from_fn(|lane| numbers[lane][limb]))
        };
        let results = operations(here, &lanes(&a), &lanes(&b));
        for i in 0..LANES {
            let (a, b) = (number(&a[i]), number(&b[i]));
            let expected = [
                &a + &b,
                &a + &p * 4u8 - &b,
                &a * &b,
                &a * &a,
                a.modpow(&(&p - 2u8), &p),
                a.modpow(&((&p - 5u8) >> 3), &p),
            ];
            for (which, (result, expected)) in results.iter().zip(expected).enumerate() {
                prop_assert_eq!(number(&result[i]), expected % &p, "operation {}", which);
            }
        }
    }
}

fearless_simd::kernel!(
    fn operations(here: Avx512, a: &Lanes<LIMBS>, b: &Lanes<LIMBS>) -> [[[u64; LIMBS]; LANES]; 6] {
        let a = Element(a.each_ref().map(|limb| load(here, limb)));
        let b = Element(b.each_ref().map(|limb| load(here, limb)));
        [
            a.plus(b).numbers(here),
            a.minus(b).numbers(here),
            a.times(b).numbers(here),
            a.squared().numbers(here),
            a.inverse().numbers(here),
            a.power_of_root().numbers(here),
        ]
    }
);
