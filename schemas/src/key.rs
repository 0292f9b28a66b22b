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

/// The object identifier rsaEncryption (RFC 8017, A.1), in DER.
const RSA_ENCRYPTION: &[u8] = &[0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 1, 1, 1];

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
    let oid = algorithm_of(der).ok_or_else(misfit)?;
    match algorithm {
        // The parser takes a key for RSASSA-PSS too, which verifies nothing of this algorithm.
        Algorithm::Rs256 if !oid.starts_with(RSA_ENCRYPTION) => Err(misfit()),
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

/// The algorithm of SEQUENCE { SEQUENCE { OBJECT IDENTIFIER … } … } (RFC 5280, 4.1), and nothing behind it: an
/// object identifier, and what else the inner sequence holds.
fn algorithm_of(spki: &[u8]) -> Option<&[u8]> {
    let (spki, behind) = sequence(spki)?;
    let (algorithm, _) = sequence(spki)?;
    (behind.is_empty() && algorithm.first() == Some(&0x06)).then_some(algorithm)
}

/// What a DER sequence holds, and what stands behind it.
fn sequence(der: &[u8]) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.strip_prefix(&[0x30])?.split_first()?;
    if length < 0x80 {
        return rest.split_at_checked(usize::from(length));
    }
    // Lengths of a key take two bytes at most.
    let (length, rest) = match length {
        0x81 => rest.split_first().map(|(&length, rest)| (usize::from(length), rest)),
        0x82 => rest
            .split_first_chunk()
            .map(|(&length, rest)| (usize::from(u16::from_be_bytes(length)), rest)),
        _ => None,
    }?;
    rest.split_at_checked(length)
}

#[cfg(test)]
mod tests {
    use super::*;

    const RSA: &str = "MIIBIjANBgkqhkiG9w0BAQEFAAOCAQ8AMIIBCgKCAQEAlQwY8sXvZBm9rpWyDBrIxBj0clUmCbQcVT+MUQJOdZcfMuPvRWbbddK05qdAa1yZFyMFl/ap7lRQhY7hhg/J/DuEUXGNUXD850AdDVVfB7G7NCLgneDR3UuVog/bTcejOzZw8ShU+qybz1XSwcCfc2jVfrRs1vU/8qGuU7fUw1lSl/Pl0SGTXcmeuPm0yiQW1A+kHVvh6A4d/eBHzq4pwB6ZF0rEcGoN7befma9jC6dHIFSW7w7FqhQBFFhSp/QPJetlRU/KAygtbu76yvc766CF7VrcRzsc3ZQ4F1J+UbqDsQBh9Or94UHBG4M2begwXcTpFYoHLexCLsYrgmyF2wIDAQAB";
    /// The same numbers, for RSASSA-PSS alone.
    const RSA_PSS: &str = "MIIBIDALBgkqhkiG9w0BAQoDggEPADCCAQoCggEBAJUMGPLF72QZva6VsgwayMQY9HJVJgm0HFU/jFECTnWXHzLj70Vm23XStOanQGtcmRcjBZf2qe5UUIWO4YYPyfw7hFFxjVFw/OdAHQ1VXwexuzQi4J3g0d1LlaIP203Hozs2cPEoVPqsm89V0sHAn3No1X60bNb1P/KhrlO31MNZUpfz5dEhk13Jnrj5tMokFtQPpB1b4egOHf3gR86uKcAemRdKxHBqDe23n5mvYwunRyBUlu8OxaoUARRYUqf0DyXrZUVPygMoLW7u+sr3O+ughe1a3Ec7HN2UOBdSflG6g7EAYfTq/eFBwRuDNm3oMF3E6RWKBy3sQi7GK4JshdsCAwEAAQ==";

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
            // One byte more.
            (
                Algorithm::EdDsa,
                "MCowBQYDK2VwAyEAxIN+DsEGQJChGWhRvF+Qh6jqFvp/2nQ5dZ/saUDlc0EA",
                false,
            ),
            (
                Algorithm::Es256,
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUVkLelFRQNLXhMhWCGaP3++Mgv0fW+UkIVVKDcPQM+3gwX2okEpyfYrhvza/inkmDQEvANTYCIjR0LtE/aFtpA==",
                true,
            ),
            (
                Algorithm::Es256,
                "MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEUVkLelFRQNLXhMhWCGaP3++Mgv0fW+UkIVVKDcPQM+3gwX2okEpyfYrhvza/inkmDQEvANTYCIjR0LtE/aFtpAA=",
                false,
            ),
            (Algorithm::Rs256, RSA, true),
            (Algorithm::Rs256, RSA_PSS, false),
        ] {
            assert_eq!(parse_public_key(algorithm, key).is_ok(), fits, "{algorithm:?} {key}");
        }
    }
}
