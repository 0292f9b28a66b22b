//! Signatures that are checked eight at a time, where the processor has the vector instructions for it
//! (AVX-512 with IFMA, since Ice Lake and Zen 4): one signature in each lane of 64 bits.
//!
//! It only ever finds that a signature verifies. Whatever it does not find, a wrong signature among
//! it, is left to aws-lc, which alone refuses; so does `rumledger verify`, which checks what was
//! accepted once more by it. On other processors nothing is found here.

#[cfg(target_arch = "x86_64")]
mod limbs;
#[cfg(target_arch = "x86_64")]
mod rsa;

use schemas::key::Algorithm;

/// A public key, arranged for these checks.
pub struct Key(#[cfg(target_arch = "x86_64")] rsa::Key);

impl Key {
    /// `None` of a key that is not checked here. The bytes are the key's SPKI in DER, of the algorithm.
    #[must_use]
    pub fn new(algorithm: Algorithm, spki: &[u8]) -> Option<Key> {
        #[cfg(target_arch = "x86_64")]
        if is_here() && algorithm == Algorithm::Rs256 {
            return rsa::Key::new(spki).map(Key);
        }
        let _ = (algorithm, spki);
        None
    }
}

/// A signature, and what it is checked against.
pub struct Check<'a> {
    pub key: &'a Key,
    pub sha256: &'a [u8; 32],
    pub signature: &'a [u8],
}

/// True if this processor can check signatures eight at a time.
#[must_use]
pub fn is_here() -> bool {
    #[cfg(target_arch = "x86_64")]
    return fearless_simd::Level::new().as_avx512().is_some();
    #[cfg(not(target_arch = "x86_64"))]
    false
}

/// Those of the signatures that are found to verify.
#[must_use]
pub fn verify(checks: &[Check<'_>]) -> Vec<bool> {
    #[cfg(target_arch = "x86_64")]
    if let Some(here) = fearless_simd::Level::new().as_avx512() {
        return rsa::verify(here, checks);
    }
    vec![false; checks.len()]
}
