#!/usr/bin/env bash
# Checks dashboards, rules and manifests without a Grafana or a cluster, with the tools of those who
# read them. Fetches what it needs: npm packages, promtool from Debian, kustomize.
#   check.sh            all checks that need no running worker
#   check.sh live URL   scrapes a worker's metrics with a real Prometheus and runs every query
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
tools=${RUMLEDGER_TOOLS_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/observe}
mkdir -p "$tools"

# The binaries alone: the package's service is not installed.
prometheus_tools() {
  if ! [ -x "$tools/prometheus/usr/bin/promtool" ]; then
    (
      cd "$tools"
      rm -f prometheus_*.deb
      apt-get download prometheus >/dev/null 2>&1 ||
        { apt-get update >/dev/null && apt-get download prometheus >/dev/null 2>&1; }
      dpkg-deb -x prometheus_*.deb prometheus
      rm -f prometheus_*.deb
    )
  fi
  PATH="$tools/prometheus/usr/bin:$PATH"
}

npm_packages() {
  if ! cmp -s "$here/package.json" "$tools/npm/package.json"; then
    mkdir -p "$tools/npm"
    cp "$here/package.json" "$tools/npm/"
    (cd "$tools/npm" && npm install --silent --no-audit --no-fund --no-package-lock >/dev/null 2>&1)
  fi
  cp "$here"/{check.mjs,dashboard.ts,tsconfig.json} "$tools/npm/"
}

node_() { (cd "$tools/npm" && node check.mjs "$@"); }

render() {
  if command -v kustomize >/dev/null; then
    kustomize build "$1"
  elif command -v kubectl >/dev/null; then
    kubectl kustomize "$1"
  else
    [ -x "$tools/kustomize" ] ||
      GOBIN="$tools" go install -p 1 sigs.k8s.io/kustomize/kustomize/v5@v5.8.1 >&2
    "$tools/kustomize" build "$1"
  fi
}

static() {
  prometheus_tools
  npm_packages
  echo "== rules"
  promtool check rules --lint-fatal "$root/dashboards/rules.yml"
  (cd "$root/dashboards" && promtool test rules rules_test.yml)
  echo "== dashboards"
  node_ dashboards "$root"/dashboards/*.json
  node_ queries "$root/dashboards/ingest.json" >"$tools/queries.yml"
  promtool check rules --lint=none "$tools/queries.yml"
  echo "== manifests"
  for overlay in "$root"/k8s/overlays/*; do
    render "$overlay" >"$tools/rendered.yml"
    node_ manifests "$tools/rendered.yml"
  done
}

# Every query of the dashboards and every recording rule gives something on a real worker.
live() {
  local target=${1#http://} port=${RUMLEDGER_TEST_PROMETHEUS_PORT:-19390}
  prometheus_tools
  npm_packages
  local dir
  dir=$(mktemp -d)
  RATE_INTERVAL=10s node_ queries "$root/dashboards/ingest.json" >"$dir/queries.yml"
  sed 's/\[5m\]/[10s]/g; s/\[30m\]/[10s]/g' "$root/dashboards/rules.yml" >"$dir/rules.yml"
  cat >"$dir/prometheus.yml" <<YAML
global: {scrape_interval: 1s, scrape_timeout: 900ms, evaluation_interval: 1s}
rule_files: [queries.yml, rules.yml]
scrape_configs:
  - {job_name: rumledger, static_configs: [{targets: ["$target"]}]}
YAML
  prometheus --config.file="$dir/prometheus.yml" --storage.tsdb.path="$dir/data" \
    --web.listen-address="127.0.0.1:$port" --log.level=error &
  local pid=$!
  # shellcheck disable=SC2064
  trap "kill $pid 2>/dev/null; rm -rf $dir" EXIT
  node - "$port" "$dir/queries.yml" "$dir/rules.yml" <<'JS'
import("node:fs").then(async ({ readFileSync }) => {
  const [port, queries, rules] = process.argv.slice(2);
  const names = JSON.parse(readFileSync(queries, "utf8")).groups[0].rules.map((r) => r.record);
  for (const [, name] of readFileSync(rules, "utf8").matchAll(/- record: (\S+)/g)) names.push(name);
  const empty = new Set(names);
  for (let tries = 0; tries < 60 && empty.size > 0; tries++) {
    await new Promise((done) => setTimeout(done, 500));
    for (const name of empty) {
      const query = `http://127.0.0.1:${port}/api/v1/query?query=${encodeURIComponent(name)}`;
      const answer = await fetch(query).then((r) => r.json()).catch(() => null);
      if (answer?.data?.result?.length > 0) empty.delete(name);
    }
  }
  console.log(`${names.length - empty.size} of ${names.length} queries give something`);
  if (empty.size > 0) {
    console.error("empty: " + [...empty].join(", "));
    process.exit(1);
  }
});
JS
}

case ${1:-static} in
  static) static ;;
  live) live "$2" ;;
  *)
    sed -n '2,6p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
