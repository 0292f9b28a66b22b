//! Reports in their carriers.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::ops::Range;
use std::path::Path;

use anyhow::Context as _;
use flate2::Compression;
use flate2::write::GzEncoder;

use super::Written;
use super::report::Fleet;

fn carrier(file: u64) -> &'static str {
    match file % 10 {
        6..=8 => "json",
        9 => "tar.gz",
        _ => "xml",
    }
}

/// The name of a file.
pub fn name(file: u64) -> String {
    format!("r{file:07}.{}", carrier(file))
}

/// Writes the reports of one file, in a carrier that goes by the file's number.
pub fn write(fleet: &Fleet, dir: &Path, file: u64, reports: Range<u64>) -> anyhow::Result<Written> {
    let mut written = Written { files: 1, ..Written::default() };
    let mut texts = Vec::new();
    for report in reports {
        let role = fleet.role(report);
        written.count(role);
        texts.push(fleet.envelope(report, role)?);
    }
    let bytes = match carrier(file) {
        "json" => list(&texts),
        "tar.gz" => bundle(&texts)?,
        _ => xml(&texts),
    };
    let path = dir.join(name(file));
    let save = || -> std::io::Result<()> {
        let mut out = BufWriter::new(File::create(&path)?);
        out.write_all(&bytes)?;
        out.flush()
    };
    save().with_context(|| format!("cannot write {}", path.display()))?;
    Ok(written)
}

pub fn xml(texts: &[String]) -> Vec<u8> {
    let mut out = b"<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<smartLicense>\n".to_vec();
    for text in texts {
        out.extend_from_slice(b"<RUMReport><![CDATA[");
        out.extend_from_slice(text.as_bytes());
        out.extend_from_slice(b"]]></RUMReport>\n");
    }
    out.extend_from_slice(b"</smartLicense>\n");
    out
}

pub fn list(texts: &[String]) -> Vec<u8> {
    format!("{{\"usage\":[\n{}\n]}}\n", texts.join(",\n")).into_bytes()
}

/// `UD_SA_*.tar.gz` with a manifest and one `UD_VA_*.tar.gz`, which holds the XML.
fn bundle(texts: &[String]) -> anyhow::Result<Vec<u8>> {
    let inner = archive(&[("dev_1.txt", &xml(texts))])?;
    archive(&[("manifest.mf", b"UD_VA_1.tar.gz\n"), ("UD_VA_1.tar.gz", &inner)])
}

fn archive(members: &[(&str, &[u8])]) -> anyhow::Result<Vec<u8>> {
    let mut tar = tar::Builder::new(GzEncoder::new(Vec::new(), Compression::fast()));
    for (name, bytes) in members {
        let mut header = tar::Header::new_gnu();
        header.set_size(bytes.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, name, *bytes)?;
    }
    Ok(tar.into_inner()?.finish()?)
}
