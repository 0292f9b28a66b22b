//! The XML carrier: `<smartLicense>` with reports, or one bare `<RUMReport>`.

mod syntax;

use std::borrow::Cow;
use std::io::Read;

use quick_xml::events::Event;
use quick_xml::reader::Reader;
use schemas::disposition::Reason;

use self::syntax::{Fault, check_declaration, next_event, resolve, wrong};
use super::window::Window;
use super::{CarrierError, CarrierLimits, Output, is_blank, refused_in_part};

const BOM: char = '\u{feff}';
const ROOT: &str = "smartLicense";
const REPORT: &str = "RUMReport";

/// Where in the document the next part is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Place {
    /// At the very start: only here may an XML declaration stand.
    Start,
    Prolog,
    /// Inside the root element of this name.
    Root(String),
    Epilog,
}

/// One part of a document, complete in itself, and the bytes it takes.
struct Part<'t> {
    what: What<'t>,
    bytes: usize,
}

enum What<'t> {
    /// White space, comment, processing instruction, text of no account.
    Nothing,
    RootStart(String),
    RootEnd,
    /// A report's joined text.
    Report(Cow<'t, str>),
    /// A report that is no text: it holds elements.
    ReportWithElements,
    /// Any other element.
    Sibling,
    End,
}

/// `is_at_start`: nothing was passed before it, but a BOM.
pub(super) fn read<R: Read>(
    mut window: Window<'_, R>,
    is_at_start: bool,
    limits: &CarrierLimits,
    out: &mut Output<'_, '_>,
) -> Result<(), CarrierError> {
    let mut place = if is_at_start { Place::Start } else { Place::Prolog };
    let mut pending = Pending { kept_max: limits.evidence_bytes_max(), ..Pending::default() };
    // Escaped, a report's text can be six times as long as it is.
    let part_max = limits.report.report_bytes_max.saturating_mul(8);
    loop {
        let (text, broken) = window.text();
        // Text may be parted anywhere but within a `]]>`.
        let text = if window.ended() || broken { text } else { before_brackets(text) };
        // Every part that stands whole in the window; its text is checked once for all of them.
        let mut taken = 0;
        let stop = loop {
            match next_part(&text[taken..], &place) {
                Ok(Part { what: What::End, .. }) => break None,
                Ok(Part { what, bytes }) => {
                    let part = &text.as_bytes()[taken..taken + bytes];
                    pending.take(what, part, &mut place, out)?;
                    taken += bytes;
                }
                Err(fault) => break Some(fault),
            }
        };
        if pending.holds {
            window.pass(taken);
        } else {
            out.pass(&mut window, taken);
        }
        let complete = window.ended();
        match stop {
            None if complete && !broken && place == Place::Epilog => return pending.finish(out),
            None if complete && !broken => {
                let what = match place {
                    Place::Root(name) => format!("the document ends inside of '{name}'"),
                    _ => "the document has no root element".to_owned(),
                };
                return pending.refuse(window, limits, Reason::Malformed, what, out);
            }
            None | Some(Fault::Incomplete) if broken => {
                return pending.refuse(
                    window,
                    limits,
                    Reason::Malformed,
                    "not UTF-8".to_owned(),
                    out,
                );
            }
            None => {
                window.fill().map_err(|e| out.failed(e))?;
            }
            Some(Fault::Doctype) => {
                let what = "a DOCTYPE, which no carrier has".to_owned();
                return pending.refuse(window, limits, Reason::Malformed, what, out);
            }
            // In a window that is full, what is wrong may still be cut.
            Some(Fault::Wrong(what))
                if complete
                    || broken
                    || window.data().len() > part_max && is_wrong_without_end(&window, &place) =>
            {
                return pending.refuse(window, limits, Reason::Malformed, what, out);
            }
            Some(Fault::Incomplete) if complete => {
                let what = "the document ends inside an element".to_owned();
                return pending.refuse(window, limits, Reason::Malformed, what, out);
            }
            Some(_) if window.data().len() > part_max => {
                match pending.pass_oversize(&mut window, &mut place, limits, out)? {
                    Oversize::Passed => {}
                    Oversize::WithoutEnd => return pending.flush(out),
                    Oversize::NoReport => {
                        let what = "an element is larger than a report may be".to_owned();
                        return pending.refuse(window, limits, Reason::TooLarge, what, out);
                    }
                }
            }
            // What looks wrong may only be cut by the window.
            Some(_) => {
                window.fill().map_err(|e| out.failed(e))?;
            }
        }
    }
}

/// Text up to the `]` or `]]` that it ends with.
fn before_brackets(text: &str) -> &str {
    let one = text.strip_suffix(']').unwrap_or(text);
    one.strip_suffix(']').unwrap_or(one)
}

/// Bytes at the end of a window that may look wrong since they are cut: a reference, a character.
const CUT_BYTES: usize = 4 << 10;

/// True if what is wrong is so without the last bytes of the window.
fn is_wrong_without_end<R: Read>(window: &Window<'_, R>, place: &Place) -> bool {
    let (text, _) = window.text();
    let end = text.floor_char_boundary(text.len().saturating_sub(CUT_BYTES));
    matches!(next_part(&text[..end], place), Err(Fault::Wrong(_)))
}

/// Holds a report back until it is known which elements stand beside it.
#[derive(Default)]
struct Pending {
    /// Its text, or its bytes if it was refused; memory that one report after the other uses.
    report: Vec<u8>,
    refused: Option<(Reason, String)>,
    holds: bool,
    context: Vec<u8>,
    kept_max: usize,
    reports: u64,
}

/// Stands where evidence beside reports was too much to be kept.
const NOT_KEPT: &[u8] = b"<!-- more is not kept -->";

impl Pending {
    fn take(
        &mut self,
        what: What<'_>,
        bytes: &[u8],
        place: &mut Place,
        out: &mut Output<'_, '_>,
    ) -> Result<(), CarrierError> {
        match what {
            What::Nothing | What::End => {}
            What::RootStart(name) => {
                *place = Place::Root(name);
                return Ok(());
            }
            What::RootEnd => *place = Place::Epilog,
            What::Sibling => {
                if *place == Place::Prolog || *place == Place::Start {
                    *place = Place::Epilog;
                }
                self.keep(bytes);
            }
            What::Report(text) => {
                let text = text.trim_matches([' ', '\t', '\n', '\r']);
                self.report(text.as_bytes(), None, place, out)?;
            }
            What::ReportWithElements => {
                let refused = (
                    Reason::Malformed,
                    "the RUMReport element holds elements, not JSON".to_owned(),
                );
                self.report(bytes, Some(refused), place, out)?;
            }
        }
        if *place == Place::Start {
            *place = Place::Prolog;
        }
        Ok(())
    }

    /// Keeps an element as evidence, and no more of a document that has them without end.
    fn keep(&mut self, bytes: &[u8]) {
        if self.context.len() + bytes.len() <= self.kept_max {
            self.context.extend_from_slice(bytes);
        } else if !self.context.ends_with(NOT_KEPT) {
            self.context.extend_from_slice(NOT_KEPT);
        }
    }

    fn report(
        &mut self,
        text: &[u8],
        refused: Option<(Reason, String)>,
        place: &mut Place,
        out: &mut Output<'_, '_>,
    ) -> Result<(), CarrierError> {
        if !matches!(place, Place::Root(_)) {
            *place = Place::Epilog;
        }
        // Elements before the first report are kept with it; later ones with the report before.
        let before_first =
            if self.reports == 0 { std::mem::take(&mut self.context) } else { Vec::new() };
        self.flush(out)?;
        self.reports += 1;
        self.context = before_first;
        self.report.clear();
        self.report.extend_from_slice(text);
        self.refused = refused;
        self.holds = true;
        Ok(())
    }

    fn flush(&mut self, out: &mut Output<'_, '_>) -> Result<(), CarrierError> {
        if !std::mem::take(&mut self.holds) {
            return Ok(());
        }
        out.report(&self.report, self.refused.take(), std::mem::take(&mut self.context))
    }

    fn finish(mut self, out: &mut Output<'_, '_>) -> Result<(), CarrierError> {
        self.flush(out)?;
        if self.reports == 0 {
            out.ignored("an XML document without a RUMReport", self.context)?;
        }
        Ok(())
    }

    fn refuse<R: Read>(
        mut self,
        window: Window<'_, R>,
        limits: &CarrierLimits,
        reason: Reason,
        what: String,
        out: &mut Output<'_, '_>,
    ) -> Result<(), CarrierError> {
        self.flush(out)?;
        out.refuse_rest(window, limits, reason, &what)
    }

    /// Passes over a report that does not fit in the window, and hands on what is kept of it, so
    /// that decoding names its fault.
    fn pass_oversize<R: Read>(
        &mut self,
        window: &mut Window<'_, R>,
        place: &mut Place,
        limits: &CarrierLimits,
        out: &mut Output<'_, '_>,
    ) -> Result<Oversize, CarrierError> {
        let (text, _) = window.text();
        let start = text.len() - text.trim_start().len();
        let is_report = text[start..].strip_prefix('<').is_some_and(|t| {
            t.strip_prefix(REPORT).is_some_and(|t| t.starts_with(['>', ' ', '\t', '\n', '\r']))
        });
        let Some(content) = is_report.then(|| text[start..].find('>')).flatten() else {
            return Ok(Oversize::NoReport);
        };
        let content = text[start + content + 1..].trim_start();
        let content = content.strip_prefix(CDATA).unwrap_or(content).trim_start();
        let kept = &content.as_bytes()[..content.len().min(limits.evidence_bytes_max())];
        // Its end is not in the window.
        self.report(kept, refused_in_part((kept, true), limits), place, out)?;
        let has_end = pass_to_report_end(window, out)?;
        Ok(if has_end { Oversize::Passed } else { Oversize::WithoutEnd })
    }
}

/// What became of an element that does not fit in the window.
enum Oversize {
    NoReport,
    Passed,
    /// The input ended in it.
    WithoutEnd,
}

const CDATA: &str = "<![CDATA[";
const END_TAG: &[u8] = b"</RUMReport";

/// Passes to behind the next `</RUMReport>` that stands outside a CDATA section.
fn pass_to_report_end<R: Read>(
    window: &mut Window<'_, R>,
    out: &Output<'_, '_>,
) -> Result<bool, CarrierError> {
    let mut in_cdata = false;
    loop {
        let data = window.data();
        let find = |pattern: &[u8]| data.windows(pattern.len()).position(|w| w == pattern);
        let found = if in_cdata { find(b"]]>").map(|at| at + 3) } else { find(b"<") };
        let (step, more) = match found {
            Some(after) if in_cdata => {
                in_cdata = false;
                (after, false)
            }
            Some(at) if data[at..].starts_with(CDATA.as_bytes()) => {
                in_cdata = true;
                (at + CDATA.len(), false)
            }
            Some(at) if data[at..].starts_with(END_TAG) => {
                window.pass(at + END_TAG.len());
                match window.pass_blank(is_blank).map_err(|e| out.failed(e))? {
                    Some(b'>') => {
                        window.pass(1);
                        return Ok(true);
                    }
                    Some(_) => continue,
                    None => return Ok(false),
                }
            }
            // The bytes at the end may be the start of one of the patterns.
            Some(at) if data.len() - at < 16 => (at, true),
            Some(at) => (at + 1, false),
            None => (data.len().saturating_sub(16), true),
        };
        window.pass(step);
        if more && !window.fill().map_err(|e| out.failed(e))? {
            return Ok(false);
        }
    }
}

/// Reads the next part at the start of the text.
fn next_part<'t>(text: &'t str, place: &Place) -> Result<Part<'t>, Fault> {
    // A reader takes it for a mark of the encoding, wherever it begins; it is a character of the text.
    if text.starts_with(BOM) {
        return match place {
            Place::Root(_) => Ok(Part { what: What::Nothing, bytes: BOM.len_utf8() }),
            _ => wrong("text outside the root element"),
        };
    }
    let mut reader = Reader::from_str(text);
    let config = reader.config_mut();
    config.allow_unmatched_ends = true;
    config.check_comments = true;
    let event = next_event(&mut reader)?;
    let in_root = matches!(place, Place::Root(_));
    let what = match event {
        Event::Eof => What::End,
        Event::DocType(_) => return Err(Fault::Doctype),
        Event::Decl(declaration) => {
            if *place != Place::Start {
                return wrong("an XML declaration inside the document");
            }
            check_declaration(&declaration)?;
            What::Nothing
        }
        Event::Comment(_) | Event::PI(_) => What::Nothing,
        Event::Text(content) => {
            let content: &str = &content.into_inner();
            if !in_root && !content.trim_matches([' ', '\t', '\n', '\r']).is_empty() {
                return wrong("text outside the root element");
            }
            What::Nothing
        }
        Event::CData(_) | Event::GeneralRef(_) if !in_root => {
            return wrong("text outside the root element");
        }
        Event::CData(_) => What::Nothing,
        Event::GeneralRef(reference) => {
            resolve(&reference)?;
            What::Nothing
        }
        Event::End(end) => match place {
            Place::Root(name) if end.name().as_ref() == name.as_str() => What::RootEnd,
            _ => return wrong("an end tag without its start tag"),
        },
        Event::Start(_) | Event::Empty(_) if *place == Place::Epilog => {
            return wrong("a second root element");
        }
        Event::Empty(start) => match (start.local_name().as_ref(), in_root) {
            (REPORT, _) => What::Report(Cow::default()),
            _ => What::Sibling,
        },
        Event::Start(start) => match (start.local_name().as_ref(), in_root) {
            (REPORT, _) => read_report(&mut reader)?,
            (ROOT, false) => What::RootStart(start.name().as_ref().to_owned()),
            _ => {
                read_element(&mut reader)?;
                What::Sibling
            }
        },
    };
    let bytes = usize::try_from(reader.buffer_position()).unwrap_or(usize::MAX);
    Ok(Part { what, bytes })
}

/// Reads the content of a report, whose start tag was read, to its end tag.
fn read_report<'t>(reader: &mut Reader<&'t [u8]>) -> Result<What<'t>, Fault> {
    let mut text = Cow::default();
    let mut has_elements = false;
    let mut depth = 0u64;
    loop {
        match next_event(reader)? {
            Event::Text(content) => join(&mut text, content.xml10_content()),
            Event::CData(content) => join(&mut text, content.xml10_content()),
            Event::GeneralRef(reference) => text.to_mut().push(resolve(&reference)?),
            Event::Comment(_) | Event::PI(_) => {}
            Event::Start(_) => {
                has_elements = true;
                depth += 1;
            }
            Event::Empty(_) => has_elements = true,
            Event::End(_) if depth == 0 => break,
            Event::End(_) => depth -= 1,
            Event::Eof => return Err(Fault::Incomplete),
            Event::DocType(_) | Event::Decl(_) => return wrong("a declaration inside an element"),
        }
    }
    Ok(if has_elements { What::ReportWithElements } else { What::Report(text) })
}

/// Adds to a text; what is all of it is borrowed.
fn join<'t>(text: &mut Cow<'t, str>, more: Cow<'t, str>) {
    if text.is_empty() {
        *text = more;
    } else if !more.is_empty() {
        text.to_mut().push_str(&more);
    }
}

/// Passes over an element, whose start tag was read, holding that it is well-formed.
fn read_element(reader: &mut Reader<&[u8]>) -> Result<(), Fault> {
    let mut depth = 0u64;
    loop {
        match next_event(reader)? {
            Event::Text(_)
            | Event::CData(_)
            | Event::Comment(_)
            | Event::PI(_)
            | Event::Empty(_) => {}
            Event::GeneralRef(reference) => drop(resolve(&reference)?),
            Event::Start(_) => depth += 1,
            Event::End(_) if depth == 0 => return Ok(()),
            Event::End(_) => depth -= 1,
            Event::Eof => return Err(Fault::Incomplete),
            Event::DocType(_) | Event::Decl(_) => return wrong("a declaration inside an element"),
        }
    }
}
