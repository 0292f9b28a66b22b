//! Trust codes against what contract 2 and R7 say of them, one by one.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingest::core::keyring::{Codes, Keyring, Proof, Verdict};
use ingest::core::mediate::SignedParts;
use proptest::prelude::*;
use schemas::book::{TrustCode, TrustOrigin};
use schemas::key::Algorithm;
use schemas::udi::Udi;

use crate::desk::hex;

const KEYS: u8 = 3;

fn key(seed: u8) -> Ed25519KeyPair {
    Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap()
}

fn code((device, seed, from, length): (u8, u8, i64, Option<i64>)) -> (TrustCode, u8) {
    let spki = [&hex("302a300506032b6570032100"), key(seed).public_key().as_ref()].concat();
    let code = TrustCode {
        udi: Udi::new(["P", "PQ"][usize::from(device % 2)], ["1", "Q1"][usize::from(device / 2)]),
        origin: TrustOrigin::Ack,
        algorithm: Algorithm::EdDsa,
        public_key: STANDARD.encode(spki),
        valid_from: from,
        valid_to: length.map(|length| from + length),
    };
    (code, seed)
}

/// What the pages say: in force from `valid_from` until `valid_to`, or until a later code of the device starts.
fn verdict(codes: &[(TrustCode, u8)], signer: &Udi, seed: u8, at: i64) -> Verdict {
    let of_device: Vec<_> = codes.iter().filter(|(code, _)| code.udi == *signer).collect();
    let in_force = |code: &TrustCode| {
        let later = of_device.iter().map(|(other, _)| other.valid_from);
        let end = code.valid_to.or_else(|| later.filter(|from| *from > code.valid_from).min());
        code.valid_from <= at && end.is_none_or(|end| at < end)
    };
    let mut of_key = of_device.iter().filter(|(_, of)| *of == seed).peekable();
    if of_device.is_empty() {
        Verdict::TrustUnknown
    } else if of_key.peek().is_none() {
        Verdict::Invalid
    } else if of_key.any(|(code, _)| in_force(code)) {
        Verdict::Verified
    } else {
        Verdict::NotValidThen
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// Also of devices whose names run into one another, keys that come again, and codes that start together.
    #[test]
    fn every_signature_has_the_verdict_that_the_pages_give_it(
        codes in prop::collection::vec((0..4u8, 0..KEYS, 0..6i64, prop::option::of(1..4i64)), 0..10),
        signers in prop::collection::vec((0..4u8, 0..KEYS, 0..10i64), 9),
    ) {
        let codes: Vec<_> = codes.into_iter().map(code).collect();
        let mut all = Codes::default();
        codes.iter().for_each(|(code, _)| all.add(code));
        let keyring = Keyring::of(all);
        let message = b"a report";
        let sha256: [u8; 32] = digest(&SHA256, message).as_ref().try_into().unwrap();
        let signers: Vec<(Udi, u8, i64)> =
            signers.into_iter().map(|(device, seed, at)| (code((device, 0, 0, None)).0.udi, seed, at)).collect();
        let signed: Vec<_> = signers
            .iter()
            .map(|(signer, seed, at)| Some(SignedParts {
                message,
                sha256: &sha256,
                algorithm: Algorithm::EdDsa,
                signer,
                value: Some(key(*seed).sign(message).as_ref().to_vec()),
                at: *at,
            }))
            .collect();
        let proofs = keyring.prove(&signed);
        for ((signed, proof), (signer, seed, at)) in signed.iter().flatten().zip(proofs).zip(&signers) {
            let expected = verdict(&codes, signer, *seed, *at);
            prop_assert_eq!(keyring.verify(signed, proof), expected);
            prop_assert_eq!(keyring.verify(signed, Proof::default()), expected);
            prop_assert_eq!(keyring.verifying(signed).is_some(), expected == Verdict::Verified);
        }
    }
}
