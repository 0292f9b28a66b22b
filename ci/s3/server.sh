#!/usr/bin/env bash
# A real S3 server on 127.0.0.1 (versitygw over a folder), for the tests: it honours conditional puts.
#   server.sh up       builds it where it is not there (needs Go), starts it, makes the bucket `lakes`
#   server.sh env      prints what clients need in their environment
#   server.sh down     stops it and removes its data
set -euo pipefail
home=${RUMLEDGER_S3_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/rumledger/s3}
port=${RUMLEDGER_TEST_S3_PORT:-19090}
version=v1.8.0
mkdir -p "$home"

environment() {
  cat <<ENV
export AWS_ENDPOINT_URL=http://127.0.0.1:$port AWS_ALLOW_HTTP=true AWS_REGION=us-east-1
export AWS_ACCESS_KEY_ID=rumledger AWS_SECRET_ACCESS_KEY=only-for-tests
ENV
}

# put FILE NAME: the status of a put that must not replace anything.
put() {
  curl -s -o /dev/null -w '%{http_code}' --aws-sigv4 aws:amz:us-east-1:s3 --user rumledger:only-for-tests \
    -H 'x-amz-content-sha256: UNSIGNED-PAYLOAD' -H 'If-None-Match: *' -T "$1" "http://127.0.0.1:$port/lakes/$2"
}

up() {
  [ -x "$home/versitygw" ] ||
    GOBIN="$home" go install -p 2 "github.com/versity/versitygw/cmd/versitygw@$version" >&2
  rm -rf "$home/data"
  mkdir -p "$home/data/lakes"
  ROOT_ACCESS_KEY=rumledger ROOT_SECRET_KEY=only-for-tests \
    "$home/versitygw" --port "127.0.0.1:$port" --quiet posix "$home/data" >"$home/log" 2>&1 &
  echo $! >"$home/pid"
  for _ in $(seq 100); do
    [ "$(put "$0" up 2>/dev/null)" = 200 ] && break
    sleep 0.1
  done
  # Without this, two workers could both believe that they made a commit.
  [ "$(put "$0" up)" = 412 ] || { echo "the server does not honour conditional puts" >&2; exit 1; }
}

down() {
  [ ! -f "$home/pid" ] || kill "$(cat "$home/pid")" 2>/dev/null || true
  rm -rf "$home/pid" "$home/data"
}

case ${1:-} in
  up) up ;;
  down) down ;;
  env) environment ;;
  *)
    sed -n '2,5p' "$0" | sed 's/^# \{0,1\}//'
    exit 2
    ;;
esac
