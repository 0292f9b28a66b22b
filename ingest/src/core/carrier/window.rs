//! A bounded window that slides over an input, so that no input is held in memory whole.

use std::borrow::Cow;
use std::io::{self, Read};

use simdutf8::compat::from_utf8;

const STEP: usize = 256 << 10;

pub(super) struct Window<'b, R> {
    input: R,
    /// Borrowed where all of the input is in memory.
    buffer: Cow<'b, [u8]>,
    start: usize,
    ended: bool,
    /// Bytes of the input that were passed.
    passed: u64,
}

impl<'b> Window<'b, io::Empty> {
    /// A window over all of an input that is in memory.
    pub(super) fn whole(bytes: &'b [u8]) -> Self {
        let buffer = Cow::Borrowed(bytes);
        Window { input: io::empty(), buffer, start: 0, ended: true, passed: 0 }
    }
}

impl<R: Read> Window<'_, R> {
    pub(super) fn new(input: R) -> Self {
        Window { input, buffer: Cow::Owned(Vec::new()), start: 0, ended: false, passed: 0 }
    }

    /// The data and what follows it.
    pub(super) fn into_input(self) -> impl Read {
        io::Cursor::new(self.data().to_vec()).chain(self.input)
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The longest prefix of the data that is UTF-8, and whether what follows it can never be.
    pub(super) fn text(&self) -> (&str, bool) {
        match from_utf8(self.data()) {
            Ok(text) => (text, false),
            Err(error) => {
                let valid = &self.data()[..error.valid_up_to()];
                let broken = error.error_len().is_some() || self.ended;
                (from_utf8(valid).unwrap_or_default(), broken)
            }
        }
    }

    /// True when nothing will follow the data.
    pub(super) fn ended(&self) -> bool {
        self.ended
    }

    /// Byte offset in the input of the data's first byte.
    pub(super) fn position(&self) -> u64 {
        self.passed
    }

    pub(super) fn pass(&mut self, bytes: usize) {
        self.start += bytes;
        self.passed += bytes as u64;
    }

    /// Reads more, at least doubling the data; false at the end of the input.
    pub(super) fn fill(&mut self) -> io::Result<bool> {
        // What is borrowed is all there is.
        let Cow::Owned(buffer) = &mut self.buffer else { return Ok(false) };
        buffer.drain(..self.start);
        self.start = 0;
        let before = buffer.len();
        let wanted = before.max(STEP) as u64;
        let read = (&mut self.input).take(wanted).read_to_end(buffer)?;
        self.ended = (read as u64) < wanted;
        Ok(read > 0)
    }

    /// Passes what is blank, however much of it there is, and tells what stands behind it; `None` at the end of
    /// the input.
    pub(super) fn pass_blank(&mut self, is_blank: impl Fn(u8) -> bool) -> io::Result<Option<u8>> {
        loop {
            let blank = self.data().iter().take_while(|byte| is_blank(**byte)).count();
            self.pass(blank);
            if let Some(&next) = self.data().first() {
                return Ok(Some(next));
            }
            if !self.fill()? {
                return Ok(None);
            }
        }
    }

    /// The data, up to so many bytes of it, and whether there is more.
    pub(super) fn up_to(&mut self, bytes: usize) -> io::Result<(&[u8], bool)> {
        self.fill_to(bytes + 1)?;
        let data = self.data();
        Ok((&data[..data.len().min(bytes)], data.len() > bytes))
    }

    /// Reads until the data holds `bytes` or the input ends.
    pub(super) fn fill_to(&mut self, bytes: usize) -> io::Result<()> {
        while self.data().len() < bytes && !self.ended {
            self.fill()?;
        }
        Ok(())
    }
}
