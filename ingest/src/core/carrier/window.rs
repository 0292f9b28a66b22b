//! A bounded window that slides over an input, so that no input is held in memory whole.

use std::io::{self, Read};

const STEP: usize = 256 << 10;

pub(super) struct Window<R> {
    input: R,
    buffer: Vec<u8>,
    start: usize,
    ended: bool,
    /// Bytes of the input that were passed.
    passed: u64,
}

impl Window<io::Empty> {
    /// A window over all of an input that is in memory.
    pub(super) fn whole(bytes: &[u8]) -> Window<io::Empty> {
        let buffer = bytes.to_vec();
        Window { input: io::empty(), buffer, start: 0, ended: true, passed: 0 }
    }
}

impl<R: Read> Window<R> {
    pub(super) fn new(input: R) -> Self {
        Window { input, buffer: Vec::new(), start: 0, ended: false, passed: 0 }
    }

    pub(super) fn data(&self) -> &[u8] {
        &self.buffer[self.start..]
    }

    /// The longest prefix of the data that is UTF-8, and whether what follows it can never be.
    pub(super) fn text(&self) -> (&str, bool) {
        match std::str::from_utf8(self.data()) {
            Ok(text) => (text, false),
            Err(error) => {
                let valid = &self.data()[..error.valid_up_to()];
                let broken = error.error_len().is_some() || self.ended;
                (std::str::from_utf8(valid).unwrap_or_default(), broken)
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
        if self.start > 0 {
            self.buffer.drain(..self.start);
            self.start = 0;
        }
        let before = self.buffer.len();
        let wanted = before.max(STEP) as u64;
        let read = (&mut self.input).take(wanted).read_to_end(&mut self.buffer)?;
        self.ended = (read as u64) < wanted;
        Ok(read > 0)
    }

    /// Reads until the data holds `bytes` or the input ends.
    pub(super) fn fill_to(&mut self, bytes: usize) -> io::Result<()> {
        while self.data().len() < bytes && !self.ended {
            self.fill()?;
        }
        Ok(())
    }
}
