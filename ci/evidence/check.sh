#!/usr/bin/env bash
# Proofs of every line of the demo, checked without rumledger; and refused with any byte changed.
set -euo pipefail
cd "$(dirname "$0")/../.."
bin=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/target}/debug/rumledger
tool=$PWD/tools/verify_proof.py
cache=${XDG_CACHE_HOME:-$HOME/.cache}/rumledger

python=python3
if ! "$python" -c "import cryptography" 2>/dev/null; then
  venv=$cache/python
  [ -x "$venv/bin/python" ] || python3 -m venv "$venv"
  "$venv/bin/python" -c "import cryptography" 2>/dev/null || "$venv/bin/pip" -q install cryptography
  python=$venv/bin/python
fi

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
openssl genpkey -algorithm ed25519 -out operator.pem 2>/dev/null
export RUMLEDGER_OPERATOR_KEY=$work/operator.pem
"$bin" demo >/dev/null
export RUMLEDGER_LAKE=rumledger-demo/lake
"$bin" close --period 2026-09 >manifest.json
key=$("$python" -c 'import json; print(json.load(open("manifest.json"))["signature"]["public_key"])')
root=$("$python" -c 'import json; print(json.load(open("manifest.json"))["lines_root"])')
count=0
for period in 2026-09 2026-10; do
  for line in $("$bin" statement --period $period --format csv | tail -n +2 | cut -d, -f1); do
    "$bin" export proof "$line" >"$period-$line.json"
    if [ $period = 2026-09 ]; then
      "$python" "$tool" "$period-$line.json" --operator-key "$key" --lines-root "$root" >/dev/null
    else
      "$python" "$tool" "$period-$line.json" >/dev/null
    fi
    count=$((count + 1))
  done
done
echo "$count proofs hold"
[ "$count" -gt 40 ]
"$python" "$OLDPWD/ci/evidence/tamper.py" "$tool" ./*-*.json
