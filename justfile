# Recipes for the people who work here. `just` is not needed: each is one plain command.

# The whole way on made-up data, in ./rumledger-demo
demo:
    cargo run -- demo

# Everything that CI runs
ci:
    bash .ci/run

test:
    cargo test --workspace

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
