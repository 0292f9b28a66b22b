//! Commands, their output and their exit statuses.

use std::process::{Command, Stdio};

use crate::support::{Place, counts, files, ran};

const FLEET: &[&str] = &[
    "--reports",
    "1500",
    "--devices",
    "60",
    "--per-file",
    "70",
    "--broken",
    "10",
    "--duplicates",
    "10",
];

#[test]
fn the_fleet_is_what_it_says_and_ingest_finds_it() {
    let place = Place::new();
    let generate = |out: &str, seed: &str| {
        let mut args = vec!["fleet", "generate", "--out", out, "--seed", seed, "--format", "csv"];
        args.extend(FLEET);
        counts(&place.ok(0, &args))
    };
    let mut expected = generate("fleet", "5");
    assert_eq!(generate("again", "5"), expected);
    for folder in ["book", "reports"] {
        let (one, other) =
            (files(&place.path("fleet").join(folder)), files(&place.path("again").join(folder)));
        assert!(one == other, "the same seed gives the same {folder}");
    }
    generate("other", "6");
    assert!(files(&place.path("fleet/reports")) != files(&place.path("other/reports")));

    place.ok(0, &["book", "import", "fleet/book"]);
    let mut found = counts(&place.ok(3, &["ingest", "files", "fleet/reports", "--format", "csv"]));
    expected.remove("files");
    let (verified, unverifiable) =
        (found.remove("verified").unwrap(), found.remove("unverifiable").unwrap());
    assert_eq!(verified + unverifiable, expected["accepted"]);
    assert_eq!(found, expected);
    assert_eq!(found["received"], found["accepted"] + found["duplicate"] + found["suspended"]);

    // The same again: what was accepted is known, what was suspended is judged again.
    let again = counts(&place.ok(3, &["ingest", "files", "fleet/reports", "--format", "csv"]));
    assert_eq!((again["accepted"], again["suspended"]), (0, expected["suspended"]));
    assert_eq!(again["duplicate"], expected["accepted"] + expected["duplicate"]);
    let json = place.ok(3, &["ingest", "files", "fleet/reports", "--format", "json"]);
    for part in ["\"received\":1500", "\"accepted\":0", "\"suspended\":{", "\"seconds\":"] {
        assert!(json.contains(part), "{json}");
    }
    // The journal holds every row, by the same numbers.
    let journal = place.sql("SELECT disposition, count(*) FROM journal GROUP BY 1 ORDER BY 1");
    assert_eq!(journal[0], format!("accepted,{}", expected["accepted"]));
    assert_eq!(place.sql("SELECT count(*) FROM journal"), ["4500"]);
    assert_eq!(
        place.sql("SELECT count(*) FROM journal WHERE raw IS NULL OR source IS NULL"),
        ["0"]
    );
}

#[test]
fn the_index_is_only_a_cache() {
    let place = Place::with_fleet(&[
        "--reports",
        "400",
        "--devices",
        "20",
        "--duplicates",
        "0",
        "--broken",
        "0",
    ]);
    let take = || {
        let found = counts(&place.ok(0, &["ingest", "files", "fleet/reports", "--format", "csv"]));
        (found["accepted"], found["duplicate"])
    };
    assert_eq!(take(), (400, 0));
    std::fs::remove_dir_all(place.path("lake/_cache")).unwrap();
    assert_eq!(take(), (0, 400), "lost");
    let old = place.path("old");
    std::fs::rename(place.path("lake/_cache"), &old).unwrap();
    std::fs::create_dir_all(place.path("more")).unwrap();
    place.ok(
        0,
        &[
            "-q",
            "fleet",
            "generate",
            "--out",
            "more",
            "--seed",
            "9",
            "--reports",
            "300",
            "--devices",
            "20",
            "--duplicates",
            "0",
            "--broken",
            "0",
            "--algorithm",
            "EdDSA",
        ],
    );
    // Reports of devices that the book does not know are suspended; they fill the journal's log.
    place.ok(3, &["ingest", "files", "more/reports"]);
    std::fs::remove_dir_all(place.path("lake/_cache")).unwrap();
    std::fs::rename(&old, place.path("lake/_cache")).unwrap();
    assert_eq!(take(), (0, 400), "behind");
    for file in std::fs::read_dir(place.path("lake/_cache/index")).unwrap() {
        let path = file.unwrap().path();
        if path.is_file() {
            std::fs::write(path, b"damaged").unwrap();
        }
    }
    assert_eq!(take(), (0, 400), "damaged");
}

#[test]
fn a_bill_from_reports_to_adjustments() {
    // Two reports that contradict each other would make the order matter: the first one stands.
    let args = [&FLEET[..FLEET.len() - 4], &["--broken", "0", "--duplicates", "10"]].concat();
    let place = Place::with_fleet(&args);
    let reports = std::fs::read_dir(place.path("fleet/reports")).unwrap();
    // Every other file comes late.
    std::fs::create_dir(place.path("late")).unwrap();
    for file in reports.map(Result::unwrap).filter(|f| f.file_name().as_encoded_bytes()[7] % 2 == 1)
    {
        std::fs::rename(file.path(), place.path("late").join(file.file_name())).unwrap();
    }
    place.ok(0, &["ingest", "files", "fleet/reports"]);
    let csv = ["--format", "csv"];
    let reconcile = |extra: &[&str]| {
        let args = [&["reconcile", "--period", "2026-09"][..], &csv, extra].concat();
        place.ok(3, &args)
    };
    let dry = reconcile(&["--dry-run"]);
    assert!(dry.lines().count() > 10, "{dry}");
    assert_eq!(reconcile(&["--dry-run"]), dry, "a dry run posts nothing");
    assert_eq!(reconcile(&[]), dry, "a run posts what the dry run said");
    let header = dry.lines().next().unwrap();
    assert_eq!(reconcile(&[]).trim_end(), header, "a second run posts nothing");
    let statement = place.ok(0, &["statement", "--period", "2026-09", "--format", "csv"]);
    assert_eq!(statement, dry);
    assert!(dry.lines().skip(1).all(|line| line.contains(",charge,")));

    let manifest = place.ok(0, &["close", "--period", "2026-09"]);
    assert!(manifest.contains("\"period\":\"2026-09\""), "{manifest}");
    assert_eq!(place.ok(0, &["close", "--period", "2026-09"]), manifest, "twice is no error");
    // Months later than these; the clock stands in the first of them.
    for (period, told) in [("2026-11", true), ("2026-12", true), ("2026-08", false)] {
        let ran = place.run(&["close", "--period", period]);
        assert_eq!((ran.status, ran.stderr.contains("is not over")), (0, told), "{}", ran.stderr);
    }
    place.ok(0, &["ingest", "files", "late"]);
    let late = reconcile(&[]);
    assert!(late.lines().count() > 5, "{late}");
    assert!(
        late.lines()
            .skip(1)
            .all(|line| line.contains(",2026-10,2026-09,") && line.contains(",adjustment,")),
        "{late}"
    );
    assert_eq!(
        place.ok(0, &["statement", "--period", "2026-09", "--format", "csv"]),
        statement,
        "closed"
    );
    assert_eq!(reconcile(&[]).trim_end(), header);
    place.ok(3, &["reconcile", "--period", "2026-10"]);

    // Everything at once, and in the other order, comes to the same.
    let at_once = Place::new();
    at_once.ok(0, &["book", "import", place.path("fleet/book").to_str().unwrap()]);
    at_once.ok(0, &["ingest", "files", place.path("late").to_str().unwrap()]);
    at_once.ok(0, &["ingest", "files", place.path("fleet/reports").to_str().unwrap()]);
    for period in ["2026-10", "2026-09"] {
        at_once.ok(3, &["reconcile", "--period", period]);
    }
    assert_eq!(at_once.totals(), place.totals());
}

#[test]
fn one_account_alone() {
    let place = Place::with_fleet(FLEET);
    place.ok(3, &["ingest", "files", "fleet/reports"]);
    let args = [
        "reconcile",
        "--period",
        "2026-10",
        "--format",
        "csv",
        "--account",
        "sakura.example/Tokyo",
    ];
    let lines = place.ok(0, &args);
    assert!(
        lines.lines().count() > 2
            && lines
                .lines()
                .skip(1)
                .all(|l| l.contains(",sakura.example,Tokyo,") && l.contains(",JPY,")),
        "{lines}"
    );
    // Whom nobody knows is a mistake, and no empty answer.
    for args in [
        &["reconcile", "--period", "2026-10", "--account", "no/body"][..],
        &["findings", "--account", "no/body"],
        &["suspense", "list", "--account", "no/body"],
        &["suspense", "list", "--by", "reason", "--account", "no/body"],
        &["statement", "--period", "2026-10", "--customer", "Nobody"],
    ] {
        let ran = place.run(args);
        assert!(ran.status == 2 && ran.stderr.contains("accounts.csv"), "{args:?}: {}", ran.stderr);
    }
    place.ok(0, &["statement", "--period", "2026-09", "--customer", "Sakura Retail"]);
    let rest = place.ok(3, &["reconcile", "--period", "2026-10", "--format", "csv"]);
    assert!(!rest.contains("sakura"), "{rest}");
}

#[test]
fn exceptions_are_shown_and_found() {
    let place = Place::with_fleet(FLEET);
    assert_eq!(
        place.ok(0, &["exceptions", "--format", "csv"]).lines().count(),
        1,
        "nothing came yet"
    );
    place.ok(3, &["ingest", "files", "fleet/reports"]);
    let all = place.ok(3, &["exceptions", "--format", "csv"]);
    assert_eq!(
        all.lines().next().unwrap(),
        "period,smart_account,virtual_account,subscription_id,entitlement,reason,license_seconds"
    );
    for reason in ["account-unknown", "subscription-unknown", "price-unknown"] {
        assert!(all.contains(reason), "{reason}");
    }
    let months: Vec<String> = ["2026-08", "2026-09", "2026-10", "2026-11"]
        .iter()
        .flat_map(|period| {
            let csv = place.run(&["exceptions", "--period", period, "--format", "csv"]).stdout;
            csv.lines().skip(1).map(str::to_owned).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(all.lines().skip(1).collect::<Vec<_>>(), months);
    assert_eq!(place.run(&["exceptions", "--period", "2020-01"]).status, 0);
}

#[test]
fn suspended_reports_can_be_looked_at() {
    let place = Place::with_fleet(FLEET);
    place.ok(3, &["ingest", "files", "fleet/reports"]);
    let list =
        place.ok(0, &["suspense", "list", "--reason", "signature-missing", "--format", "csv"]);
    let first = list.lines().nth(1).unwrap();
    assert!(first.contains(",signature-missing,"), "{list}");
    let id = first.split(',').next().unwrap();
    let shown = place.ok(0, &["suspense", "show", id]);
    assert!(shown.contains("signature-missing") && shown.contains("what to do"), "{shown}");
    let raw = place.ok(0, &["suspense", "show", id, "--raw"]);
    assert!(raw.starts_with("{\"") && raw.contains("\"signature\":null"), "{raw}");
    assert_eq!(place.run(&["suspense", "show", "nothing"]).status, 1);
    assert_eq!(place.run(&["suspense", "list", "--reason", "nonsense"]).status, 2);
}

#[test]
fn exit_statuses() {
    let place = Place::new();
    std::fs::write(place.path("bad.toml"), "signature_policy = \"whatever\"\n").unwrap();
    std::fs::write(place.path("odd.toml"), "no_such_setting = 1\n").unwrap();
    for (status, args) in [
        (2, &["no-such-command"][..]),
        (2, &[]),
        (2, &["reconcile"]),
        (2, &["reconcile", "--period", "2026-13"]),
        (2, &["statement", "--period", "October"]),
        (2, &["exceptions", "--period", "2026-1"]),
        (2, &["close"]),
        (2, &["--config", "not-there.toml", "statement", "--period", "2026-10"]),
        (2, &["--config", "bad.toml", "statement", "--period", "2026-10"]),
        (2, &["--config", "odd.toml", "statement", "--period", "2026-10"]),
        (2, &["--lake", "ftp://x", "statement", "--period", "2026-10"]),
        (2, &["--lake", "s3:lakes/x", "statement", "--period", "2026-10"]),
        (2, &["--lake", "s3://lakes/one?two", "statement", "--period", "2026-10"]),
        (2, &["--format", "xml", "statement", "--period", "2026-10"]),
        (2, &["fleet", "generate", "--out", "x", "--duplicates", "200"]),
        (1, &["ingest", "files", "not-there"]),
        (1, &["book", "import", "not-there"]),
        (1, &["sql", "SELECT nonsense FROM nowhere"]),
        (1, &["sql", "CREATE TABLE x AS SELECT 1"]),
        (0, &["statement", "--period", "2026-10"]),
        (0, &["reconcile", "--period", "2026-10"]),
        (0, &["sql", "SELECT count(*) FROM journal"]),
        (0, &["book", "show"]),
        (0, &["--help"]),
    ] {
        let ran = place.run(args);
        assert_eq!(ran.status, status, "{args:?}\n{}{}", ran.stdout, ran.stderr);
        if status != 0 {
            assert!(
                !ran.stderr.is_empty() && ran.stdout.is_empty(),
                "{args:?}: errors go to stderr"
            );
        }
    }
    for group in ["fleet", "book", "ingest", "suspense", "lake", "export"] {
        assert!(place.ok(0, &[group, "--help"]).contains("Example: rumledger"), "{group}");
    }
}

#[test]
fn settings_come_from_flags_environment_and_file() {
    let place = Place::new();
    let report = r#"{"payload":"{\"version\":\"2.0\",\"asset_identification\":{\"report_id\":1,\"instance\":{\"sudi\":{\"udi_pid\":\"P\",\"udi_serial_number\":\"S\"}}},\"meta\":{\"entitlement_tag\":\"t\",\"utility_enabled\":true},\"measurements\":[{\"metric_name\":\"ENTITLEMENT\",\"start_time\":1790000000,\"end_time\":1790003600,\"value\":{\"type\":\"COUNT\",\"value\":\"1\"}}]}","signature":{"signing_type":"builtin","value":"AAAA"}}"#;
    std::fs::write(place.path("report"), report).unwrap();
    std::fs::write(
        place.path("accept.toml"),
        "signature_policy = \"accept\"\nlake = \"by-file\"\n",
    )
    .unwrap();
    let ingest = ["ingest", "files", "report"];
    place.ok(3, &ingest);
    place.ok(0, &["--config", "accept.toml", "ingest", "files", "report"]);
    assert!(place.path("by-file/journal").is_dir());
    let with_env = |value: &str, args: &[&str]| {
        place
            .command(args)
            .env("RUMLEDGER_SIGNATURE_POLICY", value)
            .output()
            .unwrap()
            .status
            .code()
            .unwrap()
    };
    assert_eq!(with_env("accept", &["--lake", "by-env", "ingest", "files", "report"]), 0);
    assert_eq!(
        with_env(
            "suspend",
            &["--lake", "by-flag", "ingest", "files", "report", "--signature-policy", "accept"]
        ),
        0
    );
    assert_eq!(with_env("nonsense", &ingest), 2);
    assert_eq!(
        place
            .ok(
                3,
                &[
                    "--lake",
                    "by-collector",
                    "ingest",
                    "files",
                    "report",
                    "--collector",
                    "somebody",
                    "--format",
                    "json"
                ]
            )
            .matches("source-not-allowed")
            .count(),
        1
    );
    let now = place.command(&ingest).env("RUMLEDGER_NOW", "2026-01-01T00:00:00Z").output().unwrap();
    assert!(String::from_utf8_lossy(&now.stdout).contains("clock-future"));
    assert_eq!(
        place.command(&ingest).env("RUMLEDGER_NOW", "yesterday").output().unwrap().status.code(),
        Some(2)
    );
}

/// What a worker must be told before it connects anywhere.
#[test]
fn a_worker_is_refused_that_would_not_be_safe() {
    let place = Place::new();
    let refused = |args: &[&str], why: &str| {
        let mut command = place.command(&[&["ingest", "kafka"], args].concat());
        if !args.contains(&"--listen") {
            command.env("RUMLEDGER_LISTEN", "off");
        }
        let ran = crate::support::ran(command.output().unwrap());
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(why), "{args:?}: {}", ran.stderr);
        assert!(!ran.stderr.contains("hunter2"), "a secret is shown");
    };
    refused(&[], "no broker is named");
    refused(&["--brokers", "kafka.example:9092"], "would not be encrypted");
    refused(&["--brokers", "127.0.0.1:1,kafka.example:9092"], "kafka.example:9092");
    let local = ["--brokers", "localhost:1"];
    let with = |setting: &'static str| [&local[..], &["--set", setting]].concat();
    refused(&with("sasl.password=hunter2"), "is a secret");
    refused(&with("sasl.password.file=no-such-file"), "cannot read no-such-file");
    refused(&with("auto.offset.reset=earliest"), "would lose reports");
    refused(&with("enable.auto.commit=true"), "after the rows are durable");
    refused(&with("no-such-setting=1"), "refuses its settings");
    refused(&["--brokers", "localhost:1", "--set", "nonsense"], "write KEY=VALUE");
    refused(&["--brokers", "localhost:1", "--listen", "here"], "is no address");
}

#[test]
fn jobs_reconcile_the_month_that_is_running_and_the_one_before() {
    let place = Place::with_fleet(&["--reports", "300", "--devices", "60"]);
    place.ok(3, &["-q", "ingest", "files", "fleet/reports"]);
    assert_eq!(place.run(&["reconcile"]).status, 2);
    assert_eq!(place.run(&["reconcile", "--current", "--period", "2026-10"]).status, 2);
    // The clock is at 2026-11-10.
    place.ok(3, &["-q", "reconcile", "--current"]);
    let months = place.sql("SELECT DISTINCT service_period FROM ledger ORDER BY 1");
    assert!(months.contains(&"2026-10".to_owned()), "{months:?}");
    assert!(!months.contains(&"2026-09".to_owned()), "{months:?}");
}

#[test]
fn upkeep_changes_no_answer() {
    let place = Place::with_fleet(&["--reports", "400", "--devices", "60", "--per-file", "50"]);
    let mut ingest = place.command(&["-q", "ingest", "files", "fleet/reports"]);
    assert_eq!(ingest.env("RUMLEDGER_FLUSH_ROWS_MAX", "60").status().unwrap().code(), Some(3));
    let rows =
        "SELECT source, \"offset\", disposition, reason, payload_sha256 FROM journal ORDER BY 1, 2";
    let before = place.sql(rows);
    let said = place.ok(0, &["lake", "optimize", "--format", "csv"]);
    assert!(said.lines().any(|l| l.starts_with("journal,")), "{said}");
    assert_eq!(place.sql(rows), before);
    let said = place.ok(0, &["lake", "vacuum", "--dry-run", "--format", "csv"]);
    assert_eq!(said.trim_end(), "table,file_to_remove", "nothing is old enough");
    assert_eq!(place.run(&["lake", "vacuum", "--keep-hours", "1"]).status, 2);
    // Everything again: known, although the rows moved.
    let first = "fleet/reports/r0000000.xml";
    let again = counts(&place.run(&["ingest", "files", first, "--format", "csv"]).stdout);
    assert_eq!((again["received"], again["accepted"]), (50, 0));
    assert!(again["duplicate"] > 40, "{again:?}");
}

/// A table's state is read anew after fifty commits, all of their files at once, by the few threads that a writer
/// has for it; and so is the journal by whoever lost the index.
#[test]
fn a_log_of_many_versions_is_read_by_few_threads() {
    let place = Place::with_fleet(&["--reports", "600", "--devices", "60", "--broken", "0"]);
    let take_in = |cache: &str| {
        let mut ingest = place.command(&["ingest", "files", "fleet/reports", "--format", "csv"]);
        ingest.env("RUMLEDGER_FLUSH_ROWS_MAX", "4").env("RUMLEDGER_CACHE_DIR", place.path(cache));
        let ran = ran(ingest.output().unwrap());
        assert_eq!(ran.status, 0, "{}{}", ran.stdout, ran.stderr);
        let commits = ran.stderr.split_once(" commits").unwrap().0.rsplit_once(' ').unwrap().1;
        assert!(commits.parse::<u64>().unwrap() > 50, "{}", ran.stderr);
        counts(&ran.stdout)
    };
    let first = take_in("cache");
    assert!(first["accepted"] > 500, "{first:?}");
    let again = take_in("another-cache");
    assert_eq!((again["received"], again["accepted"]), (first["received"], 0));
}

#[test]
fn a_lake_is_found_whatever_way_leads_to_it() {
    let place = Place::with_fleet(&["--reports", "50", "--devices", "5", "--broken", "0"]);
    place.ok(0, &["ingest", "files", "fleet/reports"]);
    let count = "SELECT count(*) FROM journal";
    let expected = place.ok(0, &["sql", count, "--format", "csv"]);
    std::fs::create_dir_all(place.path("beside/deep")).unwrap();
    std::os::unix::fs::symlink("beside/deep", place.path("link")).unwrap();
    for (folder, lake) in [
        ("beside", "../lake"),
        ("beside/deep", "../../lake"),
        ("beside", "deep/../../lake"),
        ("beside", "../not-there/../lake"),
        ("", "./beside/../lake/"),
        ("", "link/../../lake"),
    ] {
        let mut command = place.command(&["--lake", lake, "sql", count, "--format", "csv"]);
        let ran = ran(command.current_dir(place.path(folder)).output().unwrap());
        assert_eq!((ran.status, &ran.stdout), (0, &expected), "{folder}: {lake}: {}", ran.stderr);
    }
    let ran = place.run(&["--lake", "a%41", "sql", count]);
    assert_eq!(ran.status, 2);
    assert!(ran.stderr.contains("'a%41' is no lake: a '%'"), "{}", ran.stderr);
}

#[test]
fn a_log_without_its_first_commit_is_no_empty_table() {
    let place = Place::with_fleet(&["--reports", "50", "--devices", "5", "--broken", "0"]);
    place.ok(0, &["ingest", "files", "fleet/reports"]);
    let first = "lake/journal/_delta_log/00000000000000000000.json";
    std::fs::remove_file(place.path(first)).unwrap();
    for args in [
        &["sql", "SELECT count(*) FROM journal"][..],
        &["verify"],
        &["ingest", "files", "fleet/reports"],
    ] {
        let ran = place.run(args);
        assert_eq!(ran.status, 1, "{args:?}\n{}{}", ran.stdout, ran.stderr);
        assert!(ran.stderr.contains("not the first commit of its log"), "{}", ran.stderr);
    }
}

#[test]
fn a_lake_that_is_not_there_is_told_of() {
    let place = Place::new();
    for command in [
        &["statement", "--period", "2026-10"][..],
        &["close", "--period", "2026-10"],
        &["reconcile", "--period", "2026-10"],
        &["exceptions"],
        &["findings"],
        &["deadlines"],
        &["coverage", "--period", "2026-10"],
        &["suspense", "list"],
        &["suspense", "retry"],
        &["lake", "optimize"],
        &["verify"],
        &["book", "show"],
        &["sql", "SELECT 1"],
    ] {
        let ran = place.run(&[&["--lake", "typo"], command].concat());
        assert_eq!(ran.status, 1, "{command:?}: {}", ran.stderr);
        assert!(
            ran.stderr.contains("there is no lake at") && ran.stderr.contains("typo"),
            "{}",
            ran.stderr
        );
        assert!(!place.path("typo").exists(), "{command:?}");
    }
}

/// The last hour of June in UTC is the second of July in Berlin.
#[test]
fn exceptions_of_all_months_are_those_of_each() {
    let place = Place::new();
    let book = place.path("book");
    std::fs::create_dir(&book).unwrap();
    for (name, text) in [
        (
            "accounts",
            "smart_account,virtual_account,customer,currency,time_zone\r\nsa,v,C,USD,Europe/Berlin\r\n",
        ),
        (
            "catalog",
            "entitlement_tag,name,enforcement,duration,postpaid_allowed,equivalence\r\nT,T,unenforced,perpetual,true,\r\n",
        ),
    ] {
        std::fs::write(book.join(format!("{name}.csv")), text).unwrap();
    }
    place.ok(0, &["book", "import", "book"]);
    let payload = r#"{"version":"2.0","asset_identification":{"instance":{"sudi":{"udi_pid":"A","udi_serial_number":"1"}},"report_id":1},"meta":{"entitlement_tag":"T","utility_enabled":false},"measurements":[{"metric_name":"ENTITLEMENT","start_time":1782856800,"end_time":1782860400,"value":{"type":"COUNT","value":"1"}}]}"#;
    let signature = r#"{"signing_type":"builtin","key":"x","value":"AAAA"}"#;
    let report = format!(r#"{{"payload":{payload},"signature":{signature}}}"#);
    std::fs::write(place.path("r.json"), report).unwrap();
    place.ok(0, &["ingest", "files", "r.json", "--account", "sa/v"]);
    let july = place.ok(3, &["exceptions", "--period", "2026-07", "--format", "csv"]);
    assert!(july.ends_with("\n2026-07,sa,v,,T,price-unknown,3600\n"), "{july}");
    assert_eq!(place.ok(3, &["exceptions", "--format", "csv"]), july);
}

/// A job that is started again where it fails does not fail for what it found.
#[test]
fn what_is_found_is_no_failure_where_that_is_said() {
    let place = Place::new();
    std::fs::write(place.path("broken.json"), "no report").unwrap();
    place.ok(3, &["-q", "ingest", "files", "broken.json"]);
    place.ok(0, &["-q", "--zero-if-found", "ingest", "files", "broken.json"]);
    place.ok(1, &["-q", "ingest", "files", "none.json", "--zero-if-found"]);
}

/// Whoever is stopped while it waits for a broker has nothing in hand.
#[test]
fn a_worker_without_a_broker_is_stopped_or_fails() {
    let place = Place::new();
    let arguments = ["ingest", "kafka", "--brokers", "127.0.0.1:1", "--listen", "127.0.0.1:0"];
    let mut worker = place.command(&arguments).stderr(Stdio::piped()).spawn().unwrap();
    let mut log = std::io::BufReader::new(worker.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("waiting for the topic") {
        line.clear();
        assert!(std::io::BufRead::read_line(&mut log, &mut line).unwrap() > 0, "it ended");
    }
    let pid = worker.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    assert_eq!(worker.wait().unwrap().code(), Some(0));
    let mut wrong = place.command(&["ingest", "kafka"]);
    let wrong = ran(wrong.env("RUMLEDGER_KAFKA_BROKERS", "127.0.0.1:1").output().unwrap());
    assert_eq!(wrong.status, 2);
    assert!(wrong.stderr.contains("use RUMLEDGER_BROKERS"), "{}", wrong.stderr);
}
