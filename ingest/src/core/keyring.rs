//! Trust codes by UDI, and the check of a signature against them (R7).

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::ops::Range;
use std::sync::OnceLock;

use aws_lc_rs::digest::{Digest, SHA256};
use aws_lc_rs::signature::ParsedPublicKey;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hashbrown::HashTable;
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

/// Trust codes as they come, not yet by device.
#[derive(Default)]
pub struct Codes {
    pids: Pids,
    /// Serial numbers and keys, each of all codes in one piece: a fleet has one for each device.
    serials: String,
    spkis: Vec<u8>,
    all: Vec<Code>,
}

/// PIDs, of which a fleet has few.
#[derive(Default)]
struct Pids {
    all: Vec<Box<str>>,
    places: HashMap<Box<str>, u32>,
}

/// A trust code of a device. There may be a million of them, so the fields are as small as they may be.
struct Code {
    /// Where the serial number begins among all, and the key.
    serial_from: usize,
    spki_from: usize,
    valid_from: EpochSeconds,
    /// Exclusive.
    valid_to: EpochSeconds,
    /// The place of its key among all.
    key: usize,
    pid: u32,
    serial_length: u16,
    spki_length: u16,
    algorithm: Algorithm,
    is_last_of_device: bool,
}

impl Code {
    fn holds(&self, at: EpochSeconds) -> bool {
        self.valid_from <= at && at < self.valid_to
    }

    fn serial(&self) -> Range<usize> {
        self.serial_from..self.serial_from + usize::from(self.serial_length)
    }

    fn spki(&self) -> Range<usize> {
        self.spki_from..self.spki_from + usize::from(self.spki_length)
    }
}

impl Codes {
    pub fn add(&mut self, code: &TrustCode) {
        let Udi { pid, serial } = &code.udi;
        // One that does not decode verifies nothing; those of a book do.
        let spki = STANDARD.decode(&code.public_key).unwrap_or_default();
        // A serial number has at most 256 bytes; a longer key is none, and verifies nothing.
        let (Ok(serial_length), Ok(spki_length)) = (serial.len().try_into(), spki.len().try_into())
        else {
            return;
        };
        self.all.push(Code {
            serial_from: self.serials.len(),
            spki_from: self.spkis.len(),
            valid_from: code.valid_from,
            valid_to: code.valid_to.unwrap_or(EpochSeconds::MAX),
            key: 0,
            pid: self.pids.place_of(pid),
            serial_length,
            spki_length,
            algorithm: code.algorithm,
            is_last_of_device: false,
        });
        self.serials.push_str(serial);
        self.spkis.extend_from_slice(&spki);
    }
}

impl Pids {
    fn place_of(&mut self, pid: &str) -> u32 {
        if let Some(place) = self.places.get(pid) {
            return *place;
        }
        let place = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        self.all.push(pid.into());
        self.places.insert(pid.into(), place);
        place
    }
}

/// What is made of a public key in SPKI DER when it is first used, and kept.
#[derive(Default)]
struct Key {
    parsed: OnceLock<Option<Box<ParsedPublicKey>>>,
    /// The same, for eight signatures at a time.
    arranged: eight::Kept,
}

/// All trust codes of a book. A fleet has one for each device, so that little is held of each.
#[derive(Default)]
pub struct Keyring {
    pids: Pids,
    serials: String,
    spkis: Vec<u8>,
    /// By device.
    codes: Vec<Code>,
    keys: Vec<Key>,
    /// Places of the first codes of the devices, by their UDI.
    by_udi: HashTable<usize>,
    hasher: RandomState,
}

impl Keyring {
    #[must_use]
    pub fn new(trust_codes: &[TrustCode]) -> Keyring {
        let mut codes = Codes::default();
        trust_codes.iter().for_each(|code| codes.add(code));
        Keyring::of(codes)
    }

    #[must_use]
    pub fn of(codes: Codes) -> Keyring {
        let Codes { pids, mut serials, mut spkis, all: mut codes } = codes;
        serials.shrink_to_fit();
        spkis.shrink_to_fit();
        codes.shrink_to_fit();
        codes.sort_unstable_by_key(|code| {
            (code.pid, &serials[code.serial()], code.valid_from, &spkis[code.spki()])
        });
        let (mut keys, mut devices) = (0, 0);
        let device = |code: &Code| (code.pid, &serials[code.serial()]);
        for of_device in codes.chunk_by_mut(|a, b| device(a) == device(b)) {
            devices += 1;
            end_where_overwritten(of_device);
            for at in 0..of_device.len() {
                let (before, rest) = of_device.split_at_mut(at);
                let code = &mut rest[0];
                let same = |other: &&Code| {
                    other.algorithm == code.algorithm && spkis[other.spki()] == spkis[code.spki()]
                };
                code.key = before.iter().find(same).map_or(keys, |other| other.key);
                keys = keys.max(code.key + 1);
            }
            if let Some(last) = of_device.last_mut() {
                last.is_last_of_device = true;
            }
        }
        let hasher = RandomState::new();
        let mut by_udi = HashTable::with_capacity(devices);
        let mut is_first = true;
        for (place, code) in codes.iter().enumerate() {
            if is_first {
                let hash = |place: &usize| hasher.hash_one(device(&codes[*place]));
                by_udi.insert_unique(hash(&place), place, hash);
            }
            is_first = code.is_last_of_device;
        }
        let keys = std::iter::repeat_with(Key::default).take(keys).collect();
        Keyring { pids, serials, spkis, codes, keys, by_udi, hasher }
    }

    /// The codes of a device, if any is on record.
    fn signer(&self, udi: &Udi) -> Option<&[Code]> {
        let device = (*self.pids.places.get(udi.pid.as_str())?, udi.serial.as_str());
        let of_device = |place: &usize| {
            let code = &self.codes[*place];
            (code.pid, &self.serials[code.serial()]) == device
        };
        let first = *self.by_udi.find(self.hasher.hash_one(device), of_device)?;
        self.codes[first..].split_inclusive(|code| code.is_last_of_device).next()
    }

    /// Of codes those of an algorithm.
    fn of_algorithm(codes: &[Code], algorithm: Algorithm) -> impl Iterator<Item = &Code> {
        codes.iter().filter(move |code| code.algorithm == algorithm)
    }

    fn spki(&self, code: &Code) -> &[u8] {
        &self.spkis[code.spki()]
    }

    fn key(&self, code: &Code) -> &Key {
        &self.keys[code.key]
    }

    /// True if the key of a code verifies a signature.
    fn verifies(&self, code: &Code, signed: &SignedParts<'_>, signature: &[u8]) -> bool {
        let parsed = || parse_spki(code.algorithm, self.spki(code)).ok().map(Box::new);
        let Some(key) = self.key(code).parsed.get_or_init(parsed) else { return false };
        match code.algorithm {
            Algorithm::EdDsa => key.verify_sig(signed.message, signature).is_ok(),
            // Both sign the SHA-256 of the message, which is known already.
            Algorithm::Rs256 | Algorithm::Es256 => Digest::import_less_safe(signed.sha256, &SHA256)
                .is_ok_and(|digest| key.verify_digest_sig(&digest, signature).is_ok()),
        }
    }

    /// Looks for signatures that verify, eight at a time where this processor can. Each is tried with
    /// the key that is most likely the one: of no other, and of no signature alone, anything is known.
    #[must_use]
    pub fn prove<'k, 's>(&'k self, signatures: &'s [Option<SignedParts<'_>>]) -> Vec<Proof<'k>> {
        let check = |(place, signed): (usize, &'s Option<SignedParts<'_>>)| {
            let SignedParts { message, sha256, value, .. } = signed.as_ref()?;
            let signature = value.as_deref()?;
            let code = self.likely(signed.as_ref()?)?;
            let key = self.key(code);
            let in_lanes = eight::Key::of(code.algorithm, self.spki(code), &key.arranged)?;
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

    /// The first code that is in force, or else the first.
    fn likely(&self, signed: &SignedParts<'_>) -> Option<&Code> {
        let codes = self.signer(signed.signer)?;
        let mut in_force =
            Self::of_algorithm(codes, signed.algorithm).filter(|code| code.holds(signed.at));
        in_force.next().or_else(|| Self::of_algorithm(codes, signed.algorithm).next())
    }

    /// Checks a signature over the exact bytes that were signed (R7.1). What is proven of it already
    /// is not checked again.
    #[must_use]
    pub fn verify(&self, signed: &SignedParts<'_>, proof: Proof<'_>) -> Verdict {
        let Some(codes) = self.signer(signed.signer) else {
            return Verdict::TrustUnknown;
        };
        let Some(signature) = signed.value.as_deref() else {
            return Verdict::Invalid;
        };
        let mut verdict = Verdict::Invalid;
        for code in Self::of_algorithm(codes, signed.algorithm) {
            let in_force = code.holds(signed.at);
            // A code that could not change the verdict need not be tried.
            if (in_force || verdict == Verdict::Invalid)
                && (proof.is_by(self.key(code)) || self.verifies(code, signed, signature))
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
        let codes = self.signer(signed.signer)?;
        let code = Self::of_algorithm(codes, signed.algorithm)
            .filter(|code| code.holds(signed.at))
            .find(|code| self.verifies(code, signed, signature))?;
        Some(TrustFact {
            algorithm: code.algorithm,
            public_key: STANDARD.encode(self.spki(code)),
            valid_from: code.valid_from,
            valid_to: (code.valid_to != EpochSeconds::MAX).then_some(code.valid_to),
        })
    }
}

/// A trust code without an end ends where a later one of its UDI starts (R7.2). They come by their start.
fn end_where_overwritten(of_device: &mut [Code]) {
    let mut next = EpochSeconds::MAX;
    for group in of_device.chunk_by_mut(|a, b| a.valid_from == b.valid_from).rev() {
        for code in &mut *group {
            if code.valid_to == EpochSeconds::MAX {
                code.valid_to = next;
            }
        }
        next = group[0].valid_from;
    }
}
