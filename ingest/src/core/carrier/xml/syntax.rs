//! What the tokenizer leaves unchecked of XML: declarations, names, attributes, characters, references.

use quick_xml::XmlVersion;
use quick_xml::events::attributes::Attributes;
use quick_xml::events::{BytesDecl, BytesPI, BytesRef, BytesStart, Event};
use quick_xml::reader::Reader;

/// Why no part could be read.
pub(super) enum Fault {
    /// May be mended by more text.
    Incomplete,
    Wrong(String),
    /// Wrong for the whole input, whatever was read of it (contract 1.3).
    Doctype,
}

pub(super) fn wrong<T>(what: &str) -> Result<T, Fault> {
    Err(Fault::Wrong(what.to_owned()))
}

/// The next event, checked, but for declarations and references, which mean something else wherever they stand.
pub(super) fn next_event<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Event<'a>, Fault> {
    let event = reader.read_event().map_err(|error| match error {
        quick_xml::Error::Syntax(_) => Fault::Incomplete,
        other => Fault::Wrong(format!("not XML: {other}")),
    })?;
    match &event {
        Event::Start(start) | Event::Empty(start) => check_start(start)?,
        Event::Text(text) => check_text(text)?,
        Event::CData(text) => check_chars(text)?,
        Event::Comment(comment) => check_chars(comment)?,
        Event::PI(instruction) => check_instruction(instruction)?,
        _ => {}
    }
    Ok(event)
}

/// XML 1.0, 2.8. Other encodings than UTF-8 are malformed (contract 1.3).
pub(super) fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), Fault> {
    let said = declaration.strip_prefix("xml").and_then(pseudo_attributes).unwrap_or_default();
    let (names, values): (Vec<&str>, Vec<&str>) = said.into_iter().unzip();
    let (encoding, standalone) = match (names.as_slice(), values.as_slice()) {
        (["version"], [_]) => ("utf-8", "no"),
        (["version", "encoding"], [_, encoding]) => (*encoding, "no"),
        (["version", "standalone"], [_, standalone]) => ("utf-8", *standalone),
        (["version", "encoding", "standalone"], [_, encoding, standalone]) => {
            (*encoding, *standalone)
        }
        _ => return wrong("an XML declaration that is none"),
    };
    let minor = values[0].strip_prefix("1.").unwrap_or_default();
    if minor.is_empty() || !minor.bytes().all(|digit| digit.is_ascii_digit()) {
        return wrong("an XML declaration of another version than 1.x");
    }
    if !matches!(standalone, "yes" | "no") {
        return wrong("an XML declaration that is none");
    }
    if !encoding.eq_ignore_ascii_case("utf-8") && !encoding.eq_ignore_ascii_case("utf8") {
        return wrong("the document declares another encoding than UTF-8");
    }
    Ok(())
}

/// Names and values of a declaration; `None` if it has anything else.
fn pseudo_attributes(mut text: &str) -> Option<Vec<(&str, &str)>> {
    let mut found = Vec::new();
    loop {
        let next = text.trim_start_matches(BLANKS);
        if next.is_empty() {
            return Some(found);
        }
        if next.len() == text.len() {
            return None;
        }
        let (name, value) = next.split_once('=')?;
        let value = value.trim_start_matches(BLANKS);
        let quote = value.chars().next().filter(|c| matches!(c, '"' | '\''))?;
        let (value, behind) = value[1..].split_once(quote)?;
        found.push((name.trim_end_matches(BLANKS), value));
        text = behind;
    }
}

const BLANKS: [char; 4] = [' ', '\t', '\n', '\r'];

/// Checks what the tokenizer leaves unchecked of a start tag: its name and attributes.
fn check_start(start: &BytesStart<'_>) -> Result<(), Fault> {
    let name = start.name();
    let name: &str = name.as_ref();
    if !is_name(name) {
        return Err(Fault::Wrong(format!("'{}' is no element name", name.escape_debug())));
    }
    if are_joined(start.attributes_raw()) {
        return wrong("no white space between two attributes");
    }
    let attributes: Attributes<'_> = start.attributes();
    for attribute in attributes {
        let attribute = attribute.map_err(|e| Fault::Wrong(format!("not XML: {e}")))?;
        let key: &str = attribute.key.as_ref();
        if !is_name(key) {
            return Err(Fault::Wrong(format!("'{}' is no attribute name", key.escape_debug())));
        }
        let value: &str = &attribute.value;
        if value.contains('<') {
            return wrong("a '<' in an attribute");
        }
        check_chars(value)?;
        let meant = attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|e| Fault::Wrong(format!("not XML: {e}")))?;
        check_chars(&meant)?;
    }
    Ok(())
}

/// XML 1.0, 2.6. What would be a declaration, but for its place or its case, is none.
fn check_instruction(instruction: &BytesPI<'_>) -> Result<(), Fault> {
    let target = instruction.target();
    if !is_name(target) || target.eq_ignore_ascii_case("xml") {
        return Err(Fault::Wrong(format!(
            "'{}' is no name of a processing instruction",
            target.escape_debug()
        )));
    }
    check_chars(instruction.content())
}

/// XML 1.0, 2.3: `Name`.
fn is_name(name: &str) -> bool {
    let starts = |c: char| {
        matches!(c, ':' | 'A'..='Z' | '_' | 'a'..='z' | '\u{c0}'..='\u{d6}' | '\u{d8}'..='\u{f6}'
            | '\u{f8}'..='\u{2ff}' | '\u{370}'..='\u{37d}' | '\u{37f}'..='\u{1fff}'
            | '\u{200c}'..='\u{200d}' | '\u{2070}'..='\u{218f}' | '\u{2c00}'..='\u{2fef}'
            | '\u{3001}'..='\u{d7ff}' | '\u{f900}'..='\u{fdcf}' | '\u{fdf0}'..='\u{fffd}'
            | '\u{10000}'..='\u{effff}')
    };
    let goes_on = |c: char| {
        starts(c)
            || matches!(c, '-' | '.' | '0'..='9' | '\u{b7}' | '\u{300}'..='\u{36f}'
                | '\u{203f}'..='\u{2040}')
    };
    name.chars().next().is_some_and(starts) && name.chars().all(goes_on)
}

/// True if something other than white space stands behind a value (XML 1.0, 3.1).
fn are_joined(attributes: &str) -> bool {
    let mut quote = None;
    let mut behind_value = false;
    for byte in attributes.bytes() {
        match quote {
            Some(open) if open == byte => (quote, behind_value) = (None, true),
            Some(_) => {}
            None if behind_value && !matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'/') => {
                return true;
            }
            None => {
                behind_value = false;
                quote = Some(byte).filter(|byte| matches!(byte, b'"' | b'\''));
            }
        }
    }
    false
}

fn check_text(text: &str) -> Result<(), Fault> {
    if text.contains("]]>") {
        return wrong("']]>' outside a CDATA section");
    }
    check_chars(text)
}

pub(super) fn is_xml_char(c: char) -> bool {
    !matches!(c, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

/// True if a byte can be (part of) a character that XML has not: a control character, or the first
/// byte of U+FFFE and U+FFFF.
pub(super) fn is_suspect(byte: u8) -> bool {
    (byte < 0x20 && !matches!(byte, b'\t' | b'\n' | b'\r')) || byte == 0xef
}

fn check_chars(text: &str) -> Result<(), Fault> {
    // Most text has none of them, which is seen many bytes at a time.
    let suspect = |part: &[u8]| part.iter().fold(false, |any, b| any | is_suspect(*b));
    if !text.as_bytes().chunks(256).any(suspect) {
        return Ok(());
    }
    match text.chars().find(|c| !is_xml_char(*c)) {
        Some(c) => {
            Err(Fault::Wrong(format!("the character U+{:04X}, which XML has not", u32::from(c))))
        }
        None => Ok(()),
    }
}

/// A character reference, or one of the five entities that XML has without a DOCTYPE.
pub(super) fn resolve(reference: &BytesRef<'_>) -> Result<char, Fault> {
    if let Some(c) =
        reference.resolve_char_ref().map_err(|e| Fault::Wrong(format!("not XML: {e}")))?
    {
        return if is_xml_char(c) {
            Ok(c)
        } else {
            wrong("a reference to a character that XML has not")
        };
    }
    let name: &str = &reference.borrow().into_inner();
    match name {
        "lt" => Ok('<'),
        "gt" => Ok('>'),
        "amp" => Ok('&'),
        "quot" => Ok('"'),
        "apos" => Ok('\''),
        other => Err(Fault::Wrong(format!(
            "the entity '{}', which is not declared",
            other.escape_debug()
        ))),
    }
}
