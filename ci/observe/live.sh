#!/usr/bin/env bash
# Dashboards and alerts on what really runs: the demo's lake behind `rumledger serve`, a worker's metrics, a real
# psql, Prometheus and Alertmanager. Every PromQL and SQL of every dashboard has to give something.
#   live.sh WORKER     address of a worker's metrics, such as 127.0.0.1:9464
# Needs `rumledger` in $RUMLEDGER_BIN, psql and openssl.
set -euo pipefail
. "$(dirname "$0")/tools.sh"
worker=${1:?the address of a worker\'s metrics}
bin=${RUMLEDGER_BIN:?the program}
base=${RUMLEDGER_TEST_PORTS:-19390}
prometheus_port=$base alertmanager_port=$((base + 1)) hook_port=$((base + 2)) pg_port=$((base + 3)) http_port=$((base + 4))
debian prometheus prometheus
debian prometheus-alertmanager prometheus-alertmanager
npm_packages
# Debian's Alertmanager reads its templates from this place alone, where the package would have put them.
templates=/usr/share/prometheus/alertmanager
[ -e $templates/default.tmpl ] ||
  { mkdir -p $templates && cp "$tools/prometheus-alertmanager$templates"/*.tmpl $templates/; }
work=$(mktemp -d)
pids=()
finish() {
  for pid in "${pids[@]}"; do kill "$pid" 2>/dev/null || true; done
  rm -rf "$work"
}
trap finish EXIT
wait_for() { # wait_for URL
  for _ in $(seq 200); do curl -fs "$1" >/dev/null 2>&1 && return; sleep 0.1; done
  echo "$1 does not answer" >&2
  return 1
}

echo "== a lake with everything in it"
cd "$work"
"$bin" demo >/dev/null
lake=rumledger-demo/lake
export RUMLEDGER_LAKE=$lake
# A closed month, and a price that is corrected afterwards: adjustments.
"$bin" -q close --period 2026-09 >/dev/null
sed -i 's/,42\.000000,/,41.000000,/' rumledger-demo/book/prices.csv
"$bin" -q book import rumledger-demo/book --correct "the price list had it wrong" >/dev/null
"$bin" -q reconcile --period 2026-09 >/dev/null || [ $? = 3 ]
# Months later: deadlines are over, devices are silent.
export RUMLEDGER_NOW=2027-02-15T00:00:00Z

echo "== serve, by TLS, with two logins"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -keyout tls.key -out tls.crt -days 2 \
  -subj /CN=localhost -addext subjectAltName=DNS:localhost,IP:127.0.0.1 2>/dev/null
account=$("$bin" sql "SELECT smart_account || '/' || virtual_account FROM ledger ORDER BY 1 LIMIT 1" --format csv | tail -n 1)
{
  printf '[[login]]\nname = "grafana"\npassword = "%s"\n' "$(echo 'for the dashboards' | "$bin" serve --hash-password)"
  printf '[[login]]\nname = "customer"\npassword = "%s"\naccounts = ["%s"]\n' \
    "$(echo 'for the customer' | "$bin" serve --hash-password)" "$account"
} >logins.toml
"$bin" serve --listen "127.0.0.1:$pg_port" --http-listen "127.0.0.1:$http_port" --logins logins.toml \
  --tls-certificate tls.crt --tls-key tls.key --compute-every-s 1 2>serve.log &
pids+=($!)
wait_for "http://127.0.0.1:$http_port/readyz"
export PGHOST=localhost PGPORT=$pg_port PGDATABASE=rumledger PGUSER=grafana PGPASSWORD='for the dashboards'
export PGSSLMODE=verify-full PGSSLROOTCERT=$work/tls.crt PGHOSTADDR=127.0.0.1
ask() { psql -X -At -v ON_ERROR_STOP=1 -c "$1"; }
for _ in $(seq 100); do [ "$(ask "SELECT count(*) FROM deadlines")" != 0 ] && break; sleep 0.1; done
psql -X -c '\conninfo' | grep -q 'SSL' || { echo "the connection is not encrypted" >&2; exit 1; }
psql -X -c '\d' | grep -q ledger
psql -X -c '\d ledger' | grep -q numeric
if PGPASSWORD=wrong ask "SELECT 1" 2>/dev/null; then echo "a wrong password was let in" >&2; exit 1; fi
if ask "DELETE FROM ledger" 2>/dev/null; then echo "a line could be deleted" >&2; exit 1; fi
all=$(ask "SELECT count(*) FROM ledger")
theirs=$(PGUSER=customer PGPASSWORD='for the customer' ask "SELECT count(*) FROM ledger")
[ "$theirs" -gt 0 ] && [ "$theirs" -lt "$all" ]
[ "$(PGUSER=customer PGPASSWORD='for the customer' ask "SELECT DISTINCT smart_account || '/' || virtual_account FROM ledger")" = "$account" ]
echo "psql: TLS, SCRAM, \\d, $all lines for the operator, $theirs for the customer, nothing to be changed"

echo "== every SQL of every dashboard"
customers=$(ask "SELECT DISTINCT customer FROM book_accounts" | sed "s/'/''/g; s/.*/'&'/" | paste -sd, -)
CUSTOMERS=$customers node_ check.mjs sql "$root"/dashboards/*.json >sql.tsv
empty=0
while IFS=$'\t' read -r uid panel ref title query; do
  rows=$(ask "$query" | wc -l) || { echo "$uid, panel $panel $ref '$title' fails" >&2; exit 1; }
  echo "$uid panel $panel $ref: $rows rows: $title"
  [ "$rows" -gt 0 ] || empty=1
done <sql.tsv
[ $empty = 0 ] || { echo "a panel is empty" >&2; exit 1; }

echo "== every PromQL, and an alert through Alertmanager"
RATE_INTERVAL=10s node_ check.mjs queries "$root"/dashboards/*.json >queries.yml
# The same rules in minutes that a test can wait for.
sed 's/\[5m\]/[10s]/g; s/\[30m\]/[10s]/g; s/for: [0-9]*[mh]/for: 1s/' "$root/dashboards/rules.yml" >rules.yml
cat >prometheus.yml <<YAML
global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}
rule_files: [queries.yml, rules.yml]
alerting: {alertmanagers: [{static_configs: [{targets: ["127.0.0.1:$alertmanager_port"]}]}]}
scrape_configs:
  - {job_name: worker, static_configs: [{targets: ["$worker"]}]}
  - {job_name: serve, static_configs: [{targets: ["127.0.0.1:$http_port"]}]}
YAML
cat >alertmanager.yml <<YAML
route: {receiver: hook, group_by: [alertname], group_wait: 1s, group_interval: 1s, repeat_interval: 1h}
receivers: [{name: hook, webhook_configs: [{url: "http://127.0.0.1:$hook_port/"}]}]
YAML
prometheus-alertmanager --config.file=alertmanager.yml --storage.path=alerts --log.level=error \
  --web.listen-address="127.0.0.1:$alertmanager_port" --cluster.listen-address= &
pids+=($!)
wait_for "http://127.0.0.1:$alertmanager_port/-/ready"
prometheus --config.file=prometheus.yml --storage.tsdb.path=data \
  --web.listen-address="127.0.0.1:$prometheus_port" --log.level=error &
pids+=($!)
# Overdue devices and usage without a price are in the lake, so these have to reach the receiver.
node "$here/live.mjs" "$prometheus_port" "$hook_port" queries.yml rules.yml \
  RumledgerDeadlinesOverdue RumledgerExceptionsAtStake RumledgerCriticalFindings
