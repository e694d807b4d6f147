#!/usr/bin/env bash
# Fetches the captures that tcpdump is tested with (hundreds, many made to break a parser) from Debian's source package into
# target/captures, and prints the folder they are in. They are not part of NKE; `NKE_CAPTURES=$(deploy/captures.sh) cargo test`
# replays them through the router.
set -euo pipefail
cd "$(dirname "$0")/.."
to=$PWD/target/captures
if [ -z "$(find "$to" -name '*.pcap' -print -quit 2>/dev/null)" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    mkdir -p "$work/parts" "$work/lists" "$to"
    [ -f /etc/apt/sources.list ] && sed -n 's/^deb /deb-src /p' /etc/apt/sources.list >"$work/list"
    if [ -f /etc/apt/sources.list.d/debian.sources ]; then
        sed 's/^Types:.*/Types: deb-src/' /etc/apt/sources.list.d/debian.sources >"$work/parts/debian.sources"
    fi
    touch "$work/list"
    options=(-o APT::Sandbox::User=root -o "Dir::Etc::SourceList=$work/list")
    options+=(-o "Dir::Etc::SourceParts=$work/parts" -o "Dir::State::Lists=$work/lists")
    apt-get "${options[@]}" update -qq >&2
    (cd "$work" && apt-get "${options[@]}" source --download-only -qq tcpdump >&2)
    tar -xf "$(find "$work" -name "tcpdump_*.orig.tar.[gx]z")" -C "$work"
    find "$work" -path '*/tests/*' \( -name '*.pcap' -o -name '*.pcapng' \) -exec cp -t "$to" {} +
fi
echo "$to"
