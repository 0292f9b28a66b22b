#!/usr/bin/env bash
# Time and peak memory of an ingest and a reconcile at a size, by the release build:
#   bash tools/scale.sh REPORTS [DEVICES]
set -euo pipefail
cd "$(dirname "$0")/.."
reports=${1:-100000}
devices=${2:-$((reports / 50))}
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/target}"
bin=${RUMLEDGER_BIN:-"$CARGO_TARGET_DIR/release/rumledger"}
[ -x "$bin" ] || cargo build --release --locked
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT

# Peak resident memory from the kernel's own account of the process, at its end.
measure() {
  local name=$1 status=0
  shift
  python3 - "$name" "$@" <<'PY' || status=$?
import os, resource, subprocess, sys, time
name, command = sys.argv[1], sys.argv[2:]
start = time.monotonic()
status = subprocess.run(command, stdout=subprocess.DEVNULL).returncode
seconds = time.monotonic() - start
used = resource.getrusage(resource.RUSAGE_CHILDREN)
print(f"{name:28} {seconds:8.1f} s wall {used.ru_utime + used.ru_stime:8.1f} s CPU {used.ru_maxrss // 1024:6d} MiB peak, exit {status}", flush=True)
sys.exit(0 if status in (0, 3) else 1)
PY
  return $status
}

export RUMLEDGER_LAKE="$dir/lake"
measure "generate $reports" "$bin" -q fleet generate --out "$dir/fleet" --reports "$reports" --devices "$devices" --algorithm EdDSA
du -sh "$dir/fleet/reports"
"$bin" -q book import "$dir/fleet/book"
measure "ingest $reports" "$bin" -q ingest files "$dir/fleet/reports"
for period in 2026-09 2026-10; do measure "reconcile $period" "$bin" -q reconcile --period $period; done
measure "reconcile 2026-10 again" "$bin" -q reconcile --period 2026-10
measure "ingest $reports again" "$bin" -q ingest files "$dir/fleet/reports"
du -sh "$dir/lake"
