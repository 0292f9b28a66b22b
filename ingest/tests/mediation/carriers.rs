//! Carriers and bundles.

use std::io::Write as _;

use ingest::core::carrier::{CarrierLimits, Item};
use ingest::core::decode::decode;
use schemas::disposition::Reason;

use crate::desk::*;

/// R2.8: a file holds reports of many PIs.
#[test]
fn carriers_are_told_apart_by_content() {
    let m = Mediation::new();
    let text = |id: u64| m.envelope(&payload(id)).to_string();
    let cdata = |id: u64| format!("<RUMReport><![CDATA[{}]]></RUMReport>", text(id));
    let escaped = text(1).replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    let halves = text(1);
    let (one, two) = halves.split_at(halves.len() / 2);
    let document = |inner: &str| {
        format!(
            "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<smartLicense>{inner}</smartLicense>\n"
        )
    };
    let (a, b) = (cdata(1), cdata(2));
    let good = ["verified", "verified"];
    let blank = " \n\t\r".repeat(600_000);
    let table: Vec<(Vec<&str>, String)> = vec![
        (good.to_vec(), document(&(a.clone() + &b))),
        (
            good.to_vec(),
            format!("\u{feff}{}", document(&(a.clone() + "\n<!-- x --> <?pi y?>\n" + &b))),
        ),
        (vec!["verified"], a.clone()),
        (vec!["verified"], format!("<RUMReport>{escaped}</RUMReport>")),
        (vec!["verified"], format!("<RUMReport><![CDATA[{one}]]><![CDATA[{two}]]></RUMReport>")),
        (
            vec!["verified"],
            document(&format!(
                "<smartLicensePolicy><a b='1'>x</a></smartLicensePolicy>{a}<smartLicenseAck/>"
            )),
        ),
        (vec!["ignored"], document("<smartLicenseRumAck>x</smartLicenseRumAck>")),
        (vec!["ignored"], "<smartLicenseRumAck><y/></smartLicenseRumAck>".to_owned()),
        (good.to_vec(), format!("{{\"usage\":[{},\n{}],\"more\":[1]}}", text(1), text(2))),
        (good.to_vec(), format!(" {{\"x\":{{}},\"\\u0075sage\":[{},{}]}} \n", text(1), text(2))),
        // More white space than a report has bytes, wherever it may stand.
        (
            good.to_vec(),
            format!(
                "{{\"usage\":[{blank}{}{blank},{blank}{}{blank}]{blank}}}{blank}",
                text(1),
                text(2)
            ),
        ),
        (vec!["ignored"], format!("{{\"usage\":[{blank}]{blank}}}")),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{},{blank}]}}", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}{blank}{}]}}", text(1), text(2))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}\u{c},{}]}}", text(1), text(2))),
        (vec!["verified"], format!("\n{}\n", text(1))),
        (vec!["verified", "malformed"], format!("{} trailing", text(1))),
        (vec!["verified", "malformed"], format!("{}\n{}\n", text(1), text(2))),
        (vec!["verified", "malformed"], format!("{}{blank}x", text(1))),
        (vec!["malformed"], "{\"ack\":1} trailing".to_owned()),
        (vec!["malformed"], format!("{{\"ack\":1}}{blank}x")),
        (vec!["ignored"], format!("{{\"ack\":1}}{blank}")),
        // Unknown keys are kept, whatever their names.
        (vec!["verified"], format!("{},\"usage\":[1]}}", &text(1)[..text(1).len() - 1])),
        (vec!["malformed"], format!("{{\"usage\":[],{}", &text(1)[1..])),
        (vec!["ignored"], "{\"usage\":[]}".to_owned()),
        (vec!["ignored"], "{\"ack\":1}".to_owned()),
        (vec!["ignored"], "[]".to_owned()),
        // Broken half-way: what stands before is taken, the rest is one.
        (
            vec!["verified", "malformed"],
            document(&a)
                .replace("</smartLicense>", "<RUMReport>&undeclared;</RUMReport></smartLicense>"),
        ),
        (
            vec!["verified", "malformed"],
            document(&(a.clone() + "<RUMReport><![CDATA[{")).replace("</smartLicense>", ""),
        ),
        (vec!["verified", "malformed"], document(&a) + "trailing"),
        (vec!["verified", "malformed"], document(&a) + "<smartLicense/>"),
        (vec!["verified", "malformed"], document(&(a.clone() + "</x>"))),
        (vec!["verified", "malformed"], document(&a).replace("</smartLicense>", "")),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{},{{\"payload\":", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}] trailing", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}]}} {{}}", text(1))),
        (vec!["verified", "malformed"], format!("{{\"usage\":[{}],\"usage\":[]}}", text(1))),
        // A report's own faults are its own: the next one is read.
        (
            vec!["malformed", "verified"],
            document(&format!("<RUMReport><![CDATA[no json]]></RUMReport>{a}")),
        ),
        (vec!["malformed", "verified"], document(&format!("<RUMReport/>{a}"))),
        (vec!["malformed", "verified"], document(&format!("<RUMReport><b>x</b></RUMReport>{a}"))),
        (
            vec!["too-deep", "verified"],
            format!("{{\"usage\":[{}{},{}]}}", "[".repeat(90), "]".repeat(90), text(1)),
        ),
        (
            vec!["malformed", "missing-field", "verified"],
            format!("{{\"usage\":[5,{{}},{}]}}", text(1)),
        ),
        // Whole inputs that are no carrier.
        (vec!["malformed"], String::new()),
        (vec!["malformed"], "  \n ".to_owned()),
        (vec!["malformed"], "hello".to_owned()),
        (vec!["malformed"], "<smartLicense>".to_owned()),
        (vec!["malformed"], "<!DOCTYPE x []>".to_owned() + &a),
        (vec!["malformed"], document(&a).replace("UTF-8", "ISO-8859-1")),
        (vec!["verified"], document(&a).replace("\"UTF-8\"", " 'utf-8'\tstandalone =\n'yes' ")),
        (vec!["malformed"], document(&a).replace("encoding", "eocoding")),
        (vec!["malformed"], document(&a).replace("1.0\" ", "1.0\"")),
        (vec!["malformed"], document(&a).replace("1.0\"", "1.0\" version=\"1.0\"")),
        (vec!["malformed"], document(&a).replace("1.0", "2.0")),
        (vec!["malformed"], document(&a).replace("UTF-8\"", "UTF-8\" /")),
        (vec!["malformed"], document(&a).replace("UTF-8\"", "UTF-8\" standalone=\"maybe\"")),
        (vec!["malformed"], document(&a).replace("version=\"1.0\" ", "")),
        (vec!["malformed"], "<a b='1' b='2'/>".to_owned()),
        (vec!["malformed"], "<a>\u{1}</a>".to_owned()),
        // U+FEFF is a character like any other, but for the first of an input.
        (good.to_vec(), document(&format!("\u{feff}\n{a}\u{feff}{b}\u{feff}"))),
        (vec!["verified"], document(&format!("\u{feff}<![CDATA[x]]>{a}"))),
        (vec!["ignored"], "<smartLicense>\u{feff}</smartLicense>".to_owned()),
        (vec!["verified", "malformed"], format!("{a}\u{feff}")),
        (vec!["malformed"], format!("<!-- -->\u{feff}{a}")),
        (vec!["malformed"], format!("\u{feff}\u{feff}{a}")),
        // White space before a declaration, and what is none, however much of it there is.
        (vec!["malformed"], format!(" {}", document(&a))),
        (vec!["malformed"], format!("{blank}{}", document(&a))),
        (vec!["verified"], format!("{blank}{a}")),
        (vec!["malformed"], format!("\u{c}{a}")),
        (vec!["malformed"], format!("{}{a}", "\u{c}".repeat(300_000))),
        // What is broken is so with much behind it.
        (
            vec!["verified", "malformed"],
            document(&format!("{a}<b c='1'd='2'/>{}", "<a>y</a>".repeat(2_600_000))),
        ),
        (
            vec!["malformed"],
            document(&format!("<RUMReport>&no;</RUMReport>{}{a}", "<a>y</a>".repeat(2_600_000))),
        ),
        (vec!["too-large"], format!("<RUMReport>{{\"x\":\"{}", "y".repeat(17 << 20))),
        (
            vec!["too-large", "verified"],
            document(&format!("<RUMReport>{{\"x\":\"{}</RUMReport \n>{a}", "y".repeat(17 << 20))),
        ),
        (
            vec!["too-large"],
            document(&format!("<RUMReport>{{\"x\":\"{}</RUMReport {a}", "y".repeat(17 << 20))),
        ),
        // Elements that are no containers end where they end.
        (
            vec!["too-large", "verified", "malformed", "verified"],
            format!(
                "{{\"usage\":[\"{y}\",{},{n} ,{}]}}",
                text(1),
                text(2),
                y = "y\\\",".repeat(600_000),
                n = "1".repeat(3 << 20)
            ),
        ),
        // What no XML is, beside a report.
        (vec!["verified", "malformed"], document(&(a.clone() + "<!-- \u{1} -->"))),
        (vec!["verified", "malformed"], document(&(a.clone() + "<?pi \u{1}?>"))),
        (vec!["verified", "malformed"], document(&(a.clone() + "<?p!?>"))),
        (vec!["verified", "malformed"], document(&(a.clone() + "<po!icy/>"))),
        (vec!["verified", "malformed"], document(&(a.clone() + "<b c!='1'/>"))),
        (vec!["verified", "malformed"], document(&(a.clone() + "<b c='&#1;'/>"))),
        (vec!["verified", "malformed"], document(&(a.clone() + "<b c='1'd='2'/>"))),
        (vec!["verified"], document(&(a.clone() + "<b-é.1 c='\"'\n\td:e = \"'/>\"/>"))),
    ];
    for (expected, text) in table {
        assert_eq!(
            Mediation { keyring: m.keys.keyring(), ..Mediation::new() }.take(text.as_bytes()),
            expected,
            "{text}"
        );
    }
}

#[test]
fn invalid_utf8_makes_the_rest_malformed() {
    let mut m = Mediation::new();
    let text = m.envelope(&payload(1)).to_string();
    let xml = format!(
        "<smartLicense><RUMReport><![CDATA[{text}]]></RUMReport><RUMReport><![CDATA[#]]></RUMReport></smartLicense>"
    );
    let broken: Vec<u8> = xml.bytes().map(|b| if b == b'#' { 0xff } else { b }).collect();
    assert_eq!(m.take(&broken), ["verified", "malformed"]);
    let list = format!("{{\"usage\":[{text},\"#\"]}}");
    let broken: Vec<u8> = list.bytes().map(|b| if b == b'#' { 0xff } else { b }).collect();
    assert_eq!(m.take(&broken), ["duplicate", "malformed"]);
    assert_eq!(m.take(b"\xff\xfe<\0a\0"), ["malformed"]);
    for whole in [
        text.clone(),
        format!("{{\"usage\":[{text}]}}"),
        format!("{{\"usage\":[{text}],\"x\":1}} "),
    ] {
        assert_eq!(m.take(&[whole.as_bytes(), b"\xff"].concat()), ["duplicate", "malformed"]);
    }
    assert_eq!(m.take(b"{\"ack\":1}\xff"), ["malformed"]);
    assert_eq!(m.take(b"{\"usage\":[]}\xff"), ["malformed"]);
}

/// R6.5.
#[test]
fn what_stands_beside_a_report_is_kept_with_it() {
    let xml = "<smartLicense><a>1</a><RUMReport>x</RUMReport><b/><RUMReport>y</RUMReport><c/></smartLicense>";
    let kept: Vec<(String, String)> = items(xml.as_bytes(), &CarrierLimits::default())
        .into_iter()
        .map(|item| match item {
            Item::Report(r) => {
                (String::from_utf8(r.text.to_vec()).unwrap(), String::from_utf8(r.context).unwrap())
            }
            Item::Ignored { .. } => panic!("nothing is ignored"),
        })
        .collect();
    let expected =
        [("x", "<a>1</a><b/>"), ("y", "<c/>")].map(|(a, b)| (a.to_owned(), b.to_owned()));
    assert_eq!(kept, expected);
}

/// Of an input in which no report can be read all bytes are kept, of another the rest.
#[test]
fn what_stands_before_a_fault_is_kept() {
    let r = "<RUMReport>x</RUMReport>";
    for (input, kept) in [
        ("<smartLicense>", "<smartLicense>"),
        (
            "<smartLicense><a>1</a><RUMReport><![CDATA[{\"p",
            "<smartLicense><a>1</a><RUMReport><![CDATA[{\"p",
        ),
        (
            "<?xml version=\"1.0\"?><!-- a --><!DOCTYPE a><a/>",
            "<?xml version=\"1.0\"?><!-- a --><!DOCTYPE a><a/>",
        ),
        ("<a>ack</a>x", "<a>ack</a>x"),
        ("{\"serial\":\"1\",\"usage\":[", "{\"serial\":\"1\",\"usage\":["),
        ("{\"usage\":[],\"more\":1}x", "{\"usage\":[],\"more\":1}x"),
        (&format!("<smartLicense>{r}<a/></x>"), "</x>"),
        ("{\"usage\":[{}] x", "x"),
    ] {
        let items = items(input.as_bytes(), &CarrierLimits::default());
        let Some(Item::Report(last)) = items.last() else { panic!("{input}: {items:?}") };
        assert_eq!(String::from_utf8_lossy(&last.text), kept, "{input}");
    }
}

/// A `]]>` in the text of a document, wherever the reader's window ends.
#[test]
fn a_window_ends_anywhere() {
    let r = "<RUMReport>x</RUMReport>";
    for n in (262_144 - 60)..(262_144 - 30) {
        for (between, reports) in [("]]>", 2), ("]] >", 2), ("\u{feff}]", 2)] {
            let input = format!("<smartLicense>{r}{}{between}{r}</smartLicense>", "y".repeat(n));
            let items = items(input.as_bytes(), &CarrierLimits::default());
            let refused =
                items.iter().filter(|i| matches!(i, Item::Report(r) if r.refused.is_some()));
            assert_eq!(
                (items.len(), refused.count()),
                (reports, usize::from(between == "]]>")),
                "{n} {between}"
            );
        }
    }
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut out = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    out.write_all(bytes).unwrap();
    out.finish().unwrap()
}

fn tar(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut out = tar::Builder::new(Vec::new());
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        // Names as an attacker writes them: the builder would refuse some.
        let field = &mut header.as_old_mut().name;
        field[..name.len()].copy_from_slice(name.as_bytes());
        header.set_cksum();
        out.append(&header, *bytes).unwrap();
    }
    out.into_inner().unwrap()
}

/// The checksum stands eight bytes before the end of a gzip stream (RFC 1952, 2.3).
fn with_wrong_checksum(mut packed: Vec<u8>) -> Vec<u8> {
    let at = packed.len() - 8;
    packed[at] ^= 1;
    packed
}

#[test]
fn bundles_are_read_whole_or_not_at_all() {
    let m = Mediation::new();
    let xml = |id: u64| {
        format!("<RUMReport><![CDATA[{}]]></RUMReport>", m.envelope(&payload(id))).into_bytes()
    };
    let (a, b) = (xml(1), xml(2));
    let va = gzip(&tar(&[("dev_1.txt", &a), ("dev_2.txt", &b)]));
    let sa = gzip(&tar(&[("manifest.mf", b"wrong names"), ("UD_VA_1.tar.gz", &va)]));
    let good = vec!["verified", "verified"];
    let whole = tar(&[("x", &a), ("y", &b)]);
    let between_members = whole[..512 + a.len().next_multiple_of(512)].to_vec();
    let mut table: Vec<(&str, Vec<&str>, Vec<u8>)> = vec![
        ("bundle", good.clone(), sa.clone()),
        ("its inner archive alone", good.clone(), va.clone()),
        ("a tar that is not packed", good.clone(), tar(&[("x", &a), ("y", &b)])),
        ("one packed file", vec!["verified"], gzip(&a)),
        (
            "names that leave the archive",
            good,
            gzip(&tar(&[("../../etc/passwd", &a), ("/tmp/x", &b)])),
        ),
        ("only a manifest", vec![], gzip(&tar(&[("manifest.mf", b"x")]))),
        ("an empty member", vec!["malformed", "verified"], gzip(&tar(&[("x", b""), ("y", &a)]))),
        ("cut", vec!["malformed"], sa[..sa.len() / 2].to_vec()),
        ("cut by a byte", vec!["malformed"], sa[..sa.len() - 1].to_vec()),
        (
            "cut inner archive",
            vec!["malformed", "verified"],
            gzip(&tar(&[("v", &va[..va.len() / 2]), ("x", &a)])),
        ),
        ("damaged", vec!["malformed"], {
            let mut damaged = sa.clone();
            let middle = damaged.len() / 2;
            damaged[middle] ^= 0x55;
            damaged
        }),
        ("a cut tar, packed whole", vec!["malformed"], gzip(&tar(&[("x", &a), ("y", &b)])[..700])),
        ("a tar cut between its members", vec!["malformed"], between_members.clone()),
        ("the same, packed whole", vec!["malformed"], gzip(&between_members)),
        ("the same, in a whole one", vec!["malformed"], tar(&[("x.tar", &between_members)])),
        ("a wrong checksum of what was packed", vec!["malformed"], with_wrong_checksum(gzip(&a))),
        (
            "the same of an archive",
            vec!["malformed"],
            with_wrong_checksum(gzip(&tar(&[("x", &a), ("y", &b)]))),
        ),
        (
            "two, one behind the other",
            vec!["verified", "verified"],
            [gzip(&tar(&[("x", &a)])), gzip(&tar(&[("y", &b)]))].concat(),
        ),
        (
            "the same, not packed",
            vec!["verified", "verified"],
            [tar(&[("x", &a)]), tar(&[("y", &b)])].concat(),
        ),
        (
            "no archive behind an archive",
            vec!["malformed"],
            [tar(&[("x", &a)]), b.repeat(2)].concat(),
        ),
        (
            "zeros behind what is packed",
            vec!["verified"],
            [gzip(&tar(&[("x", &a)])), vec![0; 9000]].concat(),
        ),
        (
            "zeros between two",
            vec!["verified", "verified"],
            [gzip(&tar(&[("x", &a)])), vec![0; 70_000], gzip(&tar(&[("y", &b)]))].concat(),
        ),
        ("anything else behind it", vec!["malformed"], [gzip(&a), b"\0\0x".to_vec()].concat()),
        ("text with the magic of a tar in its place", vec!["verified"], {
            let text = m.envelope(&payload(1)).to_string();
            format!("{{\"x\":\"{}ustar{}\",{}", "y".repeat(251), "y".repeat(300), &text[1..])
                .into_bytes()
        }),
        ("zeros behind an archive", vec!["verified"], [tar(&[("x", &a)]), vec![0; 9216]].concat()),
    ];
    let deep = (0..6).fold(va, |inner, _| gzip(&tar(&[("v.tar.gz", &inner)])));
    table.push(("nested too deeply", vec!["too-large"], deep));
    for (what, expected, bytes) in table {
        assert_eq!(
            Mediation { keyring: m.keys.keyring(), ..Mediation::new() }.take(&bytes),
            expected,
            "{what}"
        );
    }
}

/// What a header has no room for stands in a record before it.
#[test]
fn long_names_are_read() {
    let far = format!("{}/{}", "d".repeat(90), "e".repeat(90));
    let text = Mediation::new().envelope(&payload(1)).to_string();
    let mut gnu = tar::Builder::new(Vec::new());
    let mut pax = tar::Builder::new(Vec::new());
    for name in ["manifest.mf", "dev_1.txt"] {
        let path = format!("{far}/{name}");
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        gnu.append_data(&mut header, &path, text.as_bytes()).unwrap();
        pax.append_pax_extensions([("mtime", &b"1"[..]), ("path", path.as_bytes())]).unwrap();
        header.set_path("cut").unwrap();
        header.set_cksum();
        pax.append(&header, text.as_bytes()).unwrap();
    }
    // Before there was a magic.
    let mut old = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_old();
    header.set_path("dev_1.txt").unwrap();
    header.set_size(text.len() as u64);
    header.set_cksum();
    old.append(&header, text.as_bytes()).unwrap();
    for archive in [gnu, pax, old] {
        let found = items(&archive.into_inner().unwrap(), &CarrierLimits::default());
        let [Item::Report(report)] = found.as_slice() else { panic!("{found:?}") };
        assert_eq!(report.position.source.split_once('!').unwrap().1, "dev_1.txt");
    }
}

/// By source and offset it is known where a report came from.
#[test]
fn members_of_one_name_are_told_apart() {
    let text = Mediation::new().envelope(&payload(1)).to_string();
    let text = text.as_bytes();
    let names = ["z/x", "x#3", "a/x", "x", "x", "y", "x#3"];
    let members: Vec<(&str, &[u8])> = names.iter().map(|name| (*name, text)).collect();
    let sources: Vec<String> = items(&gzip(&tar(&members)), &CarrierLimits::default())
        .into_iter()
        .map(|item| match item {
            Item::Report(report) => report.position.source.split_once('!').unwrap().1.to_owned(),
            Item::Ignored { .. } => panic!("nothing is ignored"),
        })
        .collect();
    assert_eq!(sources, ["x", "x#3", "x#2", "x#4", "x#5", "y", "x#3#2"]);
}

#[test]
fn an_archive_over_a_limit_is_one_too_large() {
    let good = b"<smartLicense/>";
    let small = CarrierLimits {
        archive_members_max: 3,
        archive_bytes_max: 100_000,
        ..CarrierLimits::default()
    };
    let take = |bytes: &[u8]| Mediation { limits: small, ..Mediation::new() }.take(bytes);
    let members = |n: usize| gzip(&tar(&vec![("x", &good[..]); n]));
    assert_eq!(take(&members(3)), ["ignored"; 3]);
    assert_eq!(take(&members(4)), ["too-large"]);
    assert_eq!(take(&gzip(&tar(&[("a", good), ("x", &vec![b' '; 120_000])]))), ["too-large"]);
    // Spread over two levels, the sum counts.
    let inner = gzip(&tar(&[("x", &vec![b' '; 60_000])]));
    assert_eq!(take(&gzip(&tar(&[("1", &inner), ("2", &inner)]))), ["too-large"]);
    // A bomb: 300 MB of nothing in 300 KB, far beyond any honest ratio.
    let bomb = gzip(&tar(&[("x", &vec![b'\n'; 300 << 20])]));
    assert_eq!(Mediation::new().take(&bomb), ["too-large"]);
}

/// A report over the limit is kept whole; one that is over what may be kept says how much is.
#[test]
fn what_is_kept_of_a_large_report_is_said() {
    let m = Mediation::new();
    for (bytes, kept_max) in [(3 << 20, None), (20 << 20, Some(8 << 20))] {
        let text = m.envelope(&payload(1)).to_string();
        let report = format!("{{\"x\":\"{}\",{}", "y".repeat(bytes - text.len()), &text[1..]);
        let deep = report.replacen(
            "yy",
            &format!("\",\"z\":{}{},\"x\":\"", "[".repeat(70), "]".repeat(70)),
            1,
        );
        for (reason, report) in [(Reason::TooLarge, &report), (Reason::TooDeep, &deep)] {
            for (carrier, input) in [
                ("one", report.clone()),
                ("list", format!("{{\"usage\":[{report},{text}]}}")),
                ("XML", format!("<RUMReport><![CDATA[{report}]]></RUMReport>")),
            ] {
                let read = items(input.as_bytes(), &m.limits);
                let Some(Item::Report(raw)) = read.first() else { panic!("{carrier}: {read:?}") };
                let kept: &[u8] = &raw.text;
                assert_eq!(kept.len(), kept_max.unwrap_or(report.len()), "{carrier} {reason}");
                assert!(report.as_bytes().starts_with(kept), "{carrier} {reason}");
                let (found, detail) = raw.refused.clone().unwrap_or_else(|| {
                    let refused = decode(kept, &m.limits.report, NOW).unwrap_err();
                    (refused.reason, refused.detail)
                });
                assert_eq!(found, reason, "{carrier} {detail}");
                let says = detail.ends_with("; the first 8388608 bytes are kept");
                assert_eq!(says, kept_max.is_some(), "{carrier} {detail}");
                if let (Reason::TooLarge, None) = (reason, kept_max) {
                    assert!(
                        detail.contains(&format!("has {} bytes", report.len())),
                        "{carrier} {detail}"
                    );
                }
                assert_eq!(read.len(), if carrier == "list" { 2 } else { 1 });
            }
        }
    }
}

/// Contract 1.3: of faults of reading the one met first wins, in every carrier, wherever the reader's window ends.
#[test]
fn what_is_too_large_first_is_so_in_every_carrier() {
    let report = |padding: usize, rest: &str| {
        let m = Mediation::new();
        let text = m.envelope(&payload(1)).to_string();
        format!("{},\"x\":\"{}\"{rest}", &text[..text.len() - 1], "y".repeat(padding))
    };
    let deep = format!(",\"d\":{}{}}}", "[".repeat(80), "]".repeat(80));
    let most = CarrierLimits::default().report.report_bytes_max;
    for padding in [0, most, most + 20_000, most + 200_000, 2 * most, 5 * most] {
        for (rest, first) in [(", nope}", "malformed"), ("", "malformed"), (&deep, "too-deep")] {
            let text = report(padding, rest);
            let expected = if padding == 0 { first } else { "too-large" };
            for carried in [
                text.clone(),
                format!("{{\"usage\":[{text}]}}"),
                format!("<smartLicense><RUMReport><![CDATA[{text}]]></RUMReport></smartLicense>"),
            ] {
                let found = Mediation::new().take(carried.as_bytes());
                assert_eq!(found, [expected], "{padding} {rest:.20} {carried:.20}");
            }
        }
    }
    // Of an element that is too large the end is found, and what stands behind it is read.
    let mut m = Mediation::new();
    let good = m.envelope(&payload(2)).to_string();
    let list = format!("{{\"usage\":[{},{good}]}}", report(most, ", nope}"));
    assert_eq!(m.take(list.as_bytes()), ["too-large", "verified"]);
    // Too many measurements, whatever they are, and then a cut.
    let many = |one: &str| {
        let all = vec![one; 10_001].join(",");
        let text = payload(1).to_string();
        let at = text.find("\"measurements\":[").unwrap() + "\"measurements\":[".len();
        let end = at + text[at..].find(']').unwrap();
        format!("{{\"payload\":{}{all}{}", &text[..at], &text[end..])
    };
    for one in ["{}", "0"] {
        for text in [many(one), format!("{},\"signature\":{{}}}}", many(one))] {
            assert_eq!(Mediation::new().take(text.as_bytes()), ["too-large"], "{one}");
            let list = format!("{{\"usage\":[{text}");
            assert_eq!(Mediation::new().take(list.as_bytes())[0], "too-large", "{one}");
        }
    }
}
