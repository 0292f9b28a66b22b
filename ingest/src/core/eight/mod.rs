//! Signatures that are checked eight at a time, where the processor has the vector instructions for it
//! (AVX-512 with IFMA, since Ice Lake and Zen 4): one signature in each lane of 64 bits.
//!
//! It only ever finds that a signature verifies. Whatever it does not find, a wrong signature among
//! it, is left to aws-lc, which alone refuses; so does `rumledger verify`, which checks what was
//! accepted once more by it. On other processors nothing is found here.

#[cfg(target_arch = "x86_64")]
mod der;
#[cfg(target_arch = "x86_64")]
mod ed25519;
#[cfg(target_arch = "x86_64")]
mod limbs;
#[cfg(target_arch = "x86_64")]
mod p256;
#[cfg(target_arch = "x86_64")]
mod rsa;

use std::sync::OnceLock;

use schemas::key::Algorithm;

/// What is arranged of a public key, once: of an Ed25519 key nothing.
pub type Kept = OnceLock<Option<Box<Arranged>>>;

/// What these checks take of a public key, where that is work.
pub struct Arranged(Made);

#[cfg(target_arch = "x86_64")]
enum Made {
    Rsa(rsa::Key),
    P256(p256::Key),
}

#[cfg(not(target_arch = "x86_64"))]
enum Made {}

/// A public key, as these checks take it.
#[derive(Clone, Copy)]
pub struct Key<'k>(Kind<'k>);

#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy)]
enum Kind<'k> {
    Rsa(&'k rsa::Key),
    P256(&'k p256::Key),
    Ed25519(&'k [u8; 32]),
}

#[cfg(not(target_arch = "x86_64"))]
#[derive(Clone, Copy)]
enum Kind<'k> {
    None(std::convert::Infallible, std::marker::PhantomData<&'k Arranged>),
}

/// A signature, and what it is checked against.
pub struct Check<'a> {
    pub key: Key<'a>,
    pub message: &'a [u8],
    pub sha256: &'a [u8; 32],
    pub signature: &'a [u8],
}

#[cfg(target_arch = "x86_64")]
mod here {
    use fearless_simd::{Avx512, Level};

    use super::{Algorithm, Arranged, Check, Kept, Key, Kind, Made, ed25519, p256, rsa};

    fn processor() -> Option<Avx512> {
        Level::new().as_avx512()
    }

    /// True if this processor can check signatures eight at a time.
    #[must_use]
    pub fn is_here() -> bool {
        processor().is_some()
    }

    impl<'k> Key<'k> {
        /// `None` of a key that is not checked here. The bytes are the key's SPKI in DER, of the algorithm.
        #[must_use]
        pub fn of(algorithm: Algorithm, spki: &'k [u8], kept: &'k Kept) -> Option<Key<'k>> {
            processor()?;
            let made = || match algorithm {
                Algorithm::Rs256 => rsa::Key::new(spki).map(Made::Rsa),
                Algorithm::Es256 => p256::Key::new(spki).map(Made::P256),
                Algorithm::EdDsa => None,
            };
            if algorithm == Algorithm::EdDsa {
                return ed25519::key_of(spki).map(|key| Key(Kind::Ed25519(key)));
            }
            let arranged = kept.get_or_init(|| made().map(|made| Box::new(Arranged(made))));
            arranged.as_deref().map(|Arranged(made)| match made {
                Made::Rsa(key) => Key(Kind::Rsa(key)),
                Made::P256(key) => Key(Kind::P256(key)),
            })
        }
    }

    /// Those of the signatures that are found to verify.
    #[must_use]
    pub fn verify(checks: &[Check<'_>]) -> Vec<bool> {
        let mut verified = vec![false; checks.len()];
        let Some(here) = processor() else { return verified };
        let (mut of_rsa, mut of_p256, mut of_ed25519) = (Vec::new(), Vec::new(), Vec::new());
        for (place, Check { key, message, sha256, signature }) in checks.iter().enumerate() {
            match key.0 {
                Kind::Rsa(key) => of_rsa.push((place, rsa::Check { key, sha256, signature })),
                Kind::P256(key) => of_p256.push((place, p256::Check { key, sha256, signature })),
                Kind::Ed25519(key) => {
                    of_ed25519.push((place, ed25519::Check { key, message, signature }));
                }
            }
        }
        let mut found = |place: usize| verified[place] = true;
        rsa::verify(here, &of_rsa, &mut found);
        p256::verify(here, &of_p256, &mut found);
        ed25519::verify(here, &of_ed25519, &mut found);
        verified
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod here {
    use super::{Algorithm, Check, Kept, Key};

    #[must_use]
    pub fn is_here() -> bool {
        false
    }

    impl<'k> Key<'k> {
        #[must_use]
        pub fn of(_: Algorithm, _: &'k [u8], _: &'k Kept) -> Option<Key<'k>> {
            None
        }
    }

    #[must_use]
    pub fn verify(checks: &[Check<'_>]) -> Vec<bool> {
        vec![false; checks.len()]
    }
}

pub use here::{is_here, verify};
