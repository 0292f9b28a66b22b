//! What holds for any bytes.

use std::io::{self, Read};

use ingest::core::carrier::{CarrierLimits, Source, read_source};
use proptest::prelude::*;

use crate::desk::*;

/// Gives its bytes in pieces, so that every state of the window is met.
struct InPieces<'a> {
    bytes: &'a [u8],
    piece: usize,
}

struct Pieces<'a>(&'a [u8], usize);

impl Read for Pieces<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.0.len().min(self.1).min(out.len());
        out[..n].copy_from_slice(&self.0[..n]);
        self.0 = &self.0[n..];
        Ok(n)
    }
}

impl Source for InPieces<'_> {
    fn name(&self) -> &str {
        "input"
    }
    fn open(&self) -> io::Result<Box<dyn Read + '_>> {
        Ok(Box::new(Pieces(self.bytes, self.piece)))
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]

    /// No bytes make reading panic; every input says something, and what is kept is bounded.
    #[test]
    fn any_bytes_have_a_disposition(bytes in prop::collection::vec(any::<u8>(), 0..400), prefix in 0usize..6) {
        let prefixes: [&[u8]; 6] = [b"", b"<smartLicense>", b"{\"usage\":[", b"{\"payload\":\"", b"\x1f\x8b\x08\x00", b"<RUMReport><![CDATA["];
        let input = [prefixes[prefix], &bytes].concat();
        prop_assert!(!Mediation::new().take(&input).is_empty());
    }

    /// Text that looks like the carriers' own.
    #[test]
    fn any_markup_has_a_disposition(parts in prop::collection::vec(prop::sample::select(vec![
        "<smartLicense>", "</smartLicense>", "<RUMReport>", "</RUMReport>", "<![CDATA[", "]]>", "<a/>", "<!--", "-->",
        "&amp;", "&#65;", "&x;", "{", "}", "[", "]", "\"usage\":", "\"payload\":", "\"\"", ",", "1", "<?xml version='1.0'?>", "x", "\u{e9}",
    ]), 0..12)) {
        prop_assert!(!Mediation::new().take(parts.concat().as_bytes()).is_empty());
    }

    /// However the input comes, it is read the same; cut anywhere, what stands before the cut is read
    /// and the rest is one.
    #[test]
    fn reading_does_not_depend_on_the_window(piece in 1usize..5000, cut in 0usize..100, list: bool) {
        let m = Mediation::new();
        let (open, close, end) =
            if list { ("", " , ", "]}") } else { ("<RUMReport><![CDATA[", "]]></RUMReport>\n", "</smartLicense>") };
        let mut whole = (if list { "{\"usage\":[" } else { "<smartLicense>" }).to_owned();
        // Where each report is complete: in a list by its brace, in XML by its end tag.
        let mut ends = Vec::new();
        for id in 1..4 {
            whole += &format!("{open}{}", m.envelope(&payload(id)));
            ends.push(whole.len() + if list { 0 } else { close.len() - 1 });
            whole += close;
        }
        whole.truncate(whole.len() - if list { close.len() } else { 0 });
        whole += end;
        let cut = whole.len() * cut / 100;
        for bytes in [whole.as_bytes(), &whole.as_bytes()[..cut]] {
            let mut pieced = Vec::new();
            read_source(&InPieces { bytes, piece }, &CarrierLimits::default(), &mut |item| { pieced.push(item); true }).unwrap();
            prop_assert_eq!(&pieced, &items(bytes, &CarrierLimits::default()));
        }
        let complete = ends.iter().filter(|end| **end <= cut).count();
        let words = Mediation { keyring: m.keys.keyring(), ..Mediation::new() }.take(&whole.as_bytes()[..cut]);
        let mut expected = vec!["verified"; complete];
        expected.push("malformed");
        prop_assert_eq!(words, expected);
    }

    /// One byte changed in a signed report never becomes usage.
    #[test]
    fn a_changed_payload_is_never_accepted(at in 0usize..500, to in 1u8..127) {
        let mut m = Mediation::new();
        let mut envelope = m.envelope(&payload(1));
        let mut text = envelope["payload"].as_str().unwrap().as_bytes().to_vec();
        let at = at % text.len();
        prop_assume!(text[at] != to);
        text[at] = to;
        envelope["payload"] = String::from_utf8(text).unwrap().into();
        let word = m.one(&envelope);
        prop_assert!(word != "verified" && word != "unverifiable", "{}", word);
    }
}
