#!/usr/bin/env bash
# Checks dashboards, rules and manifests without a Grafana or a cluster, with the tools of those who
# read them. Fetches what it needs.
#   check.sh              all of these
#   check.sh alerts       rules by promtool: syntax, lint, tests; a runbook for every alert
#   check.sh dashboards   Grafana's schema by the TypeScript compiler, layout, units, links, PromQL by promtool
#   check.sh k8s          kustomize, the schemas of Kubernetes, KEDA, Strimzi and Prometheus, our own rules
#   check.sh planted      plants a fault of each kind and holds that it is found
set -euo pipefail
. "$(dirname "$0")/tools.sh"

alerts() {
  echo "== alerts"
  debian prometheus promtool
  local folder=${1:-$root/dashboards} runbooks=${2:-$root/docs/runbooks.md} alert
  promtool check rules --lint-fatal "$folder/rules.yml"
  (cd "$folder" && promtool test rules rules_test.yml)
  for alert in $(sed -n 's/^ *- alert: //p' "$folder/rules.yml"); do
    grep -qx "## $alert" "$runbooks" || { echo "$alert has no runbook" >&2; return 1; }
    grep -q "runbooks.md#${alert,,}\$" "$folder/rules.yml" || { echo "$alert names no runbook" >&2; return 1; }
    grep -q "alertname: $alert\$" "$folder/rules_test.yml" || { echo "$alert has no test" >&2; return 1; }
  done
}

dashboards() {
  echo "== dashboards"
  debian prometheus promtool
  npm_packages
  local folder=${1:-$root/dashboards}
  node_ check.mjs dashboards "$folder"/*.json
  node_ check.mjs queries "$folder"/*.json >"$tools/queries.yml"
  promtool check rules --lint=none "$tools/queries.yml"
}

k8s() {
  echo "== manifests"
  npm_packages
  local folder=${1:-$root/k8s} overlay checked
  for overlay in "$folder"/overlays/*; do
    render "$overlay" >"$tools/rendered.yml"
    checked=$(RULES="$folder/../dashboards/rules.yml" node_ manifests.mjs "$tools/rendered.yml")
    echo "$(basename "$overlay"): $checked"
  done
}

# A check that cannot fail is none: each has to find a fault of its kind.
planted() {
  echo "== planted faults"
  local work
  work=$(mktemp -d)
  # shellcheck disable=SC2064
  trap "rm -rf $work" EXIT
  found() { # found WHAT CHECK FOLDER…, in a shell of its own: errors end it as they do here
    local what=$1
    shift
    if bash "$here/check.sh" "$@" >"$work/out" 2>&1; then
      echo "not found: $what" >&2
      return 1
    fi
    echo "found: $what: $(grep -v '^==' "$work/out" | grep -iE 'error|fail|no |not |has|leads|must|unknown|overlap|rate' | head -n 1 | cut -c1-140)"
  }
  fresh() {
    rm -rf "$work/at"
    mkdir "$work/at"
    cp -r "$root/dashboards" "$root/k8s" "$work/at/"
    cp "$root/docs/runbooks.md" "$work/at/"
  }
  edit() { fresh && node "$here/plant.mjs" "$work/at" "$1"; }
  local fault
  for fault in alert-wrong-expression alert-without-runbook alert-without-test alert-never-fires; do
    edit "$fault" && found "$fault" alerts "$work/at/dashboards" "$work/at/runbooks.md"
  done
  for fault in panel-without-unit panel-wrong-type panel-bad-promql panel-dead-link panels-overlap rate-fixed-interval; do
    edit "$fault" && found "$fault" dashboards "$work/at/dashboards"
  done
  for fault in object-unknown-key object-wrong-type pod-privileged pod-root-writable pod-without-limits image-latest \
    liveness-needs-kafka secret-inline no-default-deny; do
    edit "$fault" && found "$fault" k8s "$work/at/k8s"
  done
}

case ${1:-all} in
  all) alerts && dashboards && k8s && planted ;;
  alerts | dashboards | k8s | planted) "$@" ;;
  *)
    sed -n '2,9p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
