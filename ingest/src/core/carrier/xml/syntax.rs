//! What the tokenizer leaves unchecked of XML: declarations, names, attributes, characters, references.

use quick_xml::XmlVersion;
use quick_xml::events::attributes::Attributes;
use quick_xml::events::{BytesDecl, BytesRef, BytesStart, Event};
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

pub(super) fn next_event<'a>(reader: &mut Reader<&'a [u8]>) -> Result<Event<'a>, Fault> {
    reader.read_event().map_err(|error| match error {
        quick_xml::Error::Syntax(_) => Fault::Incomplete,
        other => Fault::Wrong(format!("not XML: {other}")),
    })
}

/// Other encodings than UTF-8 are malformed (contract 1.3).
pub(super) fn check_declaration(declaration: &BytesDecl<'_>) -> Result<(), Fault> {
    if declaration.version().is_err() {
        return wrong("an XML declaration without a version");
    }
    match declaration.encoding() {
        None => Ok(()),
        Some(Ok(name))
            if name.eq_ignore_ascii_case("utf-8") || name.eq_ignore_ascii_case("utf8") =>
        {
            Ok(())
        }
        Some(_) => wrong("the document declares another encoding than UTF-8"),
    }
}

/// Checks what the tokenizer leaves unchecked of a start tag: its name and attributes.
pub(super) fn check_start(start: &BytesStart<'_>) -> Result<(), Fault> {
    let name = start.name();
    let name: &str = name.as_ref();
    let starts_well =
        name.chars().next().is_some_and(|c| c.is_alphabetic() || c == '_' || c == ':');
    if !starts_well || name.contains(['<', '&', '"', '\'', '=']) {
        return Err(Fault::Wrong(format!("'{}' is no element name", name.escape_debug())));
    }
    let attributes: Attributes<'_> = start.attributes();
    for attribute in attributes {
        let attribute = attribute.map_err(|e| Fault::Wrong(format!("not XML: {e}")))?;
        let value: &str = &attribute.value;
        if value.contains('<') {
            return wrong("a '<' in an attribute");
        }
        check_chars(value)?;
        attribute
            .normalized_value(XmlVersion::Implicit1_0)
            .map_err(|e| Fault::Wrong(format!("not XML: {e}")))?;
    }
    Ok(())
}

pub(super) fn check_text(text: &str) -> Result<(), Fault> {
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

pub(super) fn check_chars(text: &str) -> Result<(), Fault> {
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
