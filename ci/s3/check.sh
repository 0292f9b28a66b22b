#!/usr/bin/env bash
# The lake on S3, on a real server: many writers at once, the same answers as on local files, upkeep, and other
# engines that read it as Delta.
# Needs `rumledger` in $RUMLEDGER_BIN, Go (for the server) and Python.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
bin=${RUMLEDGER_BIN:?the program}
venv=${RUMLEDGER_S3_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/s3}/venv
if ! [ -x "$venv/bin/python" ]; then
  python3 -m venv "$venv"
  "$venv/bin/pip" install -q deltalake==1.6.6 duckdb==2.0.1
fi
work=$(mktemp -d)
trap '"$here/server.sh" down; rm -rf "$work"' EXIT
"$here/server.sh" up
eval "$("$here/server.sh" env)"
cd "$work"
export RUMLEDGER_NOW=2026-11-10T00:00:00Z
ok() { "$@" || [ $? = 3 ]; }
# Nothing broken: of two different reports with one id the first to come is taken, and here
# writers race.
"$bin" -q fleet generate --out fleet --reports 4000 --devices 160 --months 2 --per-file 250 --duplicates 5 --broken 0 >/dev/null

echo "== local files, one writer"
local_=$work/lake
"$bin" -q --lake "$local_" book import fleet/book >/dev/null
ok "$bin" -q --lake "$local_" ingest files fleet/reports >/dev/null
for month in 2026-09 2026-10; do ok "$bin" -q --lake "$local_" reconcile --period $month >/dev/null; done

echo "== S3, four writers at once, each with a part of the files, then all again"
s3=s3://lakes/at-once
"$bin" -q --lake $s3 book import fleet/book >/dev/null
find fleet/reports -type f | sort >files
pids=()
for part in 0 1 2 3; do
  # shellcheck disable=SC2046
  RUMLEDGER_FLUSH_ROWS_MAX=100 RUMLEDGER_CACHE_DIR=$work/cache-$part \
    "$bin" -q --lake $s3 ingest files $(awk "NR % 4 == $part" files) >"part-$part" 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do ok wait "$pid"; done
accepted() { "$bin" --lake "$1" sql "SELECT count(*), count(DISTINCT udi_pid || udi_serial || report_id || payload_sha256) FROM journal WHERE disposition = 'accepted'" --format csv | tail -n 1; }
[ "$(accepted $s3)" = "$(accepted "$local_")" ] || { echo "accepted: $(accepted $s3) on S3, $(accepted "$local_") on files" >&2; exit 1; }
before=$("$bin" --lake $s3 sql "SELECT count(*) FROM journal" --format csv | tail -n 1)
[ "$before" = "$("$bin" --lake "$local_" sql "SELECT count(*) FROM journal" --format csv | tail -n 1)" ]
echo "accepted, all different: $(accepted $s3); received: $before"

echo "== a prefix that nothing stands under"
for what in verify "statement --period 2026-09" "close --period 2026-09" "reconcile --period 2026-09"; do
  # shellcheck disable=SC2086
  "$bin" -q --lake s3://lakes/mistyped $what >/dev/null 2>mistyped && status=0 || status=$?
  [ $status = 1 ] && grep -q 'there is no lake at s3://lakes/mistyped/' mistyped || { echo "$what: $status, $(cat mistyped)" >&2; exit 1; }
done

echo "== S3, eight reconciles at once"
pids=()
for _ in $(seq 8); do
  "$bin" -q --lake $s3 reconcile --period 2026-09 >/dev/null 2>&1 &
  pids+=($!)
done
for pid in "${pids[@]}"; do wait "$pid" || true; done
for month in 2026-09 2026-10; do ok "$bin" -q --lake $s3 reconcile --period $month >/dev/null; done
# The same lines, to the byte. What a line pins (versions, roots over rows in their order) is the lake's own.
lines() { "$bin" --lake "$1" statement --period "$2" --format csv; }
for month in 2026-09 2026-10; do
  diff <(lines $s3 $month) <(lines "$local_" $month)
  echo "$month: $(lines $s3 $month | tail -n +2 | wc -l) lines, byte for byte those of the local lake"
done

echo "== upkeep, verification"
"$bin" -q --lake $s3 lake optimize --cluster >/dev/null
"$bin" -q --lake $s3 verify >/dev/null
cmp <(lines $s3 2026-09) <(lines "$local_" 2026-09)

echo "== other engines"
ours() {
  "$bin" --lake "$1" sql "SELECT 'journal', disposition, count(*), sum(coalesce(report_id, 0)), max(payload_sha256) FROM journal GROUP BY 2 ORDER BY 2" --format csv | tail -n +2
  "$bin" --lake "$1" sql "SELECT 'ledger', currency, count(*), sum(amount) FROM ledger GROUP BY 2 ORDER BY 2" --format csv | tail -n +2
}
theirs() { "$venv/bin/python" "$here/read.py" "$1" journal ledger | sed -n "s/^$2\t//p" | tr '\t' ','; }
cmp <(ours $s3) <(theirs $s3 deltalake)
cmp <(ours "$local_") <(theirs "$local_" deltalake)
cmp <(ours "$local_") <(theirs "$local_" duckdb)
echo "deltalake (S3 and files) and DuckDB (files) read what rumledger reads"
