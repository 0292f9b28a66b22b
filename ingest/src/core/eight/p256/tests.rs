use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, EcdsaKeyPair, KeyPair as _,
    UnparsedPublicKey,
};
use fearless_simd::Level;
use proptest::prelude::*;

use super::*;

/// A key as SPKI, a message, what is held to be its signature.
type Case = (Vec<u8>, Vec<u8>, Vec<u8>);

fn sha256(message: &[u8]) -> [u8; 32] {
    digest(&SHA256, message).as_ref().try_into().unwrap()
}

fn found(cases: &[Case]) -> Option<Vec<bool>> {
    let Some(here) = Level::new().as_avx512() else {
        assert!(!super::super::is_here());
        return None;
    };
    let keys: Vec<Key> = cases.iter().map(|(spki, ..)| Key::new(spki).unwrap()).collect();
    let digests: Vec<[u8; 32]> = cases.iter().map(|(_, message, _)| sha256(message)).collect();
    let checks: Vec<(usize, Check<'_>)> = cases
        .iter()
        .zip(keys.iter().zip(&digests))
        .map(|((_, _, signature), (key, sha256))| Check { key, sha256, signature })
        .enumerate()
        .collect();
    let mut found = vec![false; cases.len()];
    verify(here, &checks, &mut |place| found[place] = true);
    Some(found)
}

fn big(number: &Number) -> BigUint {
    BigUint::from_bytes_le(&bytes_of::<LIMB_BITS, LIMBS>(number))
}

fn aws_lc((spki, message, signature): &Case) -> bool {
    UnparsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, spki).verify(message, signature).is_ok()
}

fn integer(number: &BigUint) -> Vec<u8> {
    let mut bytes = number.to_bytes_be();
    if bytes[0] & 0x80 != 0 {
        bytes.insert(0, 0);
    }
    [&[INTEGER, u8::try_from(bytes.len()).unwrap()], bytes.as_slice()].concat()
}

fn signature(r: &BigUint, s: &BigUint) -> Vec<u8> {
    let body = [integer(r), integer(s)].concat();
    [&[SEQUENCE, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
}

/// Every signature is found to verify where aws-lc says so, and only there.
#[test]
fn nothing_else_is_found_than_aws_lc_finds() {
    let n = &big(&CURVE.n);
    let mut cases: Vec<Case> = Vec::new();
    let mut last: Option<Vec<u8>> = None;
    for _ in 0..16 {
        let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
        let spki: Vec<u8> =
            AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap().as_ref().to_vec();
        let message = b"a report".to_vec();
        let good = pair.sign(&SystemRandom::new(), &message).unwrap().as_ref().to_vec();
        let [r, s] = r_and_s(&good).unwrap().map(|number| big(&number));
        let one = BigUint::from(1u8);
        let zero = BigUint::ZERO;
        let mut held = vec![
            good.clone(),
            // As good as the other (and known of ECDSA).
            signature(&r, &(n - &s)),
            signature(&s, &r),
            signature(&(n - &r), &s),
            signature(&zero, &s),
            signature(&r, &zero),
            signature(n, &s),
            signature(&r, n),
            signature(&(&r + n), &s),
            signature(&r, &(&s + n)),
            signature(&(n - &one), &s),
            signature(&one, &one),
            [&good[..], &[0]].concat(),
            good[..good.len() - 1].to_vec(),
            Vec::new(),
            // A length in a longer form than it needs.
            [&[SEQUENCE, 0x81, good[1]], &good[2..]].concat(),
            // A zero too many before r.
            {
                let r = [&[0], r.to_bytes_be().as_slice()].concat();
                let r = if r[1] & 0x80 == 0 { r } else { [&[0], r.as_slice()].concat() };
                let r = [&[INTEGER, u8::try_from(r.len()).unwrap()], r.as_slice()].concat();
                let body = [r, integer(&s)].concat();
                [&[SEQUENCE, u8::try_from(body.len()).unwrap()], body.as_slice()].concat()
            },
        ];
        for at in 0..good.len() {
            let mut flipped = good.clone();
            flipped[at] ^= 1;
            held.push(flipped);
        }
        cases.extend(held.into_iter().map(|held| (spki.clone(), message.clone(), held)));
        cases.push((spki.clone(), b"a report!".to_vec(), good.clone()));
        if let Some(other) = last.replace(spki) {
            cases.push((other, message, good));
        }
    }
    let Some(found) = found(&cases) else { return };
    for (case, found) in cases.iter().zip(&found) {
        assert_eq!(*found, aws_lc(case), "{:02x?}", case.2);
    }
    assert_eq!(found.iter().filter(|found| **found).count(), 2 * 16);
}

/// Where the key is G, or its negative, sums meet equal and opposite points. What is found then,
/// aws-lc finds too.
#[test]
fn equal_points_are_left_to_aws_lc() {
    let (p, n) = (&CURVE.p, &big(&CURVE.n));
    let g = |digits: &[u8]| BigUint::parse_bytes(digits, 16).unwrap();
    let x = g(b"6b17d1f2e12c4247f8bce6e563a440f277037d812deb33a0f4a13945d898c296");
    let y = g(b"4fe342e2fe1a7f9b8ee7eb4a7c0f9e162bce33576b315ececbb6406837bf51f5");
    // Of the SPKI of any key, all but its point.
    let pair = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING).unwrap();
    let any = AsDer::<PublicKeyX509Der<'_>>::as_der(pair.public_key()).unwrap();
    let spki = |y: &BigUint| [&any.as_ref()[..27], &x.to_bytes_be(), &y.to_bytes_be()].concat();
    let mut cases: Vec<Case> = Vec::new();
    for i in 0..64u8 {
        let message = vec![i; 10];
        let e = BigUint::from_bytes_be(&sha256(&message)) % n;
        let r = &x % n;
        // The nonce is one, the private key one or minus one.
        cases.push((spki(&y), message.clone(), signature(&r, &((&e + &r) % n))));
        cases.push((spki(&(p - &y)), message, signature(&r, &((&e + n - &r) % n))));
    }
    assert!(cases.iter().all(aws_lc));
    let good = cases.len();
    for i in 0..64u8 {
        let message = vec![i; 10];
        let e = BigUint::from_bytes_be(&sha256(&message)) % n;
        // u1 and u2 are the same.
        for s in [&e, &BigUint::from(1u8), &BigUint::from(7u8)] {
            cases.push((spki(&y), message.clone(), signature(&e, s)));
            cases.push((spki(&(p - &y)), message.clone(), signature(&e, s)));
        }
    }
    assert!(!cases[good..].iter().any(aws_lc));
    let Some(found) = found(&cases) else { return };
    assert!(found[..good].contains(&true));
    assert!(!found[good..].contains(&true));
    assert!(Key::new(&spki(&(&y + 1u8))).is_none(), "not on the curve");
}

fn number() -> impl Strategy<Value = BigUint> {
    let word = prop_oneof![Just(0u32), Just(u32::MAX), any::<u32>()];
    let below_2p = |number: BigUint| number % (&CURVE.p * 2u8);
    prop_oneof![
        prop::collection::vec(word, 9).prop_map(BigUint::new).prop_map(below_2p),
        Just(&CURVE.p * 2u8 - 1u8),
        Just(CURVE.p.clone()),
        Just(BigUint::ZERO),
    ]
}

proptest! {
    #[test]
    fn numbers_are_those_of_big_integers(
        a in prop::collection::vec(number(), LANES),
        b in prop::collection::vec(number(), LANES),
    ) {
        let Some(here) = Level::new().as_avx512() else { return Ok(()) };
        let p = &CURVE.p;
        let lanes = |numbers: &[BigUint]| {
            let mut lanes = [[0; LANES]; LIMBS];
            for (i, number) in numbers.iter().enumerate() {
                set_lane(&mut lanes, i, &limbs(number));
            }
            lanes
        };
        let results = operations(here, &lanes(&a), &lanes(&b));
        let r = (BigUint::from(1u8) << (LIMBS * LIMB_BITS)).modinv(p).unwrap();
        for i in 0..LANES {
            let (a, b) = (&a[i], &b[i]);
            let expected = [
                a + b,
                a + p * 2u8 - b,
                a * b * &r,
                a + p * 16u8 - b * 8u8,
            ];
            for (which, (result, expected)) in results.iter().zip(expected).enumerate() {
                let result = lane(result, i)
                    .iter()
                    .rev()
                    .fold(BigUint::ZERO, |number, limb| (number << LIMB_BITS) + *limb);
                prop_assert!(result < p * 2u8, "operation {}", which);
                prop_assert_eq!(result % p, expected % p, "operation {}", which);
            }
        }
    }
}

fearless_simd::kernel!(
    fn operations(here: Avx512, a: &Lanes<LIMBS>, b: &Lanes<LIMBS>) -> [Lanes<LIMBS>; 4] {
        let a = Element(load_all(here, a));
        let b = Element(load_all(here, b));
        [a.plus(b), a.minus(b), a.times(b), Sum(a.0).less(b, 3).settled()]
            .map(|element| store_all(here, element.0))
    }
);
