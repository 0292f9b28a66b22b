//! The little of DER that keys and signatures have (X.690, 8 and 10).

pub(super) const INTEGER: u8 = 0x02;
pub(super) const BIT_STRING: u8 = 0x03;
pub(super) const SEQUENCE: u8 = 0x30;

/// The content of the element at the start of the bytes, and what follows it. Lengths have their one
/// form, of up to two bytes.
pub(super) fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (&length, rest) = der.strip_prefix(&[tag])?.split_first()?;
    let (length, rest) = match (length, rest) {
        (0..=0x7f, rest) => (usize::from(length), rest),
        (0x81, &[a @ 0x80..=0xff, ref rest @ ..]) => (usize::from(a), rest),
        (0x82, &[a @ 1..=0xff, b, ref rest @ ..]) => {
            (usize::from(u16::from_be_bytes([a, b])), rest)
        }
        _ => return None,
    };
    rest.split_at_checked(length)
}

/// The bytes of an integer above zero, the highest first and not zero.
pub(super) fn natural(integer: &[u8]) -> Option<&[u8]> {
    match integer {
        [0x01..=0x7f, ..] => Some(integer),
        // A zero keeps a set bit apart from a sign, and stands nowhere else.
        [0, magnitude @ ..] if magnitude.first().is_some_and(|first| first & 0x80 != 0) => {
            Some(magnitude)
        }
        _ => None,
    }
}
