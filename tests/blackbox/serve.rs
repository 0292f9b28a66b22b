//! `serve`, from the side of its clients: a PostgreSQL driver and a prober.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use tokio_postgres::{Client, NoTls, SimpleQueryMessage};

use crate::support::Place;

/// Long enough for anything on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A server that runs until it is dropped.
struct Served {
    child: Child,
    address: String,
    http: String,
    password: Option<String>,
}

impl Served {
    fn start(place: &Place, args: &[&str]) -> Served {
        let mut all = vec!["serve", "--listen", "127.0.0.1:0", "--http-listen", "127.0.0.1:0"];
        all.extend(args);
        let mut child =
            place.command(&all).stderr(Stdio::piped()).stdout(Stdio::null()).spawn().unwrap();
        let (sender, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                _ = sender.send(line);
            }
        });
        let mut served =
            Served { child, address: String::new(), http: String::new(), password: None };
        let mut seen = Vec::new();
        while served.address.is_empty() {
            let line = lines
                .recv_timeout(PATIENCE)
                .unwrap_or_else(|_| panic!("it did not start:\n{}", seen.join("\n")));
            let after = |mark: &str| {
                let rest = line.split_once(mark)?.1;
                Some(rest.split_whitespace().next()?.to_owned())
            };
            if let Some(password) = after("password ") {
                served.password = Some(password);
            }
            if line.contains("metrics and health are served") {
                served.http = after("address=").unwrap();
            }
            if let Some(address) = after("PostgreSQL clients: ") {
                served.address = address;
            }
            seen.push(line);
        }
        let until = Instant::now() + PATIENCE;
        while served.get("/readyz").0 != 200 {
            assert!(Instant::now() < until, "it does not get ready");
            std::thread::sleep(Duration::from_millis(20));
        }
        served
    }

    fn get(&self, path: &str) -> (u16, String) {
        let mut stream = TcpStream::connect(&self.http).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        let status = text.split_whitespace().nth(1).unwrap().parse().unwrap();
        (status, text.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    fn metric(&self, name: &str) -> i64 {
        let text = self.get("/metrics").1;
        let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        value.unwrap_or_else(|| panic!("{name} is not in\n{text}")).parse().unwrap()
    }

    async fn connect(&self, login: &str, password: &str) -> Result<Client, tokio_postgres::Error> {
        let (host, port) = self.address.split_once(':').unwrap();
        let (client, connection) = tokio_postgres::Config::new()
            .host(host)
            .port(port.parse().unwrap())
            .user(login)
            .password(password)
            .dbname("rumledger")
            .connect(NoTls)
            .await?;
        tokio::spawn(connection);
        Ok(client)
    }

    async fn operator(&self) -> Client {
        self.connect("rumledger", self.password.as_ref().unwrap()).await.unwrap()
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// Rows as texts, their cells separated by commas.
async fn rows(client: &Client, query: &str) -> Vec<String> {
    let all = client.simple_query(query).await.unwrap_or_else(|e| panic!("{query}: {e:?}"));
    all.iter()
        .filter_map(|message| match message {
            SimpleQueryMessage::Row(row) => {
                let cells = (0..row.len()).map(|i| row.get(i).unwrap_or_default());
                Some(cells.collect::<Vec<_>>().join(","))
            }
            _ => None,
        })
        .collect()
}

/// PostgreSQL's code of the refusal.
async fn refused(client: &Client, query: &str) -> String {
    match client.simple_query(query).await {
        Ok(_) => "done".to_owned(),
        Err(error) => error.code().map_or_else(|| error.to_string(), |c| c.code().to_owned()),
    }
}

async fn eventually(client: &Client, query: &str, expected: &[String]) {
    let until = Instant::now() + PATIENCE;
    loop {
        let found = rows(client, query).await;
        if found == expected {
            return;
        }
        assert!(Instant::now() < until, "{query}: {found:?} instead of {expected:?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

fn two_months() -> Place {
    let place = Place::with_fleet(&["--reports", "900", "--devices", "60", "--months", "2"]);
    place.run(&["-q", "ingest", "files", "fleet/reports"]);
    place.run(&["-q", "reconcile", "--period", "2026-09"]);
    place
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_see_what_the_shell_sees_and_new_commits_soon() {
    let place = two_months();
    let served = Served::start(&place, &["--compute-every-s", "1"]);
    let client = served.operator().await;

    // Exact, table by table: counts, and sums of money as decimals.
    for query in [
        "SELECT disposition, reason, count(*) FROM journal GROUP BY 1, 2 ORDER BY 1, 2",
        "SELECT count(*), sum(value) FROM usage",
        "SELECT line_id, amount, quantity, currency, verified_share FROM ledger ORDER BY 1",
        "SELECT smart_account, virtual_account, customer, time_zone FROM book_accounts ORDER BY 1, 2",
        "SELECT udi_serial FROM book_devices ORDER BY 1",
    ] {
        let shell = place.sql(query);
        assert!(!shell.is_empty(), "{query}");
        assert_eq!(rows(&client, query).await, shell, "{query}");
    }
    // Computed tables come a little later, and are then what the shell computes.
    for query in [
        "SELECT rule, count(*) FROM findings GROUP BY 1 ORDER BY 1",
        "SELECT state, count(*) FROM deadlines GROUP BY 1 ORDER BY 1",
        "SELECT period, state, sum(covered_seconds) FROM coverage GROUP BY 1, 2 ORDER BY 1, 2",
    ] {
        let shell = place.sql(query);
        assert!(!shell.is_empty(), "{query}");
        eventually(&client, query, &shell).await;
    }
    let exceptions = place.run(&["exceptions", "--format", "csv"]).stdout;
    let columns = "period, smart_account, virtual_account, subscription_id, entitlement, reason, license_seconds";
    // CSV quotes a tag, which has a comma; SQL rows here do not.
    let mut unquoted: Vec<String> =
        exceptions.lines().skip(1).map(|line| line.replace('"', "")).collect();
    unquoted.sort();
    assert!(!unquoted.is_empty());
    let mut found = rows(&client, &format!("SELECT {columns} FROM exceptions")).await;
    found.sort();
    assert_eq!(found, unquoted);
    assert_eq!(rows(&client, "SELECT DISTINCT chain FROM ledger_checks").await, ["holds"]);

    // A statement that was prepared before a commit shows it afterwards.
    let by_period = client
        .prepare("SELECT count(*) FROM ledger WHERE posted_period = $1 AND segment_start > $2::timestamptz - INTERVAL '90 days'")
        .await
        .unwrap();
    let count = async |period: &str| -> i64 {
        let from = std::time::SystemTime::UNIX_EPOCH + Duration::from_secs(1_790_000_000);
        client.query_one(&by_period, &[&period, &from]).await.unwrap().get(0)
    };
    let before = place.sql("SELECT count(*) FROM ledger")[0].parse::<i64>().unwrap();
    assert_eq!((count("2026-09").await, count("2026-10").await), (before, 0));
    place.run(&["-q", "reconcile", "--period", "2026-10"]);
    let after = place.sql("SELECT count(*) FROM ledger WHERE posted_period = '2026-10'");
    let after: i64 = after[0].parse().unwrap();
    assert!(after > 0);
    let until = Instant::now() + PATIENCE;
    while count("2026-10").await != after {
        assert!(Instant::now() < until, "the new lines do not show");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(served.metric("rumledger_table_version{table=\"ledger\"}"), 2);
    // What alerts stand on says what the tables say.
    assert_eq!(served.metric("rumledger_ledger_chain_broken{period=\"2026-09\"}"), 0);
    let suspended = rows(
        &client,
        "SELECT reason, count(*) FROM journal WHERE disposition = 'suspended' GROUP BY 1",
    )
    .await;
    assert!(!suspended.is_empty());
    for line in suspended {
        let (reason, reports) = line.split_once(',').unwrap();
        let gauge = format!("rumledger_suspended_reports{{reason=\"{reason}\"}}");
        assert_eq!(served.metric(&gauge).to_string(), reports);
    }
    // What is written off waits no more, here as in `suspense list`; it stays in the journal.
    let malformed = "rumledger_suspended_reports{reason=\"malformed\"}";
    assert!(served.metric(malformed) > 0);
    place.ok(
        0,
        &["suspense", "write-off", "--suspended-for", "malformed", "--reason", "no reports"],
    );
    let until = Instant::now() + PATIENCE;
    while served.get("/metrics").1.contains(malformed) {
        assert!(Instant::now() < until, "what was written off still waits");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_can_be_changed() {
    let place = two_months();
    let served = Served::start(&place, &["--compute-every-s", "0"]);
    let client = served.operator().await;
    let lines = rows(&client, "SELECT count(*), sum(amount) FROM ledger").await;
    for query in [
        "INSERT INTO book_accounts VALUES ('a', 'b', 'c', 'USD', 'UTC')",
        "DELETE FROM ledger",
        "UPDATE ledger SET amount = 0",
        "DROP TABLE ledger",
        "CREATE TABLE t AS SELECT 1",
        "SELECT 1 AS x INTO t",
        "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/etc/passwd'",
        "COPY (SELECT * FROM ledger) TO '/tmp/ledger.csv'",
        "EXPLAIN ANALYZE DELETE FROM ledger",
        "SET datafusion.runtime.memory_limit = '64G'",
        "PREPARE p AS SELECT 1",
        "DECLARE c CURSOR FOR SELECT * FROM ledger",
        "ALTER TABLE ledger ADD COLUMN x int",
        "SELECT * FROM '/etc/passwd'",
        "SELECT * FROM read_csv('/etc/passwd')",
        "SELECT * FROM stored_ledger",
    ] {
        let code = refused(&client, query).await;
        assert!(code != "done", "{query}");
        let prepared = client.prepare(query).await;
        assert!(prepared.is_err(), "{query} was prepared");
    }
    assert_eq!(refused(&client, "DELETE FROM ledger").await, "25006");
    // What clients ask a server about itself; Grafana asks for the number.
    let about = "SELECT current_setting('server_version_num')::int / 100, current_user, current_database(), \
                 split_part(version(), ' ', 1)";
    assert_eq!(rows(&client, about).await, ["1600,rumledger,rumledger,PostgreSQL"]);
    // Clients begin transactions and make settings as they are used to.
    client
        .batch_execute("BEGIN; SET application_name = 'x'; SET client_encoding = 'UTF8'; COMMIT")
        .await
        .unwrap();
    assert_eq!(rows(&client, "SELECT count(*), sum(amount) FROM ledger").await, lines);
    assert_eq!(place.sql("SELECT count(*), sum(amount) FROM ledger"), lines);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_sees_its_accounts_alone() {
    let place = two_months();
    let hashed = |password: &str| {
        let mut command = place.command(&["serve", "--hash-password"]);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        let out = child.wait_with_output().unwrap();
        String::from_utf8(out.stdout).unwrap().trim().to_owned()
    };
    let account = place
        .sql("SELECT smart_account || '/' || virtual_account FROM ledger GROUP BY 1 ORDER BY count(*) DESC")
        .swap_remove(0);
    let (smart, virtual_) = account.split_once('/').unwrap();
    let logins = format!(
        "[[login]]\nname = 'billing'\npassword = '{}'\n[[login]]\nname = 'customer'\npassword = '{}'\naccounts = ['{account}']\n",
        hashed("of the billing team"),
        hashed("of the customer"),
    );
    std::fs::write(place.path("logins.toml"), logins).unwrap();
    let served = Served::start(&place, &["--logins", "logins.toml", "--compute-every-s", "1"]);
    assert_eq!(served.password, None);

    for (login, password) in [
        ("billing", "of the customer"),
        ("customer", ""),
        ("nobody", "of the billing team"),
        ("rumledger", "of the billing team"),
        ("postgres", ""),
    ] {
        let denied = served.connect(login, password).await.err().unwrap();
        let code = denied.code().map(tokio_postgres::error::SqlState::code);
        assert!(code.is_none_or(|code| code.starts_with("28")), "{login}: {denied:?}");
    }

    let billing = served.connect("billing", "of the billing team").await.unwrap();
    let customer = served.connect("customer", "of the customer").await.unwrap();
    let theirs = format!("smart_account = '{smart}' AND virtual_account = '{virtual_}'");
    for table in ["ledger", "book_devices", "book_accounts", "book_subscriptions", "book_purchases"]
    {
        let all = rows(&billing, &format!("SELECT count(*) FROM {table}")).await;
        let part = rows(&billing, &format!("SELECT count(*) FROM {table} WHERE {theirs}")).await;
        let seen = rows(&customer, &format!("SELECT count(*) FROM {table}")).await;
        assert_eq!(seen, part, "{table}");
        assert!(seen != all && seen != ["0"], "{table}: {seen:?} of {all:?}");
    }
    let devices = format!("SELECT udi_serial FROM book_devices WHERE {theirs}");
    let part =
        rows(&billing, &format!("SELECT count(*) FROM usage WHERE udi_serial IN ({devices})"))
            .await;
    assert_eq!(rows(&customer, "SELECT count(*) FROM usage").await, part);
    // Computed tables as well, once they are there.
    eventually(&customer, "SELECT count(*) > 0 FROM deadlines", &["t".to_owned()]).await;
    let part = rows(&billing, &format!("SELECT count(*) FROM deadlines WHERE {theirs}")).await;
    assert_eq!(rows(&customer, "SELECT count(*) FROM deadlines").await, part);
    // No way round: other accounts' rows are in nothing that it can name.
    for table in ["journal", "closes", "documents", "trust_codes", "book_prices", "ledger_checks"] {
        assert_eq!(refused(&customer, &format!("SELECT * FROM {table}")).await.len(), 5, "{table}");
        assert!(!rows(&billing, &format!("SELECT count(*) FROM {table}")).await.is_empty());
    }
    for query in [
        "SELECT DISTINCT smart_account || '/' || virtual_account FROM ledger",
        "WITH ledger AS (SELECT * FROM public.ledger) SELECT DISTINCT smart_account || '/' || virtual_account FROM ledger",
        "SELECT DISTINCT a.smart_account || '/' || a.virtual_account FROM book_accounts a LEFT JOIN ledger l ON true OR l.amount IS NULL",
        "SELECT DISTINCT smart_account || '/' || virtual_account FROM (SELECT * FROM ledger UNION ALL SELECT * FROM rumledger.public.ledger) AS both_",
    ] {
        assert_eq!(rows(&customer, query).await, [account.as_str()], "{query}");
    }
    // Nor in what an expression would say of them, were it computed on them.
    for table in ["ledger", "book_accounts", "book_devices", "deadlines"] {
        let query = format!(
            "SELECT count(*) > 0 FROM {table} WHERE CAST(CASE WHEN {theirs} THEN '1' \
             ELSE concat('of ', smart_account) END AS bigint) = 1"
        );
        assert_eq!(rows(&customer, &query).await, ["t"], "{table}");
    }
    let tables = "SELECT table_name FROM information_schema.tables WHERE table_name = 'journal'";
    assert!(rows(&customer, tables).await.is_empty());
    assert_eq!(rows(&billing, tables).await, ["journal"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn queries_are_bounded_and_probes_go_on() {
    let place = two_months();
    let served = Served::start(
        &place,
        &[
            "--rows-max",
            "1000",
            "--statement-timeout-ms",
            "4000",
            "--queries-at-once",
            "2",
            "--memory-mb",
            "32",
            "--connections-max",
            "5",
            "--compute-every-s",
            "0",
        ],
    );
    let client = served.operator().await;
    assert_eq!(rows(&client, "SELECT * FROM generate_series(1, 1000)").await.len(), 1000);
    assert_eq!(refused(&client, "SELECT * FROM generate_series(1, 1001)").await, "54000");
    // More than its memory, by a join that cannot spill: refused, and the server goes on.
    let huge = "SELECT count(*) FROM generate_series(1, 5000000) a \
                JOIN generate_series(1, 5000000) b ON a.value = b.value";
    assert_eq!(refused(&client, huge).await, "53000");
    let long = format!("SELECT '{}'", "x".repeat(300 << 10));
    assert_eq!(refused(&client, &long).await, "54000");
    // Deep and wide, up to what is refused: the server outlives all of them.
    let chain = |n: usize| {
        format!("SELECT count(*) FROM ledger WHERE line_id = ''{}", " OR line_id = 'x'".repeat(n))
    };
    assert_eq!(rows(&client, &chain(1_000)).await, ["0"]);
    assert_eq!(refused(&client, &chain(1_500)).await, "54001");
    let sum = refused(&client, &format!("SELECT 1{}", "+1".repeat(1_500))).await;
    assert!(["done", "57014"].contains(&sum.as_str()), "{sum}");
    assert_eq!(rows(&served.operator().await, "SELECT 1").await, ["1"]);
    let doubled: Vec<String> =
        (1..30).map(|i| format!("a{i} AS (SELECT x.n FROM a{0} x, a{0} y)", i - 1)).collect();
    let doubled = format!("WITH a0 AS (SELECT 1 AS n), {} SELECT * FROM a29", doubled.join(", "));
    assert_eq!(refused(&client, &doubled).await, "54001");

    // A client may lower its time, not raise it; either way it ends.
    let endless = "SELECT count(*) FROM usage a, usage b, usage c, usage d";
    client.simple_query("SET statement_timeout = '200ms'").await.unwrap();
    assert_eq!(refused(&client, endless).await, "57014");
    client.simple_query("SET statement_timeout = '1h'").await.unwrap();
    assert_eq!(refused(&client, endless).await, "57014");

    // A join that makes much of little and finds nothing does not look up from it: others are answered meanwhile.
    let barren = "SELECT count(*) FROM generate_series(1, 100000) a, generate_series(1, 10000000) b \
                  WHERE a.value * b.value % 1000003 > b.value + a.value * 1000000";
    let (other, ended) = (served.operator().await, AtomicBool::new(false));
    tokio::join!(
        async {
            assert_eq!(refused(&client, barren).await, "57014");
            ended.store(true, Ordering::Relaxed);
        },
        async {
            for _ in 0..3 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                assert_eq!(
                    rows(&other, "SELECT 1 WHERE (SELECT count(*) FROM journal) > 0").await,
                    ["1"]
                );
                assert!(!ended.load(Ordering::Relaxed), "answered after it only");
            }
        }
    );
    drop(other);

    // Two hold every slot: a third waits and is told so; probes and metrics answer meanwhile, and the
    // lake is written to as ever.
    let (second, third) = (served.operator().await, served.operator().await);
    let (a, b, c, ()) = tokio::join!(
        refused(&client, endless),
        refused(&second, endless),
        async {
            tokio::time::sleep(Duration::from_millis(500)).await;
            third.simple_query("SET statement_timeout = '300ms'").await.unwrap();
            refused(&third, "SELECT 1").await
        },
        async {
            tokio::task::spawn_blocking({
                let http = served.http.clone();
                move || {
                    let mut stream = TcpStream::connect(http).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    write!(stream, "GET /healthz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
                        .unwrap();
                    let mut text = String::new();
                    stream.read_to_string(&mut text).unwrap();
                    assert!(text.starts_with("HTTP/1.1 200"), "{text}");
                }
            })
            .await
            .unwrap();
        }
    );
    assert_eq!((a.as_str(), b.as_str()), ("57014", "57014"));
    assert_eq!(c, "53300");
    let until = Instant::now() + PATIENCE;
    while served.metric("rumledger_serve_queries_running") > 0 {
        assert!(Instant::now() < until, "a query never ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(rows(&client, "SELECT 1").await, ["1"]);
    assert!(served.metric("rumledger_serve_queries_total{outcome=\"timeout\"}") >= 4);
    assert_eq!(served.metric("rumledger_serve_queries_total{outcome=\"busy\"}"), 1);

    // More connections than are allowed are turned away.
    let _fourth = served.operator().await;
    let _fifth = served.operator().await;
    assert!(served.connect("rumledger", served.password.as_ref().unwrap()).await.is_err());
}

#[test]
fn what_would_expose_it_is_refused() {
    let place = Place::new();
    std::fs::write(place.path("logins.toml"), "[[login]]\nname='a'\npassword='plain'\n").unwrap();
    std::fs::write(place.path("open.toml"), "[serve]\nallow_plaintext = true\n").unwrap();
    for (args, expected) in [
        (&["--listen", "nowhere"][..], "is no address"),
        (&["--listen", "0.0.0.0:0"], "configure logins"),
        (&["--logins", "none.toml"], "cannot read the logins in none.toml"),
        (&["--logins", "logins.toml"], "login 'a': its password is none"),
        (&["--tls-certificate", "none.pem", "--tls-key", "none.pem"], "none.pem"),
        (&["--tls-certificate", "none.pem"], "--tls-key"),
        (&["--tls-key", "none.pem"], "--tls-certificate"),
        (&["--rows-max", "0"], "rows_max"),
        (&["--connections-max", "9223372036854775807"], "connections_max: at most 65535"),
        (&["--statement-timeout-ms", "18446744073709551615"], "statement_timeout_ms: from 1"),
        (&["--refresh-ms", "0"], "refresh_ms: from 1"),
        // 192.0.2.1 is nobody's (RFC 5737). What is said nearer counts.
        (
            &[
                "--config",
                "open.toml",
                "--listen",
                "192.0.2.1:0",
                "--logins",
                "logins.toml",
                "--allow-plaintext=false",
            ],
            "--tls-certificate",
        ),
    ] {
        let mut all = vec!["serve", "--http-listen", "off"];
        all.extend(args);
        let ran = place.run(&all);
        assert_eq!(ran.status, 2, "{args:?}: {}", ran.stderr);
        assert!(ran.stderr.contains(expected), "{args:?}: {}", ran.stderr);
    }
    let mut command = place.command(&["serve", "--hash-password"]);
    let out = command.stdin(Stdio::null()).output().unwrap();
    assert_eq!(out.status.code(), Some(2));
}

#[test]
#[allow(clippy::disallowed_methods, reason = "how a person has the page written anew")]
fn the_page_of_tables_is_what_is_served() {
    let place = Place::new();
    let made = place.ok(0, &["serve", "--describe-tables"]);
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/tables.md");
    if std::env::var_os("UPDATE_DOCS").is_some() {
        std::fs::write(path, &made).unwrap();
    }
    assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), made, "run with UPDATE_DOCS=1");
}
