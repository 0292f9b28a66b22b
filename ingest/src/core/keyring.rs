//! Trust codes by UDI, and the check of a signature against them (R7).

use std::collections::HashMap;
use std::sync::OnceLock;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemas::book::TrustCode;
use schemas::key::{Algorithm, parse_spki};
use schemas::period::EpochSeconds;
use schemas::udi::Udi;

use super::eight;
use super::mediate::SignedParts;

/// What the keyring says of one signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Verified,
    /// No trust code of the signer is on record.
    TrustUnknown,
    /// No trust code on record of that algorithm verifies it.
    Invalid,
    /// A trust code verifies it that was not in force at the report's end.
    NotValidThen,
}

/// A public key in SPKI DER, parsed when it is first used and kept parsed.
struct Key {
    algorithm: Algorithm,
    spki: Box<[u8]>,
    parsed: OnceLock<Option<ParsedPublicKey>>,
    /// The same, for eight signatures at a time.
    in_lanes: OnceLock<Option<Box<eight::Key>>>,
}

impl Key {
    fn new(algorithm: Algorithm, spki: Box<[u8]>) -> Key {
        Key { algorithm, spki, parsed: OnceLock::new(), in_lanes: OnceLock::new() }
    }

    fn in_lanes(&self) -> Option<&eight::Key> {
        let key = || eight::Key::new(self.algorithm, &self.spki).map(Box::new);
        self.in_lanes.get_or_init(key).as_deref()
    }

    fn verifies(&self, signed: &SignedParts<'_>, signature: &[u8]) -> bool {
        let parsed = self.parsed.get_or_init(|| parse_spki(self.algorithm, &self.spki).ok());
        let Some(key) = parsed else { return false };
        match self.algorithm {
            Algorithm::EdDsa => key.verify_sig(signed.message, signature).is_ok(),
            // Both sign the SHA-256 of the message, which is known already.
            Algorithm::Rs256 | Algorithm::Es256 => Digest::import_less_safe(signed.sha256, &SHA256)
                .is_ok_and(|digest| key.verify_digest_sig(&digest, signature).is_ok()),
        }
    }
}

/// A trust code of a device; its key by its place among the device's keys.
struct Code {
    key: usize,
    valid_from: EpochSeconds,
    /// Exclusive.
    valid_to: EpochSeconds,
}

impl Code {
    fn holds(&self, at: EpochSeconds) -> bool {
        self.valid_from <= at && at < self.valid_to
    }
}

/// What is on record of one device.
struct Signer {
    codes: Box<[Code]>,
    keys: Box<[Key]>,
}

impl Signer {
    fn new(of_udi: &[&TrustCode]) -> Signer {
        let mut keys: Vec<Key> = Vec::with_capacity(of_udi.len());
        let code = |code: &&TrustCode| {
            let algorithm = code.algorithm;
            // One that does not decode verifies nothing; those of a book do.
            let spki = STANDARD.decode(&code.public_key).unwrap_or_default().into_boxed_slice();
            let held = keys.iter().position(|k| k.algorithm == algorithm && k.spki == spki);
            let key = held.unwrap_or_else(|| {
                keys.push(Key::new(algorithm, spki));
                keys.len() - 1
            });
            let valid_to = code.valid_to.unwrap_or_else(|| overwritten_at(code, of_udi));
            Code { key, valid_from: code.valid_from, valid_to }
        };
        let codes = of_udi.iter().map(code).collect();
        Signer { codes, keys: keys.into() }
    }

    /// Its codes of an algorithm, each with its key.
    fn codes(&self, algorithm: Algorithm) -> impl Iterator<Item = (&Code, &Key)> {
        let codes = self.codes.iter().map(|code| (code, &self.keys[code.key]));
        codes.filter(move |(_, key)| key.algorithm == algorithm)
    }
}

/// All trust codes of a book. A fleet has one for each device, so that little is held of each.
#[derive(Default)]
pub struct Keyring {
    /// By PID, then by serial number.
    signers: HashMap<Box<str>, HashMap<Box<str>, Signer>>,
}

impl Keyring {
    #[must_use]
    pub fn new(trust_codes: &[TrustCode]) -> Keyring {
        let mut sorted: Vec<&TrustCode> = trust_codes.iter().collect();
        sorted.sort_by(|a, b| a.udi.cmp(&b.udi));
        let mut keyring = Keyring::default();
        for of_udi in sorted.chunk_by(|a, b| a.udi == b.udi) {
            let Udi { pid, serial } = &of_udi[0].udi;
            let signers = match keyring.signers.get_mut(pid.as_str()) {
                Some(signers) => signers,
                None => keyring.signers.entry(pid.as_str().into()).or_default(),
            };
            signers.insert(serial.as_str().into(), Signer::new(of_udi));
        }
        keyring
    }

    fn signer(&self, udi: &Udi) -> Option<&Signer> {
        self.signers.get(udi.pid.as_str())?.get(udi.serial.as_str())
    }

    /// Looks for signatures that verify, eight at a time where this processor can. Each is tried with
    /// the key that is most likely the one: of no other, and of no signature alone, anything is known.
    #[must_use]
    pub fn prove<'k, 's>(&'k self, signatures: &'s [Option<SignedParts<'_>>]) -> Vec<Proof<'k>> {
        let check = |(place, signed): (usize, &'s Option<SignedParts<'_>>)| {
            let SignedParts { message, sha256, value, .. } = signed.as_ref()?;
            let signature = value.as_deref()?;
            let key = self.likely_key(signed.as_ref()?)?;
            let in_lanes = key.in_lanes()?;
            Some(((place, key), eight::Check { key: in_lanes, message, sha256, signature }))
        };
        let (tried, checks): (Vec<_>, Vec<_>) =
            signatures.iter().enumerate().filter_map(check).unzip();
        let mut proofs = vec![Proof::default(); signatures.len()];
        for ((place, key), verified) in tried.into_iter().zip(eight::verify(&checks)) {
            proofs[place] = Proof(verified.then_some(key));
        }
        proofs
    }

    /// The key of the first code that is in force, or else of the first.
    fn likely_key(&self, signed: &SignedParts<'_>) -> Option<&Key> {
        let signer = self.signer(signed.signer)?;
        let mut in_force = signer.codes(signed.algorithm).filter(|(code, _)| code.holds(signed.at));
        in_force.next().or_else(|| signer.codes(signed.algorithm).next()).map(|(_, key)| key)
    }

    /// Checks a signature over the exact bytes that were signed (R7.1). What is proven of it already
    /// is not checked again.
    #[must_use]
    pub fn verify(&self, signed: &SignedParts<'_>, proof: Proof<'_>) -> Verdict {
        let Some(signer) = self.signer(signed.signer) else {
            return Verdict::TrustUnknown;
        };
        let Some(signature) = signed.value.as_deref() else {
            return Verdict::Invalid;
        };
        let mut verdict = Verdict::Invalid;
        for (code, key) in signer.codes(signed.algorithm) {
            let in_force = code.holds(signed.at);
            // A code that could not change the verdict need not be tried.
            if (in_force || verdict == Verdict::Invalid)
                && (proof.is_by(key) || key.verifies(signed, signature))
            {
                if in_force {
                    return Verdict::Verified;
                }
                verdict = Verdict::NotValidThen;
            }
        }
        verdict
    }
}

/// The key that a signature is known to verify with, if any.
#[derive(Clone, Copy, Default)]
pub struct Proof<'k>(Option<&'k Key>);

impl Proof<'_> {
    fn is_by(self, key: &Key) -> bool {
        self.0.is_some_and(|proven| std::ptr::eq(proven, key))
    }
}

/// A trust code, and when it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrustFact {
    pub algorithm: Algorithm,
    /// SPKI DER in base64.
    pub public_key: String,
    pub valid_from: EpochSeconds,
    /// Exclusive; `None` of one without end.
    pub valid_to: Option<EpochSeconds>,
}

impl Keyring {
    /// The trust code that verifies a signature and was in force at the report's end.
    #[must_use]
    pub fn verifying(&self, signed: &SignedParts<'_>) -> Option<TrustFact> {
        let signature = signed.value.as_deref()?;
        let (code, key) = self
            .signer(signed.signer)?
            .codes(signed.algorithm)
            .filter(|(code, _)| code.holds(signed.at))
            .find(|(_, key)| key.verifies(signed, signature))?;
        Some(TrustFact {
            algorithm: key.algorithm,
            public_key: STANDARD.encode(&key.spki),
            valid_from: code.valid_from,
            valid_to: (code.valid_to != EpochSeconds::MAX).then_some(code.valid_to),
        })
    }
}

/// A trust code without an end ends where a later one of its UDI starts (R7.2).
fn overwritten_at(code: &TrustCode, of_udi: &[&TrustCode]) -> EpochSeconds {
    of_udi
        .iter()
        .map(|other| other.valid_from)
        .filter(|from| *from > code.valid_from)
        .min()
        .unwrap_or(EpochSeconds::MAX)
}
