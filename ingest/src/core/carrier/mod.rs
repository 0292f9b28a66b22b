//! Carriers: from the bytes of an input to the text of each report in it, of which there may be many, of
//! many PIs (contract 1.1, R2.8).
//!
//! What an input is, its bytes tell, never its name. Everything streams: the window over an input
//! is bounded, and so is what is kept of one that cannot be read.
//!
//! A fault of one report (its size, depth, fields) is that report's own; the next one is read. A
//! fault of the document itself (its syntax or encoding) makes the rest of it unreadable: the
//! reports before it stand, the rest is one suspended report.

mod archive;
mod json;
mod window;
mod xml;

use std::io::{self, Read};
use std::sync::Arc;

use schemas::disposition::Reason;
use schemas::period::EpochSeconds;

use self::window::Window;
use super::decode::{ReportLimits, decode};
use super::report::{Position, RawReport};

pub use super::block::{Block, Found};

/// Bounds on an input and on what is unpacked of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CarrierLimits {
    pub report: ReportLimits,
    /// How deep archives may be nested: a bundle holds one level of archives.
    pub archive_depth_max: u32,
    pub archive_members_max: u64,
    /// All that one archive unpacks to, nested ones included, in bytes.
    pub archive_bytes_max: u64,
    /// Unpacked to packed bytes, looked at beyond the first 64 MiB.
    pub archive_ratio_max: u64,
}

impl Default for CarrierLimits {
    fn default() -> Self {
        CarrierLimits {
            report: ReportLimits::default(),
            archive_depth_max: 4,
            archive_members_max: 1_000_000,
            archive_bytes_max: 8 << 30,
            archive_ratio_max: 100,
        }
    }
}

impl CarrierLimits {
    /// Bytes that are kept of an input, or the rest of one, in which no report can be read.
    fn evidence_bytes_max(&self) -> usize {
        self.report.report_bytes_max.saturating_mul(8)
    }
}

/// What reading an input gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    Report(RawReport),
    /// A well-formed document without a report: an ACK, a policy, an empty list.
    Ignored {
        source: String,
        what: String,
        /// Its elements, where it is XML, as evidence.
        kept: Vec<u8>,
    },
}

/// The reading of an input stopped before its end.
#[derive(Debug, thiserror::Error)]
pub enum CarrierError {
    #[error("cannot read {source_name}")]
    Io {
        source_name: String,
        #[source]
        source: io::Error,
    },
    /// The receiver of the items wants no more.
    #[error("stopped")]
    Stopped,
}

/// Takes what is read. `false` stops the reading.
pub trait Sink {
    fn report(&mut self, found: Found<'_>) -> bool;
    /// A document without a report, as [`Item::Ignored`].
    fn ignored(&mut self, source: String, what: String, kept: Vec<u8>) -> bool;
}

/// A closure takes each item as it comes, with bytes of its own.
impl<F: FnMut(Item) -> bool> Sink for F {
    fn report(&mut self, found: Found<'_>) -> bool {
        self(Item::Report(found.into_report()))
    }

    fn ignored(&mut self, source: String, what: String, kept: Vec<u8>) -> bool {
        self(Item::Ignored { source, what, kept })
    }
}

/// An input that can be opened more than once: archives are inspected before they are read.
pub trait Source {
    fn name(&self) -> &str;
    /// # Errors
    /// If the input is not there or may not be read.
    fn open(&self) -> io::Result<Box<dyn Read + '_>>;
    /// The input as one that can be opened more than once, if it is none yet (a pipe): `all` gives its bytes.
    ///
    /// # Errors
    /// If they cannot be read or kept.
    fn keep(&self, _all: &mut dyn Read) -> io::Result<Option<Box<dyn Source>>> {
        Ok(None)
    }
}

/// Reads all reports of one input, in its own order.
///
/// # Errors
/// If the input cannot be read, or the sink stopped. Whatever the bytes are, they are no error.
pub fn read_source(
    source: &dyn Source,
    limits: &CarrierLimits,
    sink: &mut dyn Sink,
) -> Result<(), CarrierError> {
    let failed = |error| CarrierError::Io { source_name: source.name().to_owned(), source: error };
    let mut window = Window::new(source.open().map_err(failed)?);
    window.fill_to(512).map_err(failed)?;
    if !archive::is_archive(window.data()) {
        return read_document(window, source.name(), limits, sink);
    }
    let mut all = window.into_input().take(limits.archive_bytes_max);
    let Some(kept) = source.keep(&mut all).map_err(failed)? else {
        drop(all);
        return archive::read(source, limits, sink);
    };
    if all.limit() > 0 {
        return archive::read(&*kept, limits, sink);
    }
    let detail = format!("the archive has {} bytes or more", limits.archive_bytes_max);
    let begin = Window::new(kept.open().map_err(failed)?);
    Output::new(source.name(), limits, sink).refuse_rest_as(begin, limits, Reason::TooLarge, detail)
}

/// Reads all reports of one Kafka record: any carrier but the bundle (contract 1.1).
///
/// # Errors
/// If the sink stopped.
pub fn read_record(
    topic: &str,
    bytes: &[u8],
    limits: &CarrierLimits,
    sink: &mut dyn Sink,
) -> Result<(), CarrierError> {
    if bytes.len() <= limits.report.report_bytes_max {
        return read_document(Window::whole(bytes), topic, limits, sink);
    }
    // What is larger is read as a file is, so that the same fault is met first.
    read_document(Window::new(bytes), topic, limits, sink)
}

/// Reads all reports of one input held in memory.
///
/// # Errors
/// If the sink stopped.
pub fn read_bytes(
    name: &str,
    bytes: &[u8],
    limits: &CarrierLimits,
    sink: &mut dyn Sink,
) -> Result<(), CarrierError> {
    struct Bytes<'a>(&'a str, &'a [u8]);
    impl Source for Bytes<'_> {
        fn name(&self) -> &str {
            self.0
        }
        fn open(&self) -> io::Result<Box<dyn Read + '_>> {
            Ok(Box::new(self.1))
        }
    }
    read_source(&Bytes(name, bytes), limits, sink)
}

/// Reads a document that is no archive.
fn read_document<R: Read>(
    mut window: Window<'_, R>,
    name: &str,
    limits: &CarrierLimits,
    sink: &mut dyn Sink,
) -> Result<(), CarrierError> {
    let mut out = Output::new(name, limits, sink);
    window.fill_to(4).map_err(|e| out.failed(e))?;
    if window.data().starts_with(b"\xef\xbb\xbf") {
        window.pass(3);
    }
    // White space before the document is passed over, however much of it there is.
    let start = window.position();
    let first = loop {
        let blank = window.data().iter().take_while(|byte| is_blank(**byte)).count();
        let next = window.data().get(blank).copied();
        if next.is_some() || window.ended() {
            break next;
        }
        window.pass(blank);
        window.fill().map_err(|e| out.failed(e))?;
    };
    match first {
        Some(b'<') => {
            let is_at_start = window.position() == start;
            xml::read(window, is_at_start, limits, &mut out)
        }
        Some(b'{' | b'[') => json::read(window, limits, &mut out),
        Some(_) => {
            out.refuse_rest(window, limits, Reason::Malformed, "neither XML, JSON nor a bundle")
        }
        None => out.refuse_rest(window, limits, Reason::Malformed, "the input is empty"),
    }
}

/// White space as JSON and XML have it.
fn is_blank(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn goes_on(wanted: bool) -> Result<(), CarrierError> {
    if wanted { Ok(()) } else { Err(CarrierError::Stopped) }
}

/// Numbers the reports of one input, and hands them on.
struct Output<'s, 'n> {
    name: &'n str,
    source: Arc<str>,
    sink: &'s mut dyn Sink,
    next_offset: u64,
    /// What was passed before the first report, as far as it is kept: of an input in which none can be read, it is
    /// part of the evidence.
    head: Vec<u8>,
    head_max: usize,
    head_is_cut: bool,
}

/// What is said where no more than this is kept.
fn kept_of(kept: &[u8]) -> String {
    format!("; the first {} bytes are kept", kept.len())
}

/// Why a report is refused of which only the beginning is kept, since it is too large: by the fault that decoding finds
/// first, and saying so. `None` where it is whole: then decoding says it.
fn refused_in_part(
    (kept, is_cut): (&[u8], bool),
    limits: &CarrierLimits,
) -> Option<(Reason, String)> {
    if !is_cut {
        return None;
    }
    let fault = decode(kept, &limits.report, EpochSeconds::MAX).err()?;
    let most = limits.report.report_bytes_max;
    let what = match fault.reason {
        Reason::TooLarge => {
            format!("the report has more than {} bytes, allowed are {most}", kept.len())
        }
        _ => fault.detail,
    };
    Some((fault.reason, what + &kept_of(kept)))
}

impl<'s, 'n> Output<'s, 'n> {
    fn new(name: &'n str, limits: &CarrierLimits, sink: &'s mut dyn Sink) -> Self {
        let head_max = limits.evidence_bytes_max();
        let (source, head) = (Arc::from(name), Vec::new());
        Output { name, source, sink, next_offset: 0, head, head_max, head_is_cut: false }
    }

    /// Passes what is no report.
    fn pass<R: Read>(&mut self, window: &mut Window<'_, R>, bytes: usize) {
        if self.next_offset == 0 {
            let kept = bytes.min(self.head_max - self.head.len());
            self.head.extend_from_slice(&window.data()[..kept]);
            self.head_is_cut |= kept < bytes;
        }
        window.pass(bytes);
    }

    fn failed(&self, source: io::Error) -> CarrierError {
        CarrierError::Io { source_name: self.name.to_owned(), source }
    }

    fn report(
        &mut self,
        text: &[u8],
        refused: Option<(Reason, String)>,
        context: Vec<u8>,
    ) -> Result<(), CarrierError> {
        let position = Position { source: Arc::clone(&self.source), offset: self.next_offset };
        self.next_offset += 1;
        self.head = Vec::new();
        self.head_is_cut = false;
        goes_on(self.sink.report(Found { position, text, refused, context }))
    }

    fn ignored(&mut self, what: &str, kept: Vec<u8>) -> Result<(), CarrierError> {
        goes_on(self.sink.ignored(self.name.to_owned(), what.to_owned(), kept))
    }

    /// The rest of the input, in which no report can be read, is one suspended report.
    fn refuse_rest<R: Read>(
        &mut self,
        window: Window<'_, R>,
        limits: &CarrierLimits,
        reason: Reason,
        what: &str,
    ) -> Result<(), CarrierError> {
        let detail = format!("{what}, at byte {} of the input", window.position());
        self.refuse_rest_as(window, limits, reason, detail)
    }

    fn refuse_rest_as<R: Read>(
        &mut self,
        mut window: Window<'_, R>,
        limits: &CarrierLimits,
        reason: Reason,
        mut detail: String,
    ) -> Result<(), CarrierError> {
        let mut kept = std::mem::take(&mut self.head);
        let left = limits.evidence_bytes_max().saturating_sub(kept.len());
        let (rest, is_cut) = window.up_to(left).map_err(|e| self.failed(e))?;
        kept.extend_from_slice(rest);
        if is_cut || self.head_is_cut {
            detail.push_str(&kept_of(&kept));
        }
        self.report(&kept, Some((reason, detail)), Vec::new())
    }
}
