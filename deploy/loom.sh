#!/bin/sh
# Model-checks the lock-free parts with loom: the free list, grace periods, and the AF_XDP rings.
set -eu
cd "$(dirname "$0")/.."
export RUSTFLAGS="--cfg loom" CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-target}/loom"
for package in nke-mbuf nke-dataplane af_xdp; do
    cargo test --release --package "$package" --lib loom
done
