//! Strings of JSON text: where they end, what they stand for, whether they are a name.

use std::borrow::Cow;

use fearless_simd::prelude::*;
use fearless_simd::{Level, dispatch, u8x16};

use super::{Fault, FaultKind, Reader, Result};

/// A string as it stands between its quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Text<'a> {
    raw: &'a str,
    escaped: bool,
    pub(super) offset: usize,
}

impl<'a> Text<'a> {
    /// The string's own characters, after unescaping.
    ///
    /// # Errors
    /// A `\u` escape that is half of a surrogate pair only: it stands for no character.
    pub fn unescape(&self) -> Result<Cow<'a, str>, Fault> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.raw));
        }
        unescape(self.raw)
            .map(Cow::Owned)
            .ok_or(Fault { kind: FaultKind::Syntax(LONE_SURROGATE), offset: self.offset })
    }

    /// True if the string is this name, however it is escaped.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        if self.escaped {
            return unescape(self.raw).is_some_and(|s| s == name);
        }
        same(self.raw.as_bytes(), name.as_bytes())
    }
}

/// Compares names. They are short, and a report has a hundred of them: a call for each would take longer than
/// the comparison.
#[inline(always)]
fn same(a: &[u8], b: &[u8]) -> bool {
    if a.len() != b.len() {
        return false;
    }
    match (a.first_chunk::<8>(), b.first_chunk::<8>(), a.last_chunk::<8>(), b.last_chunk::<8>()) {
        (Some(start), Some(of_b), Some(end), Some(end_of_b)) => {
            // Up to 16 bytes, the first and the last eight are all of them.
            start == of_b && end == end_of_b && (a.len() <= 16 || a == b)
        }
        _ => a.iter().zip(b).all(|(a, b)| a == b),
    }
}

/// A string that was unescaped while it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unescaped(Result<Vec<u8>, Fault>);

impl Unescaped {
    /// The string's own characters, as UTF-8.
    ///
    /// # Errors
    /// As [`Text::unescape`].
    pub fn into_bytes(self) -> Result<Vec<u8>, Fault> {
        self.0
    }
}

/// Bytes that no string holds as they are: its quote, the backslash, control characters.
fn ends_plain_text(byte: u8) -> bool {
    byte < 0x20 || byte == b'"' || byte == b'\\'
}

/// Bytes that are looked at together. Nearly every name and value of a report is shorter, and so is what stands
/// between two quotes of JSON in JSON: then each takes one step, and the processor guesses rightly that it does.
const WORD: usize = 16;

/// How many bytes of a word come before one that ends plain text; all of them if none does.
#[inline(always)]
fn plain_of_word(word: [u8; WORD]) -> usize {
    // Instructions that every processor of the architecture has: then nothing is asked while running.
    dispatch!(Level::baseline(), simd => {
        let word = u8x16::simd_from(simd, word);
        let plain_text_ends = word.simd_lt(0x20) | word.simd_eq(b'"') | word.simd_eq(b'\\');
        (plain_text_ends.to_bitmask() | 1 << WORD).trailing_zeros() as usize
    })
}

/// How many bytes come before one that ends plain text; `None` if none does. Many at a time: a report
/// is read through twice, and most of it is strings.
#[inline]
fn plain_text(bytes: &[u8]) -> Option<usize> {
    let (words, rest) = bytes.as_chunks::<WORD>();
    for (i, word) in words.iter().enumerate() {
        let plain = plain_of_word(*word);
        if plain < WORD {
            return Some(WORD * i + plain);
        }
    }
    let at = rest.iter().position(|b| ends_plain_text(*b))?;
    Some(bytes.len() - rest.len() + at)
}

impl<'a> Reader<'a> {
    pub(super) fn string(&mut self) -> Result<Text<'a>> {
        let offset = self.pos;
        self.pos += 1;
        let start = self.pos;
        let mut escaped = false;
        let bytes = self.bytes;
        let mut pos = start;
        loop {
            let Some(plain) = plain_text(&bytes[pos..]) else {
                self.pos = bytes.len();
                return self.fault(FaultKind::Incomplete);
            };
            pos += plain;
            match bytes[pos] {
                b'"' => break,
                // By far the most frequent: JSON in JSON.
                b'\\' if bytes.get(pos + 1) == Some(&b'"') => {
                    escaped = true;
                    pos += 2;
                }
                b'\\' => {
                    escaped = true;
                    self.pos = pos;
                    self.escape()?;
                    pos = self.pos;
                }
                _ => {
                    self.pos = pos;
                    return self.syntax("a control character in a string");
                }
            }
        }
        self.pos = pos;
        // Both ends stand next to an ASCII quote, so the slice is on character boundaries.
        let raw = &self.text[start..self.pos];
        self.pos += 1;
        Ok(Text { raw, escaped, offset })
    }

    /// Takes a string that starts here, and unescapes it in the same pass: for long ones whose every
    /// character is wanted.
    pub fn long_string(&mut self) -> Result<Unescaped> {
        if self.peek() != Some(b'"') {
            return self.syntax("expected a string");
        }
        let offset = self.pos;
        self.pos += 1;
        // Whole words are copied, of which only the plain part counts; an escape is never shorter than
        // what it stands for, so there is room enough.
        let mut out = vec![0; self.bytes.len() - self.pos + WORD];
        let mut length = 0;
        let mut is_text = true;
        let bytes = self.bytes;
        let mut pos = self.pos;
        loop {
            if let Some(word) = bytes[pos..].first_chunk::<WORD>() {
                out[length..length + WORD].copy_from_slice(word);
                let plain = plain_of_word(*word);
                pos += plain;
                length += plain;
                if plain == WORD {
                    continue;
                }
            }
            match bytes.get(pos) {
                None => {
                    self.pos = pos;
                    return self.fault(FaultKind::Incomplete);
                }
                Some(b'"') => break,
                // By far the most frequent: JSON in JSON.
                Some(b'\\') if bytes.get(pos + 1) == Some(&b'"') => {
                    out[length] = b'"';
                    length += 1;
                    pos += 2;
                }
                Some(b'\\') => {
                    self.pos = pos;
                    match self.unescape_here()? {
                        Some(c) => length += c.encode_utf8(&mut out[length..]).len(),
                        None => is_text = false,
                    }
                    pos = self.pos;
                }
                Some(byte) if ends_plain_text(*byte) => {
                    self.pos = pos;
                    return self.syntax("a control character in a string");
                }
                // Near the end of the text there is no whole word.
                Some(byte) => {
                    out[length] = *byte;
                    length += 1;
                    pos += 1;
                }
            }
        }
        self.pos = pos + 1;
        out.truncate(length);
        let lone = Fault { kind: FaultKind::Syntax(LONE_SURROGATE), offset };
        Ok(Unescaped(if is_text { Ok(out) } else { Err(lone) }))
    }

    /// Takes the escape that starts here, of a surrogate pair both; `None` for half of a pair.
    fn unescape_here(&mut self) -> Result<Option<char>> {
        let at = self.pos;
        self.escape()?;
        // The second half of a pair belongs to the escape of the first.
        if self.bytes[at + 1] == b'u'
            && self.bytes[self.pos..].starts_with(b"\\u")
            && hex4(&self.text[at + 2..]).is_some_and(|h| (0xd800..0xdc00).contains(&h))
        {
            self.escape()?;
        }
        let mut out = String::new();
        let rest = unescape_one(&self.text[at + 1..self.pos], &mut out);
        Ok(rest.filter(|rest| rest.is_empty()).and_then(|_| out.chars().next()))
    }

    fn escape(&mut self) -> Result<()> {
        self.pos += 1;
        match self.bytes.get(self.pos) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => self.pos += 1,
            Some(b'u') => {
                self.pos += 1;
                for _ in 0..4 {
                    match self.bytes.get(self.pos) {
                        Some(b) if b.is_ascii_hexdigit() => self.pos += 1,
                        _ => return self.syntax("expected four hexadecimal digits"),
                    }
                }
            }
            _ => return self.syntax("an unknown escape in a string"),
        }
        Ok(())
    }
}

const LONE_SURROGATE: &str = "a lone surrogate in a string";

/// Unescapes a string whose escapes were checked; `None` for half a surrogate pair.
fn unescape(raw: &str) -> Option<String> {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    // Raw text has neither quotes nor control characters: the next of them is a backslash.
    while let Some(at) = plain_text(rest.as_bytes()) {
        out.push_str(&rest[..at]);
        rest = unescape_one(&rest[at + 1..], &mut out)?;
    }
    out.push_str(rest);
    Some(out)
}

/// Unescapes what stands behind a backslash, and gives what follows.
fn unescape_one<'a>(text: &'a str, out: &mut String) -> Option<&'a str> {
    let mut rest = &text[1..];
    out.push(match text.as_bytes()[0] {
        b'"' => '"',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        b'u' => {
            let high = hex4(rest)?;
            rest = &rest[4..];
            if (0xd800..0xdc00).contains(&high) {
                let low =
                    hex4(rest.strip_prefix("\\u")?).filter(|l| (0xdc00..0xe000).contains(l))?;
                rest = &rest[6..];
                char::from_u32(0x10000 + ((high - 0xd800) << 10) + (low - 0xdc00))?
            } else {
                char::from_u32(high)?
            }
        }
        plain => char::from(plain),
    });
    Some(rest)
}

fn hex4(text: &str) -> Option<u32> {
    u32::from_str_radix(text.get(..4)?, 16).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::core::json::Scalar;

    #[test]
    fn names_are_the_same_if_all_of_their_bytes_are() {
        let name = "the name of something";
        for length in 0..=name.len() {
            let name = &name[..length];
            assert!(same(name.as_bytes(), name.as_bytes()), "{name}");
            for other in 0..length {
                let mut bytes = name.as_bytes().to_vec();
                bytes[other] ^= 1;
                assert!(!same(name.as_bytes(), &bytes), "{name}: {other}");
                assert!(!same(name.as_bytes(), &bytes[..other]), "{name}: {other}");
            }
        }
    }

    #[test]
    fn plain_text_ends_wherever_it_may() {
        for length in 0..3 * WORD {
            let plain = "é".repeat(length / 2) + &"a".repeat(length % 2);
            assert_eq!(plain_text(plain.as_bytes()), None, "{length}");
            for end in ["\"", "\\", "\0", "\u{1f}"] {
                let text = format!("{plain}{end}\"{plain}");
                assert_eq!(plain_text(text.as_bytes()), Some(length), "{text:?}");
            }
        }
    }

    fn text_of(string: Unescaped) -> Result<String, Fault> {
        string.into_bytes().map(|bytes| String::from_utf8(bytes).unwrap())
    }

    proptest! {
        /// The two ways to read a string find the same fault at the same place.
        #[test]
        fn a_long_string_is_read_as_a_short_one(rest in "[a-c\"\\\\\u{1}\u{9}é0-9un]{0,40}") {
            let text = format!("\"{rest}");
            let (mut short, mut long) = (Reader::new(&text, 64), Reader::new(&text, 64));
            match (short.scalar(), long.long_string()) {
                (Ok(Scalar::String(short)), Ok(long)) => {
                    prop_assert_eq!(short.unescape().map(Cow::into_owned), text_of(long));
                }
                (Err(short), Err(long)) => prop_assert_eq!(short, long),
                (short, long) => prop_assert!(false, "{:?} {:?}", short, long),
            }
            prop_assert_eq!(short.offset(), long.offset());
        }

        #[test]
        fn unescapes_as_serde_json(inner in r#"([a-zé☃]|\\[nrtbf/"\\]|\\u[0-9a-fA-F]{4}|\\ud83d\\ude00){0,12}"#) {
            let text = format!("\"{inner}\"");
            let mut reader = Reader::new(&text, 64);
            let Ok(Scalar::String(string)) = reader.scalar() else { panic!("no string: {text}") };
            let theirs: Option<String> = serde_json::from_str(&text).ok();
            prop_assert_eq!(string.unescape().ok().map(Cow::into_owned), theirs.clone());
            let mut reader = Reader::new(&text, 64);
            let long = text_of(reader.long_string().unwrap());
            prop_assert_eq!(reader.offset(), text.len());
            if let (Err(long), Err(short)) = (&long, string.unescape()) {
                prop_assert_eq!(*long, short);
            }
            prop_assert_eq!(long.ok(), theirs);
        }
    }
}
