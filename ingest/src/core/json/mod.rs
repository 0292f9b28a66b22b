//! A strict, non-recursive reader of JSON (RFC 8259) over borrowed bytes.
//!
//! It stands where a library would not do: the contract bounds depth, refuses a key that is read
//! twice, wants the exact bytes of a value, and says which fault was met first. Everything happens
//! in one pass, nothing is copied but strings with escapes, and no input makes it recurse: callers
//! descend only into structure that they know, and [`Reader::skip`] keeps its own small stack.

mod strings;

pub use strings::{Text, Unescaped};

/// Why reading stopped, and at which byte of the text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    pub kind: FaultKind,
    pub offset: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FaultKind {
    /// Not JSON; the text says what was expected.
    Syntax(&'static str),
    /// A key that is read comes twice in one object.
    DuplicateKey,
    /// Containers are nested deeper than allowed.
    TooDeep,
    /// An array that is read has more elements than allowed.
    TooMany,
    /// The text ends inside a value. Where more text may come, this is no fault yet.
    Incomplete,
}

/// What stands at the reader, one byte ahead.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Object,
    Array,
    String,
    Number,
    Boolean,
    Null,
}

/// A value that is not descended into.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scalar<'a> {
    String(Text<'a>),
    /// The number's own characters.
    Number(&'a str),
    Boolean(bool),
    Null,
    /// An object or array, as it stands in the text.
    Container(&'a str),
}

/// Marks keys of one object as seen, so that one that is read twice is noticed.
#[derive(Default)]
pub struct Seen(u32);

pub struct Reader<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pos: usize,
    depth: u32,
    depth_max: u32,
}

type Result<T, E = Fault> = std::result::Result<T, E>;

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(text: &'a str, depth_max: u32) -> Self {
        debug_assert!(depth_max <= 128, "the stack of skip holds one bit a level");
        Reader { text, bytes: text.as_bytes(), pos: 0, depth: 0, depth_max }
    }

    /// Byte offset in the text.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.pos
    }

    /// The text that is left.
    #[must_use]
    pub fn rest(&self) -> &'a str {
        &self.text[self.pos..]
    }

    pub fn fault<T>(&self, kind: FaultKind) -> Result<T> {
        Err(Fault { kind, offset: self.pos })
    }

    fn syntax<T>(&self, expected: &'static str) -> Result<T> {
        let at_end = self.pos >= self.bytes.len();
        self.fault(if at_end { FaultKind::Incomplete } else { FaultKind::Syntax(expected) })
    }

    pub fn skip_whitespace(&mut self) {
        while let Some(b' ' | b'\n' | b'\r' | b'\t') = self.bytes.get(self.pos) {
            self.pos += 1;
        }
    }

    /// The next byte that is not white space, without taking it.
    pub fn peek(&mut self) -> Option<u8> {
        self.skip_whitespace();
        self.bytes.get(self.pos).copied()
    }

    /// The kind of the value that comes next.
    pub fn kind(&mut self) -> Result<Kind> {
        match self.peek() {
            Some(b'{') => Ok(Kind::Object),
            Some(b'[') => Ok(Kind::Array),
            Some(b'"') => Ok(Kind::String),
            Some(b'-' | b'0'..=b'9') => Ok(Kind::Number),
            Some(b't' | b'f') => Ok(Kind::Boolean),
            Some(b'n') => Ok(Kind::Null),
            _ => self.syntax("expected a value"),
        }
    }

    fn take(&mut self, byte: u8, expected: &'static str) -> Result<()> {
        self.skip_whitespace();
        if self.bytes.get(self.pos) == Some(&byte) {
            self.pos += 1;
            Ok(())
        } else {
            self.syntax(expected)
        }
    }

    /// Holds that nothing but white space is left.
    pub fn end(&mut self) -> Result<()> {
        if self.peek().is_some() {
            return self.syntax("text after the end of the value");
        }
        Ok(())
    }

    fn enter(&mut self) -> Result<()> {
        if self.depth >= self.depth_max {
            return self.fault(FaultKind::TooDeep);
        }
        self.depth += 1;
        Ok(())
    }

    /// Runs `read` with depth counted from zero, for a part that is counted on its own.
    pub fn with_own_depth<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T>) -> Result<T> {
        let outer = std::mem::take(&mut self.depth);
        let result = read(self);
        self.depth = outer;
        result
    }

    /// Reads an object that starts here. `member` is called at each value and must take it.
    pub fn object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<()>,
    ) -> Result<()> {
        self.skip_whitespace();
        self.enter()?;
        self.take(b'{', "expected '{'")?;
        if self.peek() == Some(b'}') {
            self.pos += 1;
        } else {
            self.member(&mut member)?;
            self.more_members(&mut member)?;
        }
        self.depth -= 1;
        Ok(())
    }

    fn member(&mut self, member: &mut impl FnMut(&mut Self, Text<'a>) -> Result<()>) -> Result<()> {
        if self.peek() != Some(b'"') {
            return self.syntax("expected a key in quotes");
        }
        let key = self.string()?;
        self.take(b':', "expected ':'")?;
        member(self, key)
    }

    /// Reads on after a member, to the closing brace.
    fn more_members(
        &mut self,
        member: &mut impl FnMut(&mut Self, Text<'a>) -> Result<()>,
    ) -> Result<()> {
        loop {
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b'}') => break,
                _ => return self.syntax("expected ',' or '}'"),
            }
            self.member(member)?;
        }
        self.pos += 1;
        Ok(())
    }

    /// Takes the comma between two elements.
    pub fn comma(&mut self) -> Result<()> {
        self.take(b',', "expected ',' or ']'")
    }

    /// Reads on after a member of an object, to its closing brace. `member` is called at each value
    /// and must take it.
    pub fn rest_of_object(
        &mut self,
        mut member: impl FnMut(&mut Self, Text<'a>) -> Result<()>,
    ) -> Result<()> {
        self.more_members(&mut member)
    }

    /// The fault of a key that came before.
    pub fn duplicate<T>(&self, key: Text<'_>) -> Result<T> {
        Err(Fault { kind: FaultKind::DuplicateKey, offset: key.offset })
    }

    /// Reads an object of which only some keys are known: `member` gets the index of the key. An
    /// unknown key is passed over, however often it comes; a known one may come once.
    pub fn known(
        &mut self,
        keys: &[&str],
        mut member: impl FnMut(&mut Self, usize) -> Result<()>,
    ) -> Result<()> {
        let mut seen = Seen::default();
        self.object(|reader, key| match keys.iter().position(|k| key.is(k)) {
            None => reader.skip(),
            Some(index) => {
                if seen.0 & (1 << index) != 0 {
                    return reader.duplicate(key);
                }
                seen.0 |= 1 << index;
                member(reader, index)
            }
        })
    }

    /// Reads an array that starts here. `element` is called at each value and must take it.
    pub fn array(&mut self, mut element: impl FnMut(&mut Self) -> Result<()>) -> Result<()> {
        self.skip_whitespace();
        self.enter()?;
        self.take(b'[', "expected '['")?;
        if self.peek() == Some(b']') {
            self.pos += 1;
            self.depth -= 1;
            return Ok(());
        }
        loop {
            element(self)?;
            match self.peek() {
                Some(b',') => self.pos += 1,
                Some(b']') => break,
                _ => return self.syntax("expected ',' or ']'"),
            }
        }
        self.pos += 1;
        self.depth -= 1;
        Ok(())
    }

    /// Takes the value that comes next without descending into it.
    pub fn scalar(&mut self) -> Result<Scalar<'a>> {
        match self.kind()? {
            Kind::String => self.string().map(Scalar::String),
            Kind::Number => self.number().map(Scalar::Number),
            Kind::Boolean => {
                let value = self.bytes[self.pos] == b't';
                self.literal(if value { "true" } else { "false" })?;
                Ok(Scalar::Boolean(value))
            }
            Kind::Null => self.literal("null").map(|()| Scalar::Null),
            Kind::Object | Kind::Array => {
                let start = self.pos;
                self.skip()?;
                Ok(Scalar::Container(&self.text[start..self.pos]))
            }
        }
    }

    /// Passes over the value that comes next, checking its syntax and depth.
    pub fn skip(&mut self) -> Result<()> {
        // One bit a level: set inside an object. Depth is bounded by depth_max, which is at most
        // 128; `levels` counts only containers that this call has entered.
        let mut objects = 0u128;
        let mut levels = 0u32;
        loop {
            match self.kind()? {
                Kind::String => drop(self.string()?),
                Kind::Number => drop(self.number()?),
                Kind::Boolean if self.bytes[self.pos] == b't' => self.literal("true")?,
                Kind::Boolean => self.literal("false")?,
                Kind::Null => self.literal("null")?,
                container @ (Kind::Object | Kind::Array) => {
                    self.enter()?;
                    self.pos += 1;
                    levels += 1;
                    objects = objects << 1 | u128::from(container == Kind::Object);
                    let closing = if container == Kind::Object { b'}' } else { b']' };
                    if self.peek() != Some(closing) {
                        if container == Kind::Object {
                            self.key()?;
                        }
                        continue;
                    }
                }
            }
            // A value is complete: close what closes here, then go on to the next value.
            loop {
                if levels == 0 {
                    return Ok(());
                }
                let in_object = objects & 1 == 1;
                match self.peek() {
                    Some(b',') => {
                        self.pos += 1;
                        if in_object {
                            self.key()?;
                        }
                        break;
                    }
                    Some(b'}') if in_object => {}
                    Some(b']') if !in_object => {}
                    _ if in_object => return self.syntax("expected ',' or '}'"),
                    _ => return self.syntax("expected ',' or ']'"),
                }
                self.pos += 1;
                self.depth -= 1;
                levels -= 1;
                objects >>= 1;
            }
        }
    }

    fn key(&mut self) -> Result<()> {
        if self.peek() != Some(b'"') {
            return self.syntax("expected a key in quotes");
        }
        self.string()?;
        self.take(b':', "expected ':'")
    }

    fn literal(&mut self, word: &'static str) -> Result<()> {
        let rest = &self.bytes[self.pos..];
        let same = rest.iter().zip(word.bytes()).take_while(|(a, b)| **a == *b).count();
        self.pos += same;
        if same < word.len() {
            return self.syntax("expected true, false or null");
        }
        Ok(())
    }

    fn digits(&mut self) -> Result<()> {
        let start = self.pos;
        while self.bytes.get(self.pos).is_some_and(u8::is_ascii_digit) {
            self.pos += 1;
        }
        if self.pos == start { self.syntax("expected a digit") } else { Ok(()) }
    }

    fn number(&mut self) -> Result<&'a str> {
        let start = self.pos;
        if self.bytes[self.pos] == b'-' {
            self.pos += 1;
        }
        if self.bytes.get(self.pos) == Some(&b'0') {
            self.pos += 1;
        } else {
            self.digits()?;
        }
        if self.bytes.get(self.pos) == Some(&b'.') {
            self.pos += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.bytes.get(self.pos) {
            self.pos += 1;
            if let Some(b'+' | b'-') = self.bytes.get(self.pos) {
                self.pos += 1;
            }
            self.digits()?;
        }
        Ok(&self.text[start..self.pos])
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn skip_all(text: &str, depth_max: u32) -> Result<()> {
        let mut reader = Reader::new(text, depth_max);
        reader.skip()?;
        reader.end()
    }

    #[test]
    fn syntax_is_that_of_rfc_8259() {
        for good in [
            "0",
            "-0",
            "1.5e+3",
            "\"\"",
            "\"\\u00e9\\n\"",
            "[]",
            "{}",
            "[1,[2,{}]]",
            "{\"a\":{\"b\":[null,true,false]},\"a\":1}",
            " [ 1 , 2 ] \n",
            "\"é\u{2028}\"",
        ] {
            assert_eq!(skip_all(good, 64), Ok(()), "{good}");
        }
        for bad in [
            "01",
            "1.",
            ".5",
            "+1",
            "1e",
            "nul",
            "nulll",
            "tru",
            "'a'",
            "[1,]",
            "{,}",
            "{\"a\"}",
            "{\"a\":1,}",
            "[1 2]",
            "{]",
            "[}",
            "\"\t\"",
            "\"\\x\"",
            "\"\\u12g4\"",
            "NaN",
            "1 2",
            "{a:1}",
        ] {
            assert!(skip_all(bad, 64).is_err(), "{bad}");
            assert!(serde_json::from_str::<serde::de::IgnoredAny>(bad).is_err(), "{bad}");
        }
        for cut in ["", "[", "{\"a", "{\"a\":", "\"ab", "[1,", "tr", "-", "\"\\u12"] {
            assert_eq!(skip_all(cut, 64).unwrap_err().kind, FaultKind::Incomplete, "{cut}");
        }
    }

    #[test]
    fn depth_is_bounded_without_recursion() {
        let nested = |n: usize| "[".repeat(n) + &"]".repeat(n);
        assert_eq!(skip_all(&nested(64), 64), Ok(()));
        let fault = skip_all(&nested(65), 64).unwrap_err();
        assert_eq!((fault.kind, fault.offset), (FaultKind::TooDeep, 64));
        assert_eq!(
            skip_all(&"[{\"a\":".repeat(1_000_000), 64).unwrap_err().kind,
            FaultKind::TooDeep
        );
    }

    #[test]
    fn a_known_key_comes_once() {
        let read = |text: &str| Reader::new(text, 64).known(&["a"], |r, _| r.skip());
        assert_eq!(read(r#"{"b":1,"b":2,"a":3}"#), Ok(()));
        for twice in [r#"{"a":1,"a":1}"#, r#"{"a":1,"\u0061":1}"#] {
            assert_eq!(read(twice).unwrap_err().kind, FaultKind::DuplicateKey, "{twice}");
        }
    }

    proptest! {
        /// The reader takes exactly what serde_json takes, and unescapes as it does.
        #[test]
        fn agrees_with_serde_json(text in r#"[\[\]{}:,"\\u0-9a-fdDeE.+\- tnrl]{0,24}"#) {
            let ours = skip_all(&text, 64);
            let theirs = serde_json::from_str::<serde::de::IgnoredAny>(&text);
            prop_assert_eq!(ours.is_ok(), theirs.is_ok(), "{:?} {:?}", ours, theirs.err());
        }
    }
}
