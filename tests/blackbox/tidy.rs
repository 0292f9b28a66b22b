//! What no compiler holds: the shape of the code itself.

use std::path::{Path, PathBuf};

fn sources(dir: &str) -> Vec<(PathBuf, String)> {
    fn walk(dir: &Path, all: &mut Vec<(PathBuf, String)>) {
        for entry in std::fs::read_dir(dir).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, all);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                all.push((path, text));
            }
        }
    }
    let mut all = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join(dir), &mut all);
    assert!(!all.is_empty(), "{dir} has sources");
    all
}

/// Lines of code, without comments.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line.split("//").next().unwrap_or_default()))
}

fn refuse(dir: &str, words: &[&str], why: &str) {
    for (path, text) in sources(dir) {
        for (number, line) in code(&text) {
            for word in words {
                assert!(!line.contains(word), "{}:{number}: {word}: {why}", path.display());
            }
        }
    }
}

#[test]
fn no_float_comes_near_money() {
    for dir in ["schemas/src", "reconcile/src", "ingest/src", "lake/src"] {
        refuse(dir, &["f32", "f64"], "money and quantities are exact decimals");
    }
}

#[test]
fn the_cores_are_pure() {
    let shells = [
        "tokio",
        "rdkafka",
        "deltalake",
        "datafusion",
        "object_store",
        "tracing",
        "lake::",
        "std::env",
        "std::fs",
        "SystemTime",
        "Instant",
    ];
    for dir in ["ingest/src/core", "reconcile/src/core", "schemas/src"] {
        refuse(dir, &shells, "the cores name no runtime, store, clock or environment");
    }
}

#[test]
fn arrows_run_one_way() {
    refuse("ingest", &["use reconcile", "reconcile::"], "ingest and reconcile meet in tables");
    refuse("reconcile", &["use ingest", "ingest::"], "ingest and reconcile meet in tables");
    for dir in ["ingest/src", "reconcile/src", "src", "schemas/src"] {
        refuse(dir, &["deltalake::", "object_store::"], "only the lake names its store");
    }
}

/// A variable of the image would count over the file of settings that the manifests mount.
#[test]
fn the_image_sets_nothing_that_a_file_of_settings_may() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let image = std::fs::read_to_string(root.join("Containerfile")).unwrap();
    let set: Vec<&str> = image.match_indices("RUMLEDGER_").map(|(at, _)| &image[at..]).collect();
    assert!(set.len() == 1 && set[0].starts_with("RUMLEDGER_LOG_FORMAT=json"), "{set:?}");
}

/// Every metric that dashboards and rules ask for is in the code, and every one in the code is asked
/// for somewhere.
#[test]
fn dashboards_and_code_name_the_same_metrics() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |text: &str| -> std::collections::BTreeSet<String> {
        text.match_indices("rumledger_")
            .map(|(at, _)| {
                let name = text[at..].split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
                name.into_iter().next().unwrap_or_default().to_owned()
            })
            .map(|name| name.trim_end_matches("_bucket").to_owned())
            // A prefix that a comment speaks of is no name.
            .filter(|name| !name.ends_with('_'))
            .collect()
    };
    let mut code = String::new();
    for file in ["ingest/src/shell/metrics.rs", "serve/src/metrics.rs", "src/served/gauges.rs"] {
        code += &std::fs::read_to_string(root.join(file)).unwrap();
    }
    let mut asked = String::new();
    for file in ["ingest.json", "billing.json", "compliance.json", "fleet.json", "rules.yml"] {
        asked += &std::fs::read_to_string(root.join("dashboards").join(file)).unwrap();
    }
    assert_eq!(names(&asked), names(&code));
    assert!(names(&code).len() > 20);
}
