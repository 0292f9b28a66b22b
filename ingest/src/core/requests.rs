//! What stands beside reports in a document: requests for trust codes, authorization codes and policies,
//! and ACKs (R6.5).

use quick_xml::events::Event;
use quick_xml::reader::Reader;

/// What an element beside a report asks for, or tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RequestKind {
    TrustCode,
    Slac,
    SlacReturn,
    Policy,
    Ack,
    /// Neither a request nor an answer: system information and the like.
    Other,
}

impl RequestKind {
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RequestKind::TrustCode => "trust-code",
            RequestKind::Slac => "slac",
            RequestKind::SlacReturn => "slac-return",
            RequestKind::Policy => "policy",
            RequestKind::Ack => "ack",
            RequestKind::Other => "other",
        }
    }

    /// By the element's name. The vendor's documents are not published; these are the words in those that
    /// are seen: `smartLicenseTrustRequest`, `smartLicenseAuthRequest`, `smartLicenseAuthReturnRequest`,
    /// `smartLicensePolicy`, `smartLicenseRumAck`.
    #[must_use]
    pub fn of(element: &str) -> RequestKind {
        let name = element.to_ascii_lowercase();
        let has = |word: &str| name.contains(word);
        if has("ack") {
            RequestKind::Ack
        } else if has("trust") {
            RequestKind::TrustCode
        } else if has("return") {
            RequestKind::SlacReturn
        } else if has("auth") {
            RequestKind::Slac
        } else if has("policy") {
            RequestKind::Policy
        } else {
            RequestKind::Other
        }
    }
}

/// Elements of one piece of evidence; more are not looked at.
const ELEMENTS_MAX: usize = 1000;

/// The names of the outermost elements, in their order. What is not XML ends the list.
#[must_use]
pub fn elements(evidence: &[u8]) -> Vec<String> {
    let mut reader = Reader::from_reader(evidence);
    let mut depth = 0usize;
    let mut names = Vec::new();
    while names.len() < ELEMENTS_MAX {
        let name = match reader.read_event() {
            Ok(Event::Start(start)) => {
                depth += 1;
                (depth == 1).then(|| start.local_name().as_ref().to_owned())
            }
            Ok(Event::Empty(start)) => (depth == 0).then(|| start.local_name().as_ref().to_owned()),
            Ok(Event::End(_)) => {
                depth = depth.saturating_sub(1);
                None
            }
            Ok(Event::Eof) | Err(_) => break,
            Ok(_) => None,
        };
        names.extend(name);
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    /// R6.5: told apart by the names of the elements.
    #[test]
    fn requests_are_told_apart() {
        let evidence = b"<smartLicenseTrustRequest><a/></smartLicenseTrustRequest>\
            <smartLicenseAuthRequest>x</smartLicenseAuthRequest><smartLicenseAuthReturnRequest/>\
            <smartLicensePolicy/><x:smartLicenseRumAck/><smartLicenseSystemInfo/><cut";
        let kinds: Vec<&str> =
            elements(evidence).iter().map(|name| RequestKind::of(name).as_str()).collect();
        assert_eq!(kinds, ["trust-code", "slac", "slac-return", "policy", "ack", "other"]);
        assert_eq!(elements(b"\xff\xfe no xml"), Vec::<String>::new());
    }
}
