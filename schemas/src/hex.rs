//! Hexadecimal as it is written here: lower-case.

/// Two digits for each byte.
#[must_use]
pub fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = vec![0; 2 * bytes.len()];
    for (digits, byte) in text.as_chunks_mut::<2>().0.iter_mut().zip(bytes) {
        *digits = [DIGITS[usize::from(byte >> 4)], DIGITS[usize::from(byte & 15)]];
    }
    String::from_utf8(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::hex;

    #[test]
    fn every_byte_has_two_digits() {
        for (bytes, text) in
            [(&[][..], ""), (&[0x00, 0x0f, 0xf0, 0xff], "000ff0ff"), (&[0xa5], "a5")]
        {
            assert_eq!(hex(bytes), text);
        }
    }
}
