#!/bin/sh
# setup-mdk.sh: builds test/live/mdk-peer, a Marmot peer on mdk (the library of White Noise and pika), and prints its path. Prints one
# reason and ends with 3 where that is not possible. What is built stays in PYLON_TEST_MDK (~/.cache/pylon-test-mdk) for the next time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${PYLON_TEST_MDK:-${XDG_CACHE_HOME:-$HOME/.cache}/pylon-test-mdk}
limit=900

skip() {
  echo "$1" >&2
  exit 3
}

command -v cargo >/dev/null 2>&1 || skip 'the peer on mdk needs cargo, and there is none'
command -v cc >/dev/null 2>&1 || skip 'the peer on mdk needs a C compiler, and there is none'
mkdir -p "$cache"
# Two builds in one folder wait for each other; each is a moment where nothing changed.
ended=0
CARGO_TARGET_DIR=$cache/target nice -n 10 timeout "$limit" cargo build --quiet --locked --manifest-path "$here/mdk-peer/Cargo.toml" \
  >"$cache/build.log" 2>&1 || ended=$?
case $ended in
0) echo "$cache/target/debug/mdk-peer" ;;
124) skip "the peer on mdk was not built within $limit seconds; what is built is kept: run it again" ;;
*) skip "cargo could not build the peer on mdk: $(tail -n 1 "$cache/build.log" | cut -c 1-300)" ;;
esac
