//! Public keys of trust codes: the three algorithms of contract 1.2, parsed once.

use aws_lc_rs::rsa::PublicEncryptingKey;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ED25519, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256,
};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

/// The signature algorithms that a trust code may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Algorithm {
    /// RSA PKCS#1 v1.5 with SHA-256, 2048 to 4096 bits (RFC 7518, 3.3).
    Rs256,
    /// P-256 with SHA-256, signature as ASN.1 DER.
    Es256,
    /// Ed25519 (RFC 8032).
    EdDsa,
}

impl Algorithm {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Algorithm::Rs256 => "RS256",
            Algorithm::Es256 => "ES256",
            Algorithm::EdDsa => "EdDSA",
        }
    }

    #[must_use]
    pub fn parse(token: &str) -> Option<Algorithm> {
        [Algorithm::Rs256, Algorithm::Es256, Algorithm::EdDsa]
            .into_iter()
            .find(|a| a.as_str() == token)
    }
}

/// Parses a public key (SPKI DER in base64) of a trust code.
///
/// # Errors
/// Text for a person, when the key is not base64, not SPKI, or not of the algorithm and size of
/// contract 1.2.
pub fn parse_public_key(
    algorithm: Algorithm,
    spki_base64: &str,
) -> Result<ParsedPublicKey, String> {
    let der = STANDARD.decode(spki_base64).map_err(|e| format!("the key is not base64: {e}"))?;
    parse_spki(algorithm, &der)
}

/// Parses a public key in SPKI DER.
///
/// # Errors
/// As [`parse_public_key`].
pub fn parse_spki(algorithm: Algorithm, der: &[u8]) -> Result<ParsedPublicKey, String> {
    // A bare point or a PKCS#1 key would be taken by the parser too; the contract says SPKI, which
    // is a DER sequence that starts with the algorithm's own sequence.
    let misfit = || format!("the key is no {} public key in SPKI DER", algorithm.as_str());
    if !is_spki(der) {
        return Err(misfit());
    }
    match algorithm {
        Algorithm::Rs256 => {
            let bits = PublicEncryptingKey::from_der(der).map_err(|_| misfit())?.key_size_bits();
            if !(2048..=4096).contains(&bits) {
                return Err(format!("the RSA key has {bits} bits, allowed are 2048 to 4096"));
            }
            ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).map_err(|_| misfit())
        }
        Algorithm::Es256 => {
            ParsedPublicKey::new(&ECDSA_P256_SHA256_ASN1, der).map_err(|_| misfit())
        }
        Algorithm::EdDsa => ParsedPublicKey::new(&ED25519, der).map_err(|_| misfit()),
    }
}

/// True if the bytes begin as SEQUENCE { SEQUENCE { OBJECT IDENTIFIER … (RFC 5280, 4.1).
fn is_spki(der: &[u8]) -> bool {
    fn sequence_body(der: &[u8]) -> Option<&[u8]> {
        let (&tag, rest) = der.split_first()?;
        let (&length, rest) = rest.split_first()?;
        let skip = if length & 0x80 == 0 { 0 } else { usize::from(length & 0x7f) };
        (tag == 0x30).then(|| rest.get(skip..)).flatten()
    }
    sequence_body(der).and_then(sequence_body).is_some_and(|body| body.first() == Some(&0x06))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_do_not_fit_are_refused() {
        let ed25519 = "MCowBQYDK2VwAyEAxIN+DsEGQJChGWhRvF+Qh6jqFvp/2nQ5dZ/saUDlc0E=";
        for (algorithm, key, fits) in [
            (Algorithm::EdDsa, ed25519, true),
            (Algorithm::Es256, ed25519, false),
            (Algorithm::Rs256, ed25519, false),
            (Algorithm::EdDsa, "xIN+DsEGQJChGWhRvF+Qh6jqFvp/2nQ5dZ/saUDlc0E=", false),
            (Algorithm::EdDsa, "not base64!", false),
            (Algorithm::EdDsa, "", false),
        ] {
            assert_eq!(parse_public_key(algorithm, key).is_ok(), fits, "{algorithm:?} {key}");
        }
    }
}
