//! Runs of the binary in a folder of their own.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::{Value, json};
use tempfile::TempDir;

/// A folder with a lake.
pub(crate) struct Place {
    dir: TempDir,
}

pub(crate) struct Ran {
    pub(crate) status: i32,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Place {
    pub(crate) fn new() -> Place {
        Place { dir: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The binary, in this folder, with the clock at 2026-11-10.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_rumledger"));
        command
            .current_dir(self.dir.path())
            .args(args)
            .env("RUMLEDGER_NOW", "2026-11-10T00:00:00Z");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ran {
        ran(self.command(args).output().unwrap())
    }

    /// Runs, and holds the exit status.
    pub(crate) fn ok(&self, status: i32, args: &[&str]) -> String {
        let ran = self.run(args);
        assert_eq!(ran.status, status, "{args:?}\n{}{}", ran.stdout, ran.stderr);
        ran.stdout
    }

    /// A fleet of its own seed in `fleet/`, its book imported.
    pub(crate) fn with_fleet(args: &[&str]) -> Place {
        let place = Place::new();
        let mut all = vec!["-q", "fleet", "generate", "--out", "fleet"];
        all.extend(args);
        place.ok(0, &all);
        place.ok(0, &["book", "import", "fleet/book"]);
        place
    }

    pub(crate) fn sql(&self, query: &str) -> Vec<String> {
        let csv = self.ok(0, &["sql", query, "--format", "csv"]);
        csv.lines().skip(1).map(str::to_owned).collect()
    }

    /// Net amount of every key over all that is posted.
    pub(crate) fn totals(&self) -> Vec<String> {
        self.sql(
            "SELECT smart_account, virtual_account, pool, subscription_id, entitlement, charge, \
             segment_start, currency, sum(quantity), sum(amount) FROM ledger \
             GROUP BY 1, 2, 3, 4, 5, 6, 7, 8 HAVING sum(quantity) <> 0 OR sum(amount) <> 0 ORDER BY 1, 2, 3, 4, 5, 6, 7, 8",
        )
    }
}

/// A report of one measurement, which nobody can verify.
pub(crate) fn report(serial: &str, utility: bool, (start, end): (i64, i64), value: u64) -> Value {
    let payload = json!({
        "version": "2.0",
        "asset_identification": {
            "report_id": 1,
            "asset": {"name": "software"},
            "instance": {"sudi": {"udi_pid": "P", "udi_serial_number": serial}},
        },
        "meta": {"entitlement_tag": "T", "utility_enabled": utility},
        "measurements": [{"log_time": end, "metric_name": "ENTITLEMENT", "start_time": start, "end_time": end,
            "sample_interval": 900, "num_samples": 4, "value": {"type": "COUNT", "value": value.to_string()}}],
    });
    let signature = json!({"signing_type": "builtin", "key": "k", "value": "AAAA"});
    json!({"payload": payload.to_string(), "signature": signature})
}

pub(crate) fn ran(output: Output) -> Ran {
    Ran {
        status: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The two columns of a small table in CSV: names and numbers.
pub(crate) fn counts(csv: &str) -> BTreeMap<String, u64> {
    csv.lines()
        .skip(1)
        .map(|line| {
            let (name, number) = line.rsplit_once(',').unwrap();
            (name.trim_matches('"').trim().to_owned(), number.parse().unwrap())
        })
        .collect()
}

/// The names of all that is in a folder.
pub(crate) fn names(dir: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(dir).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

/// All files under a folder, by name.
pub(crate) fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut all = BTreeMap::new();
    for entry in std::fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        all.insert(entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap());
    }
    all
}
