//! Project Wycheproof's vectors: signatures made to find what checks get wrong.

use aws_lc_rs::digest::{SHA256, digest};
use ingest::core::eight::{self, Check, Kept, Key};
use schemas::key::{Algorithm, parse_spki};
use wycheproof::{ecdsa, eddsa, rsa_pkcs1_verify};

/// A message, what is held to be its signature, and whether no check may take it.
struct Vector<'a> {
    message: &'a [u8],
    signature: &'a [u8],
    must_fail: bool,
}

/// Vectors that were looked at eight at a time, and those that aws-lc takes of them.
#[derive(Default, Debug, PartialEq, Eq)]
struct Looked {
    keys: usize,
    vectors: usize,
    taken: usize,
    /// Taken by aws-lc alone.
    left: usize,
}

impl Looked {
    fn at(&mut self, algorithm: Algorithm, spki: &[u8], vectors: &[Vector<'_>]) {
        let kept = Kept::default();
        let Some(key) = Key::of(algorithm, spki, &kept) else { return };
        let parsed = parse_spki(algorithm, spki).unwrap();
        self.keys += 1;
        self.vectors += vectors.len();
        let digests: Vec<[u8; 32]> = vectors
            .iter()
            .map(|vector| digest(&SHA256, vector.message).as_ref().try_into().unwrap())
            .collect();
        // Twice, since one alone is not looked at.
        let checks: Vec<Check<'_>> = vectors
            .iter()
            .zip(&digests)
            .flat_map(|pair| [pair, pair])
            .map(|(&Vector { message, signature, .. }, sha256)| Check {
                key,
                message,
                sha256,
                signature,
            })
            .collect();
        let found = eight::verify(&checks);
        for (vector, found) in vectors.iter().zip(found.as_chunks::<2>().0) {
            let taken = parsed.verify_sig(vector.message, vector.signature).is_ok();
            assert!(!taken || !vector.must_fail, "{:02x?}", vector.signature);
            assert!(taken || *found == [false; 2], "{:02x?}", vector.signature);
            self.taken += usize::from(taken);
            self.left += usize::from(taken && *found != [true; 2]);
        }
    }
}

/// The sets of each library's module differ in their types alone.
macro_rules! look_at {
    ($looked:ident, $algorithm:expr, $module:ident, $names:expr) => {
        for name in $names {
            for group in $module::TestSet::load(name).unwrap().test_groups {
                let vectors: Vec<Vector<'_>> = group
                    .tests
                    .iter()
                    .map(|test| Vector {
                        message: &test.msg,
                        signature: &test.sig,
                        must_fail: test.result.must_fail(),
                    })
                    .collect();
                $looked.at($algorithm, &group.der, &vectors);
            }
        }
    };
}

#[test]
fn vectors_that_are_found_are_those_that_aws_lc_takes() {
    let (mut rsa, mut p256, mut ed25519) =
        (Looked::default(), Looked::default(), Looked::default());
    {
        use rsa_pkcs1_verify::TestName::{Rsa2048Sha256, Rsa3072Sha256, Rsa4096Sha256};
        let names = [Rsa2048Sha256, Rsa3072Sha256, Rsa4096Sha256];
        look_at!(rsa, Algorithm::Rs256, rsa_pkcs1_verify, names);
    }
    look_at!(p256, Algorithm::Es256, ecdsa, [ecdsa::TestName::EcdsaSecp256r1Sha256]);
    look_at!(ed25519, Algorithm::EdDsa, eddsa, [eddsa::TestName::Ed25519]);
    if !eight::is_here() {
        assert_eq!([rsa.keys, p256.keys, ed25519.keys], [0; 3]);
        return;
    }
    // Of P-256 are left: an r to which n is added, and points that are equal or opposite on the way.
    assert_eq!(rsa, Looked { keys: 3, vectors: 773, taken: 21, left: 0 });
    assert_eq!(p256, Looked { keys: 113, vectors: 484, taken: 174, left: 3 });
    assert_eq!(ed25519, Looked { keys: 78, vectors: 151, taken: 88, left: 0 });
}
