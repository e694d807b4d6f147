#!/bin/sh
# Everything a change must pass. Tests that need root say so and pass without it.
#
#   deploy/check.sh [all]      `all`: also loom and fuzzing
set -eu
cd "$(dirname "$0")/.."
cargo fmt --all --check
cargo clippy --workspace --all-targets --quiet -- -D warnings
cargo test --workspace --quiet
RUSTDOCFLAGS="-D warnings" cargo doc --workspace --no-deps --quiet
for example in deploy/*.toml deploy/examples/*.toml; do
    cargo run --quiet --bin nke -- config check "$example"
done
if [ "${1:-}" = all ]; then
    deploy/loom.sh
    fuzz/run 20
fi
