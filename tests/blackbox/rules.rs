//! `docs/rules.md` is what the table of rules and the citations in the code come to; every rule that is
//! applied is cited by code, and by a test.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use schemas::domain::RULES;
use schemas::finding::Rule;

/// Where a rule is cited.
#[derive(Default)]
struct Cited {
    code: BTreeSet<String>,
    tests: BTreeSet<String>,
}

fn sources(dir: &Path, all: &mut Vec<PathBuf>) {
    let mut entries: Vec<_> = std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().path()).collect();
    entries.sort();
    for path in entries {
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, all);
        } else if name.ends_with(".rs") && name != "domain.rs" && name != "rules.rs" {
            all.push(path);
        }
    }
}

/// The rule numbers in a line: `R3`, `R6.3`.
fn numbers(line: &str) -> Vec<String> {
    line.split(|c: char| !c.is_ascii_alphanumeric() && c != '.')
        .map(|word| word.trim_end_matches('.'))
        .filter(|word| {
            word.strip_prefix('R').is_some_and(|rest| {
                rest.starts_with(|c: char| c.is_ascii_digit())
                    && rest.chars().all(|c| c.is_ascii_digit() || c == '.')
            })
        })
        .map(str::to_owned)
        .collect()
}

/// Citations of one file. In a test file, and below `#[cfg(test)]`, they belong to the function whose
/// documentation or body they stand in.
fn cite(path: &str, text: &str, cited: &mut BTreeMap<String, Cited>) {
    let mut in_tests =
        path.contains("/tests/") || path.starts_with("tests/") || path.ends_with("/tests.rs");
    let mut function = String::new();
    let mut of_docs: Vec<String> = Vec::new();
    for line in text.lines() {
        in_tests |= line.trim_start().starts_with("#[cfg(test)]");
        let found = numbers(line);
        if !in_tests {
            for number in found {
                cited.entry(number).or_default().code.insert(path.to_owned());
            }
            continue;
        }
        let code = line.trim_start();
        if code.starts_with("///") || code.starts_with("//!") {
            of_docs.extend(found);
            continue;
        }
        if let Some(name) = code.split("fn ").nth(1).and_then(|rest| rest.split('(').next())
            && code.ends_with('{')
        {
            function = name.to_owned();
            for number in of_docs.drain(..) {
                let test = format!("`{path}` `{name}`");
                cited.entry(number).or_default().tests.insert(test);
            }
        }
        for number in found {
            let test = format!("`{path}` `{function}`");
            cited.entry(number).or_default().tests.insert(test);
        }
    }
}

fn page(cited: &BTreeMap<String, Cited>) -> String {
    let mut page = String::from(
        "# The rules of the licence programme\n\n\
         Made from `schemas/src/domain.rs`, `schemas/src/finding.rs`, and what code and tests cite; \
         `UPDATE_DOCS=1 cargo test --test blackbox rules` writes it anew.\n\n## Rules\n",
    );
    let list = |names: &BTreeSet<String>| names.iter().cloned().collect::<Vec<_>>().join(", ");
    for rule in RULES {
        writeln!(page, "\n### {}: {}\n", rule.number, rule.says).unwrap();
        if let Some(why) = rule.left_out {
            writeln!(page, "- not applied, or not in full: {why}").unwrap();
        }
        if let Some(cited) = cited.get(rule.number) {
            if !cited.code.is_empty() {
                let code = cited.code.iter().map(|c| format!("`{c}`")).collect();
                writeln!(page, "- applied in {}", list(&code)).unwrap();
            }
            if !cited.tests.is_empty() {
                writeln!(page, "- tested by {}", list(&cited.tests)).unwrap();
            }
        }
    }
    page.push_str(
        "\n## Findings\n\n| finding | severity | rules | what to do |\n| --- | --- | --- | --- |\n",
    );
    for rule in Rule::all() {
        let facts = rule.facts();
        let (name, severity) = (rule.as_str(), facts.severity.as_str());
        writeln!(page, "| `{name}` | {severity} | {} | {} |", facts.rules, facts.what_to_do)
            .unwrap();
    }
    page
}

#[test]
#[allow(clippy::disallowed_methods, reason = "whoever changed a rule asks for the page")]
fn every_rule_is_applied_and_tested_or_left_out_with_a_reason() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    sources(root, &mut all);
    let mut cited = BTreeMap::new();
    for path in all {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        cite(&name, &std::fs::read_to_string(&path).unwrap(), &mut cited);
    }
    let known: BTreeSet<&str> = RULES.iter().map(|rule| rule.number).collect();
    assert_eq!(known.len(), RULES.len());
    for rule in RULES.iter().filter(|rule| rule.left_out.is_none()) {
        let cited = cited.get(rule.number);
        assert!(cited.is_some_and(|c| !c.code.is_empty()), "{} is applied nowhere", rule.number);
        assert!(cited.is_some_and(|c| !c.tests.is_empty()), "{} has no test", rule.number);
    }
    for number in cited.keys() {
        let is_chapter = !number.contains('.');
        assert!(is_chapter || known.contains(number.as_str()), "there is no rule {number}");
    }
    for rule in Rule::all() {
        for number in rule.facts().rules.split(", ") {
            assert!(known.contains(number), "{}: there is no rule {number}", rule.as_str());
        }
    }
    let page = page(&cited);
    let path = root.join("docs/rules.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let held = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        held == page,
        "docs/rules.md is not what the code says: UPDATE_DOCS=1 cargo test --test blackbox rules"
    );
}
