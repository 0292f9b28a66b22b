use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use fearless_simd::Level;
use proptest::prelude::*;

use super::field::LIMB_MASK;
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
            "D75A980182B10AB7D54BFED3C964073A0EE172F3DAA62325AF021A68F707511A",
            "",
            "E5564300C360AC729086E2CC806E828A84877F1EB8E5D974D873E065224901555FB8821590A33BACC61E39701CF9B46BD25BF5F0595BBE24655141438E7A100B",
        ),
        (
            "3D4017C3E843895A92B70AA74D1B7EBC9C982CCF2EC4968CC0CD55F12AF4660C",
            "72",
            "92A009A9F0D4CAB8720E820B5F642540A2B27B5416503F8FB3762223EBDB69DA085AC1E43E15996E458F3613D0F11D8C387B2EAEB4302AEEB00D291612BB0C00",
        ),
        (
            "FC51CD8E6218A1A38DA47ED00230F0580816ED13BA3303AC5DEB911548908025",
            "af82",
            "6291D657DEEC24024827E69C3ABE01A30CE548A284743A445E3680D7DB5AC3AC18FF9B538D16F290AE67F760984DC6594A7C15E9716ED28DC027BECEEA1EC40A",
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
    let small = "C7176A703D4DD84FBA3C0B760D10670F2A2053FA2C39CCC64EC7FD7792AC037A";
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
        let a = Element(load_all(here, a));
        let b = Element(load_all(here, b));
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
