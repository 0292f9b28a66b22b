#!/usr/bin/env bash
# Builds the Debian package into target/debian. Needs cargo-deb (cargo install cargo-deb --locked).
set -euo pipefail
cd "$(dirname "$0")/.."
cargo build --release --locked
bin=${CARGO_TARGET_DIR:-target}/release/rumledger
out=target/packaging
rm -rf "$out"
mkdir -p "$out"
"$bin" manual "$out/man"
"$bin" completions bash >"$out/rumledger.bash"
"$bin" completions zsh >"$out/_rumledger"
"$bin" completions fish >"$out/rumledger.fish"
cargo deb --no-build --locked "$@"
