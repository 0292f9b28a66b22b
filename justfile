# Recipes for the people who work here. `just` is not needed: each is one plain command.

# The whole way on made-up data, in ./rumledger-demo
demo:
    cargo run -- demo

# Everything that CI runs
ci:
    bash .ci/run

# All tests; starts a Kafka broker of its own
test:
    bash ci/test.sh

# The tests that need no broker
test-quick:
    cargo test --workspace

# A Kafka broker on 127.0.0.1:19092, for the tests of the worker and for trying things out
kafka-up:
    ci/kafka/broker.sh up

kafka-down:
    ci/kafka/broker.sh down

# The long form of the crash test: 200,000 reports, 200 kills, every failpoint (needs kafka-up)
crash-test:
    RUMLEDGER_TEST_LONG=1 cargo test --test kafka -- --nocapture --test-threads 1 crash::

# All tests of the worker at full length (needs kafka-up)
kafka-long:
    RUMLEDGER_TEST_LONG=1 cargo test --test kafka -- --nocapture --test-threads 1

# Dashboards, alerts and manifests, and faults planted in each
observe:
    ci/observe/check.sh

# The lake on a real S3 server (built with Go)
check-s3:
    cargo build --locked
    RUMLEDGER_BIN=${CARGO_TARGET_DIR:-target}/debug/rumledger ci/s3/check.sh

# A Debian package in target/debian (needs cargo-deb)
deb:
    packaging/build-deb.sh

check-dashboards:
    ci/observe/check.sh dashboards

check-alerts:
    ci/observe/check.sh alerts

check-k8s:
    ci/observe/check.sh k8s

lint:
    cargo fmt --all --check
    cargo clippy --workspace --all-targets -- -D warnings

# Licences, advisories and sources of the dependencies (needs cargo-deny)
deny:
    cargo deny check

# One decoder under the fuzzer for a minute (needs cargo-fuzz and a nightly toolchain)
fuzz target="carrier":
    cd fuzz && cargo +nightly fuzz run {{target}} -- -max_total_time=60

# Time and memory of an ingest and a reconcile at a size
scale reports="100000":
    bash tools/scale.sh {{reports}}

# Stages, then the whole path against bare verification; the table of benches/BASELINE.md
bench *args:
    cargo build --release --locked --workspace
    "${CARGO_TARGET_DIR:-target}"/release/stages --bench
    python3 benches/end_to_end.py {{args}}

# The same work by Python, DuckDB and Polars, from PyPI in an environment of their own
bench-peers *args:
    cargo build --release --locked --workspace
    python3 benches/peers.py {{args}}
