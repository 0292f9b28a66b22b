//! Reports on their way from the carriers, gathered in blocks of memory.

use std::collections::VecDeque;
use std::ops::Range;

use bytes::BytesMut;
use schemas::disposition::Reason;

use super::report::{Position, RawReport, Text};

/// A report where the carrier found it; whoever wants to keep its bytes copies them.
pub struct Found<'a> {
    pub position: Position,
    /// As [`RawReport::text`].
    pub text: &'a [u8],
    pub refused: Option<(Reason, String)>,
    pub context: Vec<u8>,
}

impl Found<'_> {
    /// The report with bytes of its own.
    #[must_use]
    pub fn into_report(self) -> RawReport {
        let Found { position, text, refused, context } = self;
        RawReport { position, text: text.to_vec().into(), refused, context }
    }
}

/// Memory that is taken at once: room for a chunk of reports of the usual size.
const BLOCK_BYTES: usize = 8 << 20;
/// Blocks that wait to be used again. Whatever is in use beyond them is given back when it is free.
const BLOCKS_KEPT: usize = 16;

/// Reports one behind the other in memory that is used again once nobody holds what was in it: fresh
/// memory costs more than all copying.
#[derive(Default)]
pub struct Block {
    bytes: BytesMut,
    /// Blocks that were full, the one that was so first at the front.
    full: VecDeque<BytesMut>,
    /// Bytes that were taken last: about as many are to come.
    taken: usize,
    held: Vec<Held>,
    /// Bytes of evidence beside the reports.
    beside: usize,
}

/// A report whose bytes are in the block.
struct Held {
    position: Position,
    part: Range<usize>,
    refused: Option<(Reason, String)>,
    context: Vec<u8>,
}

impl Block {
    /// Takes in a report.
    pub fn push(&mut self, found: Found<'_>) {
        let Found { position, text, refused, context } = found;
        let wanted = if self.bytes.is_empty() { self.taken.max(text.len()) } else { text.len() };
        if self.bytes.capacity() - self.bytes.len() < wanted {
            self.grow(wanted);
        }
        let start = self.bytes.len();
        self.bytes.extend_from_slice(text);
        self.beside += context.len();
        self.held.push(Held { position, part: start..start + text.len(), refused, context });
    }

    /// Makes room, if it can be in memory that is free again.
    fn grow(&mut self, wanted: usize) {
        if !self.bytes.is_empty() {
            // What is gathered has to stay in one piece.
            self.bytes.reserve(wanted);
            return;
        }
        let room = wanted.max(BLOCK_BYTES);
        let is_free = self.full.front_mut().is_some_and(|oldest| oldest.try_reclaim(room));
        let next = if is_free { self.full.pop_front() } else { None };
        let used = std::mem::replace(
            &mut self.bytes,
            next.unwrap_or_else(|| BytesMut::with_capacity(room)),
        );
        if used.capacity() > 0 && self.full.len() < BLOCKS_KEPT {
            self.full.push_back(used);
        }
    }

    /// Reports gathered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.held.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.held.is_empty()
    }

    /// Bytes gathered, those of evidence beside the reports among them.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len() + self.beside
    }

    /// The reports, in their order; nothing is left.
    pub fn take(&mut self) -> Vec<RawReport> {
        self.taken = self.bytes.len();
        self.beside = 0;
        let block = self.bytes.split().freeze();
        let report = |Held { position, part, refused, context }| RawReport {
            position,
            text: Text::new(block.clone(), part),
            refused,
            context,
        };
        std::mem::take(&mut self.held).into_iter().map(report).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn put(block: &mut Block, text: &[u8]) {
        let position = Position { source: Arc::from("x"), offset: block.len() as u64 };
        block.push(Found { position, text, refused: None, context: Vec::new() });
    }

    #[test]
    fn what_was_put_in_comes_out_in_its_order() {
        let mut block = Block::default();
        let large = vec![7; BLOCK_BYTES + 1];
        let texts: [&[u8]; 5] = [b"a", b"", b"bc", &large, b"d"];
        for _ in 0..3 {
            for text in texts {
                put(&mut block, text);
            }
            assert_eq!((block.len(), block.bytes()), (5, BLOCK_BYTES + 5));
            let reports = block.take();
            let out: Vec<&[u8]> = reports.iter().map(|report| &*report.text).collect();
            assert_eq!(out, texts);
            let offsets: Vec<u64> = reports.iter().map(|report| report.position.offset).collect();
            assert_eq!(offsets, [0, 1, 2, 3, 4]);
            assert!(block.is_empty() && block.take().is_empty());
        }
    }

    #[test]
    fn evidence_beside_reports_counts() {
        let mut block = Block::default();
        let position = Position { source: Arc::from("x"), offset: 0 };
        block.push(Found { position, text: b"abc", refused: None, context: vec![0; 1000] });
        assert_eq!(block.bytes(), 1003);
        block.take();
        assert_eq!(block.bytes(), 0);
    }

    #[test]
    fn reports_of_one_block_join_and_those_of_two_do_not() {
        let mut block = Block::default();
        put(&mut block, b"ab");
        put(&mut block, b"c");
        let first = block.take();
        put(&mut block, b"d");
        let second = block.take();
        let mut whole = first[0].text.clone();
        assert!(whole.join(&first[1].text));
        assert_eq!(&*whole, b"abc");
        assert_eq!(&*whole.shared(), b"abc");
        assert!(!whole.join(&second[0].text), "of another chunk");
        assert!(!first[0].text.clone().join(&first[0].text), "not behind it");
    }

    #[test]
    fn memory_is_used_again_only_when_nobody_holds_what_was_in_it() {
        let mut block = Block::default();
        let text = vec![1; BLOCK_BYTES * 2 / 3];
        let address = |report: &RawReport| report.text.as_ptr() as usize;
        let mut chunk = |held: &mut Vec<RawReport>| {
            put(&mut block, &text);
            held.append(&mut block.take());
            address(&held[held.len() - 1])
        };
        let mut held = Vec::new();
        let addresses: Vec<usize> = (0..4).map(|_| chunk(&mut held)).collect();
        assert!(held.iter().all(|report| *report.text == *vec![1; BLOCK_BYTES * 2 / 3]));
        drop(held.drain(..));
        assert_eq!(chunk(&mut held), addresses[0]);
        assert_eq!(chunk(&mut held), addresses[1], "while the one before it is held");
    }
}
