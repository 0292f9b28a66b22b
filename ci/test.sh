#!/usr/bin/env bash
# All tests: those that need nothing, those that need a Kafka broker (which is fetched and started
# here), and the checks of dashboards, rules and manifests.
set -euo pipefail
cd "$(dirname "$0")/.."
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/target}"
bin=$CARGO_TARGET_DIR/debug/rumledger

cargo test --workspace --locked

echo "== proofs"
ci/evidence/check.sh

echo "== S3"
if command -v go >/dev/null || [ -x "${RUMLEDGER_S3_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/s3}/versitygw" ]; then
  RUMLEDGER_BIN=$bin ci/s3/check.sh
else
  echo "NOT RUN: the S3 server is built with Go, which is not here"
fi

echo "== Kafka"
was_up=$(ci/kafka/broker.sh up)
work=$(mktemp -d)
worker=
finish() {
  [ -z "$worker" ] || kill "$worker" 2>/dev/null || true
  [ -n "$was_up" ] || ci/kafka/broker.sh down
  rm -rf "$work"
}
trap finish EXIT
cargo test --locked --test kafka -- --test-threads 2

echo "== dashboards, rules, manifests"
ci/observe/check.sh
# A worker with something to do, the demo behind `serve`, and those who read them: Prometheus, Alertmanager, psql.
eval "$(ci/kafka/broker.sh env)"
listen=127.0.0.1:${RUMLEDGER_TEST_METRICS_PORT:-19464}
topic=live-$$
cd "$work"
"$bin" -q fleet generate --brokers "$RUMLEDGER_TEST_BROKERS" --topic "$topic" --out . \
  --reports 20000 --devices 200 --partitions 2 --algorithm EdDSA
"$bin" -q book import book
RUMLEDGER_FLUSH_ROWS_MAX=500 "$bin" -q ingest kafka --brokers "$RUMLEDGER_TEST_BROKERS" \
  --topic "$topic" --group "$topic" --receipts-topic "$topic-receipts" --listen "$listen" &
worker=$!
cd - >/dev/null
for _ in $(seq 100); do
  curl -fs "http://$listen/readyz" >/dev/null && break
  sleep 0.1
done
RUMLEDGER_BIN=$bin ci/observe/live.sh "$listen"
kill "$worker"
wait "$worker"
worker=
echo "all tests passed"
