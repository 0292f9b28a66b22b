//! Encrypted and authenticated connections, and secrets that stay secret.

use std::time::Duration;

use crate::stand::{Stand, broker_env};
use crate::support::counts;

/// A worker's arguments for one of the broker's other doors.
struct Door {
    name: &'static str,
    brokers: &'static str,
    settings: &'static [&'static str],
    secret: Option<&'static str>,
}

const DOORS: &[Door] = &[
    Door {
        name: "tls",
        brokers: "RUMLEDGER_TEST_TLS_BROKERS",
        settings: &["security.protocol=ssl"],
        secret: None,
    },
    Door {
        name: "plain",
        brokers: "RUMLEDGER_TEST_SASL_BROKERS",
        settings: &[
            "security.protocol=sasl_ssl",
            "sasl.mechanism=PLAIN",
            "sasl.username=meter",
            "sasl.password.file=secret",
        ],
        secret: Some("meter-secret"),
    },
    Door {
        name: "scram-256",
        brokers: "RUMLEDGER_TEST_SASL_BROKERS",
        settings: &[
            "security.protocol=sasl_ssl",
            "sasl.mechanism=SCRAM-SHA-256",
            "sasl.username=scram",
            "sasl.password.file=secret",
        ],
        secret: Some("scram-secret"),
    },
    Door {
        name: "scram-512",
        brokers: "RUMLEDGER_TEST_SASL_BROKERS",
        settings: &[
            "security.protocol=sasl_ssl",
            "sasl.mechanism=SCRAM-SHA-512",
            "sasl.username=scram",
            "sasl.password.file=secret",
        ],
        secret: Some("scram-secret"),
    },
    Door {
        name: "oauth",
        brokers: "RUMLEDGER_TEST_OAUTH_BROKERS",
        settings: &[
            "security.protocol=sasl_ssl",
            "sasl.mechanism=OAUTHBEARER",
            "sasl.oauthbearer.token.file=secret",
        ],
        secret: None,
    },
];

/// An unsecured JWT (RFC 7519, alg none), as the test broker takes them.
fn token() -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let claims = format!("{{\"sub\":\"meter\",\"iat\":{now},\"exp\":{}}}", now + 600);
    format!("{}.{}.", BASE64.encode("{\"alg\":\"none\"}"), BASE64.encode(claims))
}

#[test]
fn every_door_lets_the_right_worker_in_and_no_secret_out() {
    let stand = Stand::new();
    let env = broker_env();
    for (n, door) in DOORS.iter().enumerate() {
        let seed = n.to_string();
        stand.produce(&["--reports", "100", "--devices", "20", "--seed", &seed]);
        let secret = door.secret.map_or_else(token, str::to_owned);
        std::fs::write(stand.place.path("secret"), format!("{secret}\n")).unwrap();
        let mut args = vec!["--idle-exit", "3"];
        let ca = format!("ssl.ca.location={}", env["RUMLEDGER_TEST_CA"]);
        args.extend(["--set", &ca]);
        for setting in door.settings {
            args.extend(["--set", setting]);
        }
        let mut worker = stand.worker(&args);
        let once: Vec<String> = with_brokers(&worker, &env[door.brokers]);
        worker = stand.place.command(&once.iter().map(String::as_str).collect::<Vec<_>>());
        worker.env("RUMLEDGER_LOG", "debug");
        let ran = crate::support::ran(worker.output().unwrap());
        assert!(matches!(ran.status, 0 | 3), "{}: {}", door.name, ran.stderr);
        assert_eq!(counts(&ran.stdout)["received"], 100, "{}", door.name);
        let said = format!("{}{}", ran.stdout, ran.stderr);
        assert!(!said.contains(&secret), "{}: the secret is in the log", door.name);
    }
}

/// The worker's own arguments, with these brokers in place of the plain ones.
fn with_brokers(worker: &std::process::Command, brokers: &str) -> Vec<String> {
    let args: Vec<String> = worker.get_args().map(|a| a.to_string_lossy().into_owned()).collect();
    let mut out = Vec::new();
    let mut skip = false;
    for arg in args {
        if arg == "--brokers" {
            skip = true;
        } else if !std::mem::take(&mut skip) {
            out.push(arg);
        }
    }
    out.extend(["--brokers".to_owned(), brokers.to_owned()]);
    out
}

#[test]
fn a_wrong_password_is_refused_and_named() {
    let stand = Stand::new();
    stand.produce(&["--reports", "10", "--devices", "5"]);
    let env = broker_env();
    std::fs::write(stand.place.path("secret"), "not-the-password").unwrap();
    let ca = format!("ssl.ca.location={}", env["RUMLEDGER_TEST_CA"]);
    let brokers = &env["RUMLEDGER_TEST_SASL_BROKERS"];
    let mut command = stand.place.command(&[
        "ingest",
        "kafka",
        "--brokers",
        brokers,
        "--topic",
        &stand.topic,
        "--listen",
        "off",
        "--set",
        &ca,
        "--set",
        "security.protocol=sasl_ssl",
        "--set",
        "sasl.mechanism=PLAIN",
        "--set",
        "sasl.username=meter",
        "--set",
        "sasl.password.file=secret",
        "--idle-exit",
        "2",
    ]);
    let mut child = command.stderr(std::process::Stdio::piped()).spawn().unwrap();
    let started = std::time::Instant::now();
    while child.try_wait().unwrap().is_none() {
        assert!(started.elapsed() < Duration::from_secs(90), "it does not give up");
        std::thread::sleep(Duration::from_millis(100));
    }
    let output = child.wait_with_output().unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.to_lowercase().contains("authentication"), "{said}");
    assert!(!said.contains("not-the-password"));
}
