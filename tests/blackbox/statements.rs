//! Statements as files.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read as _;
use std::path::Path;

use arrow::array::AsArray as _;
use arrow::datatypes::Decimal128Type;
use flate2::bufread::DeflateDecoder;
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;

use crate::support::Place;

/// The mandatory columns of FOCUS 1.2, cost and usage.
const FOCUS_MANDATORY: [&str; 21] = [
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ContractedCost",
    "EffectiveCost",
    "InvoiceIssuerName",
    "ListCost",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "ServiceCategory",
    "ServiceName",
];

/// The text of all parts of a workbook, which is a ZIP file of XML.
fn texts_in(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap();
    let mut texts = String::new();
    let mut at = 0;
    while let Some(header) = bytes[at..].strip_prefix(b"PK\x03\x04") {
        let short = |i: usize| usize::from(u16::from_le_bytes([header[i], header[i + 1]]));
        let start = at + 30 + short(22) + short(24);
        let mut part = DeflateDecoder::new(&bytes[start..]);
        part.read_to_string(&mut texts).unwrap();
        at = start + usize::try_from(part.total_in()).unwrap();
        // What stands behind a part that was written as a stream.
        if bytes[at..].starts_with(b"PK\x07\x08") {
            at += 16;
        }
    }
    texts
}

#[test]
fn a_statement_is_written_in_every_form() {
    let place = Place::new();
    place.ok(0, &["demo"]);
    let lake = "rumledger-demo/lake";
    let statement = |args: &[&str]| {
        let mut all = vec!["-q", "--lake", lake, "statement", "--period", "2026-10"];
        all.extend(args);
        place.run(&all)
    };
    let csv = statement(&["--format", "csv"]).stdout;
    let rows: Vec<csv::StringRecord> =
        csv::Reader::from_reader(csv.as_bytes()).records().collect::<Result<_, _>>().unwrap();

    // Parquet: the same cells, decimals as decimals.
    assert_eq!(statement(&["--format", "parquet", "--out", "s.parquet"]).status, 0);
    let file = File::open(place.path("s.parquet")).unwrap();
    let batch = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap().next();
    let batch = batch.unwrap().unwrap();
    assert_eq!(batch.num_rows(), rows.len());
    let names: Vec<String> = batch.schema().fields().iter().map(|f| f.name().clone()).collect();
    assert_eq!(names.join(","), csv.lines().next().unwrap());
    let quantities = batch["quantity"].as_primitive::<Decimal128Type>();
    let ids = batch["line_id"].as_string::<i32>();
    for (i, row) in rows.iter().enumerate() {
        assert_eq!(ids.value(i), &row[0]);
        assert_eq!(quantities.value_as_string(i), &row[15]);
    }

    // FOCUS: every mandatory column, and the sum of what is billed.
    assert_eq!(statement(&["--format", "focus", "--out", "s.csv"]).status, 0);
    let focus = std::fs::read_to_string(place.path("s.csv")).unwrap();
    let mut reader = csv::Reader::from_reader(focus.as_bytes());
    let head = reader.headers().unwrap().clone();
    for column in FOCUS_MANDATORY {
        assert!(head.iter().any(|h| h == column), "{column}");
    }
    let at = |name: &str| head.iter().position(|h| h == name).unwrap();
    let (cost, id) = (at("BilledCost"), at("x_LineId"));
    for (row, ours) in reader.records().zip(&rows) {
        let row = row.unwrap();
        assert_eq!((&row[cost], &row[id]), (&ours[16], &ours[0]));
        assert!(row[at("ChargePeriodStart")] < row[at("ChargePeriodEnd")]);
        assert!(row[at("BillingPeriodStart")] < row[at("BillingPeriodEnd")]);
    }

    // XLSX and PDF: what they are, and the same bytes each time.
    for (format, magic) in [("pdf", &b"%PDF-"[..]), ("xlsx", b"PK\x03\x04")] {
        let bytes: Vec<Vec<u8>> = ["one", "two"]
            .iter()
            .map(|name| {
                let ran = statement(&["--format", format, "--out", name]);
                assert_eq!(ran.status, 0, "{}", ran.stderr);
                std::fs::read(place.path(name)).unwrap()
            })
            .collect();
        assert!(bytes[0].starts_with(magic) && bytes[0].len() > 5000, "{format}");
        assert_eq!(bytes[0], bytes[1], "{format}");
    }
    // One file a customer.
    assert_eq!(statement(&["--format", "pdf", "--out", "all/"]).status, 0);
    assert_eq!(crate::support::files(&place.path("all")).len(), 5);
    let one = statement(&["--customer", "Hafen & Söhne GmbH", "--format", "csv"]).stdout;
    assert!(one.lines().count() > 1 && one.lines().count() < csv.lines().count());

    // Of one customer, nothing of the others: neither lines nor exceptions nor coverage.
    let ran =
        statement(&["--customer", "Hafen & Söhne GmbH", "--format", "xlsx", "--out", "one.xlsx"]);
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let others: BTreeSet<&str> =
        rows.iter().map(|row| &row[6]).filter(|c| !c.starts_with("Hafen")).collect();
    let (one, all) = (texts_in(&place.path("one.xlsx")), texts_in(&place.path("one")));
    assert!(others.len() > 2 && one.contains("Hafen &amp; Söhne GmbH"));
    for other in others {
        let other = other.replace('&', "&amp;");
        assert!(!one.contains(&other) && all.contains(&other), "{other}");
    }

    // What stands there and is no file stays what it is; a link leads to the new file.
    std::os::unix::fs::symlink("two", place.path("link")).unwrap();
    std::fs::write(place.path("two"), "old").unwrap();
    for out in ["link", "/dev/null"] {
        assert_eq!(statement(&["--format", "xlsx", "--out", out]).status, 0);
    }
    assert!(place.path("link").is_symlink() && !Path::new("/dev/null").is_file());
    assert_eq!(
        std::fs::read(place.path("one")).unwrap(),
        std::fs::read(place.path("two")).unwrap()
    );
    assert_eq!(statement(&["--format", "xlsx", "--out", "all"]).status, 2, "a folder");
    assert_eq!(statement(&["--format", "xlsx", "--out", "none/x"]).status, 1, "no folder");
    assert!(crate::support::names(&place.path("")).iter().all(|name| !name.ends_with(".tmp")));

    // A name that no font here has is told, and where more fonts may be.
    let set = |name: &str, value: &str| {
        let args = ["-q", "--lake", lake, "statement", "--period", "2026-10"];
        let mut command = place.command(&[&args[..], &["--format", "pdf", "--out", "jp"]].concat());
        crate::support::ran(command.env(name, value).output().unwrap())
    };
    let told = set("RUMLEDGER_INVOICE_ISSUER", "株式会社 Söhne");
    assert_eq!(told.status, 0, "{}", told.stderr);
    assert!(told.stderr.contains("no font here has 会式株社: "), "{}", told.stderr);
    assert_eq!(set("RUMLEDGER_PDF_FONTS", "no/such").status, 2);

    // What cannot be is said.
    assert_eq!(statement(&["--format", "pdf"]).status, 2, "no file named");
    assert_eq!(statement(&["--format", "csv", "--out", "x"]).status, 2);
    assert_eq!(place.run(&["--lake", lake, "exceptions", "--format", "xlsx"]).status, 2);
    assert_eq!(statement(&["--format", "xlsx", "--out", "no/such/folder/x"]).status, 1);
}
