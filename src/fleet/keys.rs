//! Signing keys of the made-up devices.

use anyhow::anyhow;
use aws_lc_rs::encoding::{AsDer as _, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeyPair as RsaKeyPair;
use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair as _, RSA_PKCS1_SHA256};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use p256::ecdsa::signature::Signer as _;
use p256::ecdsa::{DerSignature, SigningKey, VerifyingKey};
use schemas::key::Algorithm;

use super::rng::Rng;
use crate::cli::RsaBits;

/// Published on purpose, and worth nothing: they sign made-up reports only.
const DEMO_RSA_KEYS: [&[u8]; 2] =
    [include_bytes!("demo-rsa-1.der"), include_bytes!("demo-rsa-2.der")];
const DEMO_RSA_KEYS_4096: [&[u8]; 2] =
    [include_bytes!("demo-rsa4096-1.der"), include_bytes!("demo-rsa4096-2.der")];

/// SPKI DER of an Ed25519 key, before its 32 bytes (RFC 8410).
const ED25519_SPKI: [u8; 12] =
    [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// SPKI DER of a P-256 key, before its 65 bytes (RFC 5480).
const P256_SPKI: [u8; 26] = [
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48, 0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a,
    0x86, 0x48, 0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
];

pub struct Keys {
    seed: u64,
    rsa: Vec<RsaKeyPair>,
    random: SystemRandom,
}

impl Keys {
    pub fn new(seed: u64, rsa_bits: RsaBits) -> anyhow::Result<Keys> {
        let rsa = match rsa_bits {
            RsaBits::Of2048 => DEMO_RSA_KEYS,
            RsaBits::Of4096 => DEMO_RSA_KEYS_4096,
        };
        let rsa = rsa
            .iter()
            .map(|der| {
                RsaKeyPair::from_pkcs8(der).map_err(|e| anyhow!("a demo key is broken: {e}"))
            })
            .collect::<anyhow::Result<_>>()?;
        Ok(Keys { seed, rsa, random: SystemRandom::new() })
    }

    fn rsa(&self, device: u64) -> &RsaKeyPair {
        &self.rsa[usize::from(device % 2 == 1)]
    }

    fn ed25519(&self, device: u64) -> anyhow::Result<Ed25519KeyPair> {
        let seed = Rng::of(self.seed, "ed25519", device).bytes();
        Ed25519KeyPair::from_seed_unchecked(&seed).map_err(|e| anyhow!("no Ed25519 key: {e}"))
    }

    fn p256(&self, device: u64) -> anyhow::Result<SigningKey> {
        let secret = Rng::of(self.seed, "p256", device).bytes();
        SigningKey::from_slice(&secret).map_err(|e| anyhow!("no P-256 key: {e}"))
    }

    /// The device's public key: SPKI DER in base64.
    pub fn public_key(&self, algorithm: Algorithm, device: u64) -> anyhow::Result<String> {
        let der = match algorithm {
            Algorithm::Rs256 => {
                let der: PublicKeyX509Der<'_> = self
                    .rsa(device)
                    .public_key()
                    .as_der()
                    .map_err(|e| anyhow!("no RSA key: {e}"))?;
                der.as_ref().to_vec()
            }
            Algorithm::EdDsa => {
                [&ED25519_SPKI[..], self.ed25519(device)?.public_key().as_ref()].concat()
            }
            Algorithm::Es256 => {
                let key = VerifyingKey::from(&self.p256(device)?);
                [&P256_SPKI[..], key.to_sec1_point(false).as_bytes()].concat()
            }
        };
        Ok(STANDARD.encode(der))
    }

    /// Signs a payload; the same payload gives the same signature (P-256 by RFC 6979).
    pub fn sign(
        &self,
        algorithm: Algorithm,
        device: u64,
        payload: &[u8],
    ) -> anyhow::Result<String> {
        let signature = match algorithm {
            Algorithm::Rs256 => {
                let key = self.rsa(device);
                let mut out = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &self.random, payload, &mut out)
                    .map_err(|e| anyhow!("cannot sign: {e}"))?;
                out
            }
            Algorithm::EdDsa => self.ed25519(device)?.sign(payload).as_ref().to_vec(),
            Algorithm::Es256 => {
                let signature: DerSignature = self.p256(device)?.sign(payload);
                signature.as_bytes().to_vec()
            }
        };
        Ok(STANDARD.encode(signature))
    }
}
