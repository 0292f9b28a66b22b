//! Settings: from the command line, `RUMLEDGER_…`, or the configuration file, in this order.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, anyhow, bail};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ingest::core::carrier::CarrierLimits;
use ingest::core::mediate::Rules;
use ingest::core::worker::FlushLimits;
use ingest::shell::kafka::client::Connection;
use reconcile::shell::close::OperatorKey;
use schemas::disposition::SignaturePolicy;
use schemas::key::Algorithm;
use schemas::period::{EpochSeconds, Moment};
use serde::Deserialize;

use crate::cli::{Format, Global, KafkaArgs};
use crate::statement::focus::Parties;

/// The configuration file. Every key is also an environment variable: `RUMLEDGER_` and the key in
/// capitals; lists and tables are written `a,b` and `a=b,c=d` there.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    lake: Option<String>,
    format: Option<String>,
    cache_dir: Option<PathBuf>,
    /// Ed25519 key in PKCS#8 PEM that signs manifests.
    operator_key: Option<PathBuf>,
    /// Who acts on suspended reports.
    operator: Option<String>,
    /// Parties of a bill, as FOCUS and PDF name them.
    invoice_issuer: Option<String>,
    provider: Option<String>,
    publisher: Option<String>,
    /// Folder of fonts for PDF, beside those that are built in.
    pdf_fonts: Option<PathBuf>,
    signature_policy: Option<String>,
    collector: Option<String>,
    collectors: Option<Vec<String>>,
    /// A vendor's other tokens for RS256, ES256 and EdDSA.
    signing_types: Option<BTreeMap<String, String>>,
    /// Check signatures eight at a time where the processor can.
    vector_signatures: Option<bool>,
    report_bytes_max: Option<u64>,
    measurements_max: Option<u64>,
    archive_members_max: Option<u64>,
    archive_bytes_max: Option<u64>,
    flush_rows_max: Option<u64>,
    flush_bytes_max: Option<u64>,
    flush_age_ms_max: Option<u64>,
    #[serde(default)]
    kafka: Kafka,
    #[serde(default)]
    serve: Serve,
}

/// The `[serve]` part of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Serve {
    pub listen: Option<String>,
    pub http_listen: Option<String>,
    pub logins: Option<PathBuf>,
    pub tls_certificate: Option<PathBuf>,
    pub tls_key: Option<PathBuf>,
    pub allow_plaintext: bool,
    pub connections_max: Option<usize>,
    pub queries_at_once: Option<usize>,
    pub statement_timeout_ms: Option<u64>,
    pub rows_max: Option<usize>,
    pub memory_mb: Option<usize>,
    pub refresh_ms: Option<u64>,
    pub compute_every_s: Option<u64>,
}

/// The `[kafka]` part of the configuration file.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Kafka {
    brokers: Option<String>,
    allow_plaintext: bool,
    pub group: Option<String>,
    pub topic: Option<String>,
    pub trust_topic: Option<String>,
    pub receipts_topic: Option<String>,
    pub listen: Option<String>,
    /// Settings of librdkafka, as they are; secrets as `KEY.file`.
    set: BTreeMap<String, String>,
}

/// What the commands are told.
pub struct Config {
    pub lake: String,
    /// Somebody said where it is.
    pub lake_is_named: bool,
    pub format: Format,
    pub quiet: bool,
    pub cache_dir: PathBuf,
    pub collector: String,
    pub rules: Rules,
    pub limits: CarrierLimits,
    pub kafka: Kafka,
    pub serve: Serve,
    /// Who acts, as the journal keeps it.
    pub operator: String,
    operator_key: Option<PathBuf>,
    pub parties: Parties,
    pub pdf_fonts: Option<PathBuf>,
    flush_rows_max: usize,
    flush_bytes_max: usize,
    flush_age_ms_max: Option<u64>,
    now: Option<EpochSeconds>,
}

impl Config {
    pub fn load(global: &Global) -> anyhow::Result<Config> {
        let mut file = match &global.config {
            None => File::default(),
            Some(path) => {
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("cannot read the configuration {}", path.display()))?;
                toml::from_str(&text)
                    .with_context(|| format!("the configuration {} is wrong", path.display()))?
            }
        };
        overlay(&mut file)?;
        let default = CarrierLimits::default();
        let mut limits = default;
        limits.report.report_bytes_max =
            size("report_bytes_max", file.report_bytes_max, default.report.report_bytes_max)?;
        limits.report.measurements_max =
            size("measurements_max", file.measurements_max, default.report.measurements_max)?;
        limits.archive_members_max = at_least_one(
            "archive_members_max",
            file.archive_members_max,
            default.archive_members_max,
        )?;
        limits.archive_bytes_max =
            at_least_one("archive_bytes_max", file.archive_bytes_max, default.archive_bytes_max)?;
        let issuer = file.invoice_issuer.unwrap_or_else(|| "Service provider".to_owned());
        let lake = global.lake.clone().or(file.lake);
        Ok(Config {
            lake_is_named: lake.is_some(),
            lake: lake.unwrap_or_else(|| "./lake".to_owned()),
            format: match (global.format, &file.format) {
                (Some(format), _) => format,
                (None, None) => Format::default(),
                (None, Some(name)) => <Format as clap::ValueEnum>::from_str(name, false)
                    .map_err(|_| anyhow!("'{name}' is no format; use table, json or csv"))?,
            },
            quiet: global.quiet,
            cache_dir: file.cache_dir.unwrap_or_else(user_cache),
            collector: file.collector.unwrap_or_else(|| "file".to_owned()),
            rules: Rules {
                vector_signatures: file.vector_signatures.unwrap_or(true),
                ..rules(file.signature_policy, file.collectors, file.signing_types)?
            },
            limits,
            kafka: file.kafka,
            serve: file.serve,
            operator: file.operator.or_else(user_name).unwrap_or_else(|| "unknown".to_owned()),
            operator_key: file.operator_key,
            parties: Parties {
                invoice_issuer: issuer.clone(),
                // Who makes the licences available to the customer, and is paid: the operator.
                provider: file.provider.unwrap_or(issuer),
                publisher: file.publisher.unwrap_or_else(|| "Cisco".to_owned()),
            },
            pdf_fonts: file.pdf_fonts,
            flush_rows_max: size("flush_rows_max", file.flush_rows_max, 16_000)?,
            flush_bytes_max: size("flush_bytes_max", file.flush_bytes_max, 32 << 20)?,
            flush_age_ms_max: file.flush_age_ms_max,
            now: now_from_environment()?,
        })
    }

    /// The same settings for another lake, with nothing but results shown.
    pub fn for_demo(&self, lake: String) -> Config {
        Config {
            lake,
            lake_is_named: true,
            format: Format::Table,
            quiet: true,
            cache_dir: self.cache_dir.clone(),
            collector: self.collector.clone(),
            rules: self.rules.clone(),
            limits: self.limits,
            kafka: self.kafka.clone(),
            serve: self.serve.clone(),
            operator: self.operator.clone(),
            operator_key: self.operator_key.clone(),
            parties: self.parties.clone(),
            pdf_fonts: self.pdf_fonts.clone(),
            flush_rows_max: self.flush_rows_max,
            flush_bytes_max: self.flush_bytes_max,
            flush_age_ms_max: self.flush_age_ms_max,
            now: self.now,
        }
    }

    /// The key that signs manifests, if one is configured.
    pub fn operator_key(&self) -> anyhow::Result<Option<OperatorKey>> {
        let Some(path) = &self.operator_key else { return Ok(None) };
        let read = || -> anyhow::Result<OperatorKey> {
            let text = std::fs::read_to_string(path)?;
            let body: String = text.lines().filter(|line| !line.starts_with("-----")).collect();
            let der = STANDARD.decode(body.trim()).context("it is no PEM")?;
            Ok(OperatorKey::from_pkcs8(&der)?)
        };
        read().map(Some).with_context(|| {
            format!("cannot use {} as the operator's key; make one with `openssl genpkey -algorithm ed25519`", path.display())
        })
    }

    /// How to reach Kafka: the command line over the environment over the file.
    pub fn connection(&self, args: &KafkaArgs) -> anyhow::Result<Connection> {
        let brokers = args.brokers.as_ref().or(self.kafka.brokers.as_ref());
        let mut given = self.kafka.set.clone();
        let from_environment = kafka_from_environment();
        for ours in ["brokers", "group", "topic", "trust.topic", "receipts.topic", "listen"] {
            if from_environment.contains_key(ours) {
                let name = ours.to_ascii_uppercase().replace('.', "_");
                bail!(
                    "RUMLEDGER_KAFKA_{name} would be a setting of librdkafka, which has none of that name; use RUMLEDGER_{name}"
                );
            }
        }
        given.retain(|key, _| !from_environment.contains_key(key));
        given.extend(args.settings.iter().cloned());
        let allow_plaintext = args.allow_plaintext.unwrap_or(self.kafka.allow_plaintext);
        let brokers = brokers.map_or("", String::as_str);
        Ok(Connection::new(brokers, &given, &from_environment, allow_plaintext)?)
    }

    /// When rows are committed; `age_ms` is what the command takes where nothing is set.
    pub fn flush(&self, age_ms: u64) -> FlushLimits {
        FlushLimits {
            rows_max: self.flush_rows_max,
            bytes_max: self.flush_bytes_max,
            age_ms_max: self.flush_age_ms_max.unwrap_or(age_ms),
        }
    }

    /// The time now.
    pub fn now(&self) -> EpochSeconds {
        self.clock()()
    }

    /// The clock: of the machine, or as `RUMLEDGER_NOW` sets it.
    #[allow(clippy::disallowed_methods, reason = "the one place where the binary reads the clock")]
    pub fn clock(&self) -> impl Fn() -> EpochSeconds + Send + 'static {
        let set = self.now;
        move || set.unwrap_or_else(|| jiff::Timestamp::now().as_second())
    }
}

fn rules(
    policy: Option<String>,
    collectors: Option<Vec<String>>,
    signing_types: Option<BTreeMap<String, String>>,
) -> anyhow::Result<Rules> {
    let mut rules = Rules::default();
    if let Some(policy) = policy {
        rules.policy = policy.parse::<SignaturePolicy>().map_err(|e| anyhow!(e))?;
    }
    if let Some(collectors) = collectors {
        rules.collectors = collectors;
    }
    for (token, name) in signing_types.unwrap_or_default() {
        let algorithm = Algorithm::parse(&name)
            .ok_or_else(|| anyhow!("signing_types: '{name}' is none of RS256, ES256, EdDSA"))?;
        if token == "builtin" {
            bail!("signing_types: 'builtin' can be checked by the vendor alone");
        }
        if Algorithm::parse(&token).is_some_and(|own| own != algorithm) {
            bail!("signing_types: '{token}' is an algorithm itself, and cannot stand for {name}");
        }
        rules.signing_types.insert(token, algorithm);
    }
    Ok(rules)
}

fn size(name: &str, value: Option<u64>, default: usize) -> anyhow::Result<usize> {
    Ok(usize::try_from(at_least_one(name, value, default as u64)?)?)
}

fn at_least_one(name: &str, value: Option<u64>, default: u64) -> anyhow::Result<u64> {
    match value {
        Some(0) => bail!("{name}: a limit of 0 lets nothing in"),
        value => Ok(value.unwrap_or(default)),
    }
}

/// Puts what the environment says over what the file says.
fn overlay(file: &mut File) -> anyhow::Result<()> {
    let list =
        |text: String| text.split(',').map(|part| part.trim().to_owned()).collect::<Vec<_>>();
    let number = |name: &str| -> anyhow::Result<Option<u64>> {
        setting(name)
            .map(|text| text.parse().with_context(|| format!("RUMLEDGER_{name} is no number")))
            .transpose()
    };
    if let Some(path) = setting("CACHE_DIR") {
        file.cache_dir = Some(path.into());
    }
    if let Some(path) = setting("OPERATOR_KEY") {
        file.operator_key = Some(path.into());
    }
    if let Some(path) = setting("PDF_FONTS") {
        file.pdf_fonts = Some(path.into());
    }
    for (name, slot) in [
        ("OPERATOR", &mut file.operator),
        ("INVOICE_ISSUER", &mut file.invoice_issuer),
        ("PROVIDER", &mut file.provider),
        ("PUBLISHER", &mut file.publisher),
    ] {
        *slot = setting(name).or_else(|| slot.take());
    }
    // RUMLEDGER_LAKE, _CONFIG and _FORMAT are read with the command line; these two as well, where a
    // command has them as flags.
    file.signature_policy = setting("SIGNATURE_POLICY").or_else(|| file.signature_policy.take());
    file.collector = setting("COLLECTOR").or_else(|| file.collector.take());
    if let Some(collectors) = setting("COLLECTORS") {
        file.collectors = Some(list(collectors));
    }
    if let Some(wanted) = setting("VECTOR_SIGNATURES") {
        let wanted = wanted.parse().context("RUMLEDGER_VECTOR_SIGNATURES is not true or false")?;
        file.vector_signatures = Some(wanted);
    }
    if let Some(types) = setting("SIGNING_TYPES") {
        let pairs = list(types).into_iter().map(|pair| match pair.split_once('=') {
            Some((token, name)) => Ok((token.to_owned(), name.to_owned())),
            None => Err(anyhow!("RUMLEDGER_SIGNING_TYPES: '{pair}' is no TOKEN=ALGORITHM")),
        });
        file.signing_types = Some(pairs.collect::<anyhow::Result<_>>()?);
    }
    for (name, slot) in [
        ("REPORT_BYTES_MAX", &mut file.report_bytes_max),
        ("MEASUREMENTS_MAX", &mut file.measurements_max),
        ("ARCHIVE_MEMBERS_MAX", &mut file.archive_members_max),
        ("ARCHIVE_BYTES_MAX", &mut file.archive_bytes_max),
        ("FLUSH_ROWS_MAX", &mut file.flush_rows_max),
        ("FLUSH_BYTES_MAX", &mut file.flush_bytes_max),
        ("FLUSH_AGE_MS_MAX", &mut file.flush_age_ms_max),
    ] {
        *slot = number(name)?.or(*slot);
    }
    Ok(())
}

#[allow(
    clippy::disallowed_methods,
    reason = "the one place where the binary reads its environment"
)]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

/// `RUMLEDGER_KAFKA_SASL_PASSWORD` is librdkafka's `sasl.password`.
fn kafka_from_environment() -> BTreeMap<String, String> {
    std::env::vars_os()
        .filter_map(|(name, value)| {
            let name = name.into_string().ok()?;
            let key = name.strip_prefix("RUMLEDGER_KAFKA_")?.to_ascii_lowercase().replace('_', ".");
            Some((key, value.into_string().ok()?))
        })
        .collect()
}

/// Logs as JSON: `RUMLEDGER_LOG_FORMAT=json`.
pub fn log_is_json() -> bool {
    setting("LOG_FORMAT").is_some_and(|format| format == "json")
}

/// Arms the point at which a test wants this process to end.
pub fn arm_failpoint() -> Result<(), String> {
    setting("FAILPOINT").map_or(Ok(()), |name| lake::failpoint::arm(&name))
}

fn setting(name: &str) -> Option<String> {
    variable(&format!("RUMLEDGER_{name}"))
}

fn user_name() -> Option<String> {
    variable("USER").or_else(|| variable("LOGNAME"))
}

fn user_cache() -> PathBuf {
    variable("XDG_CACHE_HOME")
        .map(PathBuf::from)
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")))
        .unwrap_or_else(|| PathBuf::from("."))
}

fn now_from_environment() -> anyhow::Result<Option<EpochSeconds>> {
    let Some(text) = setting("NOW") else { return Ok(None) };
    match text.parse::<Moment>() {
        Ok(Moment::At(instant)) => Ok(Some(instant)),
        _ => bail!(
            "RUMLEDGER_NOW is '{text}'; write RFC 3339 with whole seconds, such as 2026-11-01T00:00:00Z"
        ),
    }
}
