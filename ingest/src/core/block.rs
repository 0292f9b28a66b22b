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
    found: Vec<(Position, Range<usize>, Option<(Reason, String)>, Vec<u8>)>,
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
        self.found.push((position, start..start + text.len(), refused, context));
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
        self.found.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// Bytes gathered.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// The reports, in their order; nothing is left.
    pub fn take(&mut self) -> Vec<RawReport> {
        self.taken = self.bytes.len();
        let block = self.bytes.split().freeze();
        let found = std::mem::take(&mut self.found);
        found
            .into_iter()
            .map(|(position, part, refused, context)| RawReport {
                position,
                text: Text::new(block.clone(), part),
                refused,
                context,
            })
            .collect()
    }
}
