//! The two JSON carriers: a list `{"usage":[…]}`, and one report.

use std::io::Read;

use schemas::disposition::Reason;
use schemas::period::EpochSeconds;

use super::window::Window;
use super::{CarrierError, CarrierLimits, Output, is_blank, refused_in_part};
use crate::core::decode::{ReportLimits, decode, refusal};
use crate::core::json::{Fault, FaultKind, Kind, Reader};

type Read_<T> = Result<T, Fault>;

pub(super) fn read<R: Read>(
    mut window: Window<'_, R>,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
) -> Result<(), CarrierError> {
    match attempt(&mut window, limits, out, |text| read_top(text, &limits.report))? {
        Ok((Top::List, passed)) => {
            out.pass(&mut window, passed);
            read_list(window, limits, out)
        }
        Ok((Top::Report, passed)) => {
            out.report(window.data()[..passed].trim_ascii(), None, Vec::new())?;
            window.pass(passed);
            end(window, limits, out, None)
        }
        Ok((Top::Other, passed)) => {
            let what = "a JSON document without a report";
            if is_blank_behind(&mut window, passed, limits).map_err(|e| out.failed(e))? {
                return out.ignored(what, Vec::new());
            }
            out.refuse_rest(window, limits, Reason::Malformed, TEXT_BEHIND)
        }
        // One report that is too large, or a document that does not show in time what it is. What
        // is wrong with it first is found when it is decoded.
        Err(stop) if is_too_large_first(&stop, &window, limits) => {
            let (kept, is_cut) =
                window.up_to(limits.evidence_bytes_max()).map_err(|e| out.failed(e))?;
            let kept = kept.trim_ascii_start();
            out.report(kept, refused_in_part((kept, is_cut), limits), Vec::new())
        }
        Err(stop) => refuse(stop, window, limits, out),
    }
}

/// Why a step over the window could not be taken.
enum Stop {
    Fault(Fault),
    Encoding,
    /// The window is full, and the step is still incomplete.
    Full,
}

/// True if what begins in the window is too large for a report before it is anything else: of faults of reading, the
/// one met first wins (contract 1.3), wherever the window happens to end.
fn is_too_large_first<R: Read>(
    stop: &Stop,
    window: &Window<'_, R>,
    limits: &CarrierLimits,
) -> bool {
    matches!(stop, Stop::Full)
        || decode(window.data(), &limits.report, EpochSeconds::MAX)
            .is_err_and(|fault| fault.reason == Reason::TooLarge)
}

/// Takes one step over the window's text, with more of the input as long as it is incomplete.
fn attempt<R: Read, T>(
    window: &mut Window<'_, R>,
    limits: &CarrierLimits,
    out: &Output<'_, '_>,
    mut step: impl FnMut(&str) -> Read_<T>,
) -> Result<Result<T, Stop>, CarrierError> {
    loop {
        let (text, broken) = window.text();
        match step(text) {
            Ok(done) => return Ok(Ok(done)),
            Err(Fault { kind: FaultKind::Incomplete, .. }) if broken => {
                return Ok(Err(Stop::Encoding));
            }
            Err(Fault { kind: FaultKind::Incomplete, .. })
                if !window.ended() && window.data().len() > limits.report.report_bytes_max =>
            {
                return Ok(Err(Stop::Full));
            }
            Err(Fault { kind: FaultKind::Incomplete, .. }) if !window.ended() => {}
            Err(fault) => return Ok(Err(Stop::Fault(fault))),
        }
        window.fill().map_err(|e| out.failed(e))?;
    }
}

fn refuse<R: Read>(
    stop: Stop,
    window: Window<'_, R>,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
) -> Result<(), CarrierError> {
    match stop {
        Stop::Fault(fault) => {
            let (reason, detail) = refusal(fault, "the document", &limits.report);
            let detail = format!("{detail} after byte {} of the input", window.position());
            out.refuse_rest_as(window, limits, reason, detail)
        }
        Stop::Encoding => out.refuse_rest(window, limits, Reason::Malformed, "not UTF-8"),
        Stop::Full => out.refuse_rest(
            window,
            limits,
            Reason::TooLarge,
            "a value is larger than a report may be",
        ),
    }
}

enum Top {
    /// The text is read up to the first element of `usage`.
    List,
    Report,
    Other,
}

/// Reads the top level of a document until it shows what it is.
fn read_top(text: &str, limits: &ReportLimits) -> Read_<(Top, usize)> {
    let mut reader = Reader::new(text, limits.depth_max);
    if reader.kind()? != Kind::Object {
        reader.skip()?;
        return Ok((Top::Other, reader.offset()));
    }
    let mut is_report = false;
    let mut has_payload = false;
    let mut list_at = None;
    let read = reader.object(|r, key| {
        // In a report it is a key like any other that nobody knows.
        if key.is("usage") && !has_payload && r.kind()? == Kind::Array {
            list_at = Some(r.offset() + 1);
            // Stops here: the list is read element by element.
            return r.fault(FaultKind::Incomplete);
        }
        has_payload |= key.is("payload");
        is_report |= has_payload || key.is("signature");
        skip_member(r, key.is("payload"))
    });
    if let Some(at) = list_at {
        return Ok((Top::List, at));
    }
    read?;
    Ok((if is_report { Top::Report } else { Top::Other }, reader.offset()))
}

/// The depth of a payload is counted on its own (contract 1.3).
fn skip_member(reader: &mut Reader<'_>, is_payload: bool) -> Read_<()> {
    if is_payload { reader.with_own_depth(Reader::skip) } else { reader.skip() }
}

/// Where an element of the list stands in the window's text.
enum Element {
    At { start: usize, end: usize },
    EndOfList { end: usize },
}

fn read_list<R: Read>(
    mut window: Window<'_, R>,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
) -> Result<(), CarrierError> {
    let mut after = After::Bracket;
    loop {
        let passed = take_whole_elements(&window, &mut after, limits, out)?;
        window.pass(passed);
        // White space is no part of a report, however much of it there is.
        let next = pass_blank(&mut window, out)?;
        if after == After::Element && next == Some(b',') {
            window.pass(1);
            after = After::Comma;
            pass_blank(&mut window, out)?;
        }
        let step =
            attempt(&mut window, limits, out, |text| read_element(text, after, &limits.report))?;
        match step {
            Ok(Element::At { start, end }) => {
                out.report(&window.data()[start..end], None, Vec::new())?;
                window.pass(end);
            }
            Ok(Element::EndOfList { end }) => {
                out.pass(&mut window, end);
                pass_blank(&mut window, out)?;
                return read_tail(window, limits, out, after == After::Bracket);
            }
            // Too deep or too large is the element's own fault: it is passed over by its brackets.
            Err(stop)
                if matches!(stop, Stop::Fault(Fault { kind: FaultKind::TooDeep, .. }))
                    || is_too_large_first(&stop, &window, limits) =>
            {
                if !pass_element(&mut window, limits, out)? {
                    return Ok(());
                }
            }
            Err(stop) => return refuse(stop, window, limits, out),
        }
        after = After::Element;
    }
}

/// What was read last of a list.
#[derive(Clone, Copy, PartialEq, Eq)]
enum After {
    Bracket,
    Element,
    Comma,
}

fn pass_blank<R: Read>(
    window: &mut Window<'_, R>,
    out: &Output<'_, '_>,
) -> Result<Option<u8>, CarrierError> {
    window.pass_blank(is_blank).map_err(|e| out.failed(e))
}

/// Hands on every element that stands whole in the window, whose text is checked once for all of
/// them. Gives the bytes they take; whatever else comes is for [`attempt`].
fn take_whole_elements<R: Read>(
    window: &Window<'_, R>,
    after: &mut After,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
) -> Result<usize, CarrierError> {
    let (text, _) = window.text();
    let mut passed = 0;
    while let Ok(Element::At { start, end }) = read_element(&text[passed..], *after, &limits.report)
    {
        out.report(&text.as_bytes()[passed + start..passed + end], None, Vec::new())?;
        passed += end;
        *after = After::Element;
    }
    Ok(passed)
}

fn read_element(text: &str, after: After, limits: &ReportLimits) -> Read_<Element> {
    let mut reader = Reader::new(text, limits.depth_max);
    if after != After::Comma && reader.peek() == Some(b']') {
        return Ok(Element::EndOfList { end: reader.offset() + 1 });
    }
    if after == After::Element {
        reader.comma()?;
    }
    let is_object = reader.kind()? == Kind::Object;
    let start = reader.offset();
    if is_object {
        reader.object(|r, key| skip_member(r, key.is("payload")))?;
    } else {
        reader.skip()?;
        // A number may go on beyond the window.
        if reader.peek().is_none() {
            return reader.fault(FaultKind::Incomplete);
        }
    }
    Ok(Element::At { start, end: reader.offset() })
}

/// Passes over an element that is too deep or too large, and hands on what is kept of it, so that
/// decoding names its fault. False if the input ends within it.
fn pass_element<R: Read>(
    window: &mut Window<'_, R>,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
) -> Result<bool, CarrierError> {
    let blank = window.data().iter().take_while(|b| b.is_ascii_whitespace() || **b == b',').count();
    window.pass(blank);
    let kept_max = limits.evidence_bytes_max();
    let mut kept: Vec<u8> = Vec::new();
    let mut is_cut = false;
    let mut brackets = Brackets::default();
    loop {
        let data = window.data();
        let end = brackets.end(data);
        let taken = end.unwrap_or(data.len());
        let wanted = taken.min(kept_max - kept.len());
        kept.extend_from_slice(&data[..wanted]);
        is_cut |= wanted < taken;
        window.pass(taken);
        if end.is_some() {
            break;
        }
        if !window.fill().map_err(|e| out.failed(e))? {
            break;
        }
    }
    let complete = brackets.closed;
    out.report(&kept, refused_in_part((&kept, is_cut), limits), Vec::new())?;
    Ok(complete)
}

/// Finds the end of an element of a list by brackets and strings alone. A container that is closed by the other kind of
/// bracket has no end that could be told.
#[derive(Default)]
struct Brackets {
    depth: u64,
    /// The opening brackets, as far as they are kept.
    open: Vec<u8>,
    in_string: bool,
    after_backslash: bool,
    closed: bool,
    mixed_up: bool,
}

impl Brackets {
    const KEPT_MAX: usize = 1024;

    fn end(&mut self, data: &[u8]) -> Option<usize> {
        if self.mixed_up {
            return None;
        }
        for (i, &byte) in data.iter().enumerate() {
            if self.in_string {
                self.in_string = self.after_backslash || byte != b'"';
                self.after_backslash = !self.after_backslash && byte == b'\\';
                continue;
            }
            match byte {
                b'"' => self.in_string = true,
                // Behind an element that is no container.
                b',' | b']' | b'}' if self.depth == 0 => {
                    self.closed = true;
                    return Some(i);
                }
                b'{' | b'[' => {
                    self.depth += 1;
                    if self.open.len() < Self::KEPT_MAX {
                        self.open.push(byte);
                    }
                }
                b'}' | b']' => {
                    let is_kept = self.depth == self.open.len() as u64;
                    let opened = if is_kept { self.open.pop() } else { Some(byte - 2) };
                    // The closing brackets stand two behind the opening ones in ASCII.
                    if opened != Some(byte - 2) {
                        self.mixed_up = true;
                        return None;
                    }
                    self.depth -= 1;
                    if self.depth == 0 {
                        self.closed = true;
                        return Some(i + 1);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

/// What follows the list: other members, the closing brace, nothing more.
fn read_tail<R: Read>(
    mut window: Window<'_, R>,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
    empty: bool,
) -> Result<(), CarrierError> {
    let step = attempt(&mut window, limits, out, |text| {
        let mut reader = Reader::new(text, limits.report.depth_max);
        reader.rest_of_object(|reader, key| {
            if key.is("usage") {
                return reader.duplicate(key);
            }
            if key.is("payload") {
                return reader.fault(FaultKind::Syntax("a payload beside a list of reports"));
            }
            reader.skip()
        })?;
        Ok(reader.offset())
    })?;
    match step {
        Ok(passed) => {
            out.pass(&mut window, passed);
            end(window, limits, out, empty.then_some("a JSON list without a report"))
        }
        Err(stop) => refuse(stop, window, limits, out),
    }
}

const TEXT_BEHIND: &str = "text after the end of the document";

/// Holds that nothing follows but white space, however much of it there is; then says of the document that it is
/// `ignored`, if it is.
fn end<R: Read>(
    mut window: Window<'_, R>,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
    ignored: Option<&str>,
) -> Result<(), CarrierError> {
    match (pass_blank(&mut window, out)?, ignored) {
        (Some(_), _) => out.refuse_rest(window, limits, Reason::Malformed, TEXT_BEHIND),
        (None, Some(what)) => out.ignored(what, Vec::new()),
        (None, None) => Ok(()),
    }
}

/// True if nothing but white space follows what was read. Where something does, the window holds the input from its
/// beginning, or as much of its end as may be kept.
fn is_blank_behind<R: Read>(
    window: &mut Window<'_, R>,
    read: usize,
    limits: &CarrierLimits,
) -> std::io::Result<bool> {
    while window.data()[read..].iter().all(|byte| is_blank(*byte)) {
        if window.data().len() > limits.evidence_bytes_max() {
            let all = window.data().len();
            window.pass(all);
            return Ok(window.pass_blank(is_blank)?.is_none());
        }
        if !window.fill()? {
            return Ok(true);
        }
    }
    Ok(false)
}
