#!/bin/sh
# setup-cdk.sh: prints the path of a cdk-mintd, the mint of the Cashu Development Kit. It is built once, where PYLON_TEST_BUILD_RUST=1
# asks for it, which takes up to half an hour, and kept in PYLON_TEST_CDK (~/.cache/pylon-test-cdk). Prints one reason and ends with 3
# where there is none.
set -eu

version=0.18.3
cache=${PYLON_TEST_CDK:-${XDG_CACHE_HOME:-$HOME/.cache}/pylon-test-cdk}
program=$cache/bin/cdk-mintd

skip() {
  echo "cdk-mintd: $1" >&2
  exit 3
}

if [ ! -x "$program" ]; then
  [ "${PYLON_TEST_BUILD_RUST:-}" = 1 ] || skip 'not built yet, and it takes many minutes: PYLON_TEST_BUILD_RUST=1 sh test/live/setup-cdk.sh'
  command -v cargo >/dev/null 2>&1 || skip 'it needs cargo, and there is none'
  command -v cc >/dev/null 2>&1 || skip 'it needs a C compiler, and there is none'
  command -v protoc >/dev/null 2>&1 || skip 'it needs protoc (Debian: protobuf-compiler), and there is none'
  mkdir -p "$cache"
  # It is built for trying, not for speed.
  CARGO_TARGET_DIR=$cache/target CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
    nice -n 10 cargo install cdk-mintd --version "$version" --locked --no-default-features --features fakewallet,sqlite --root "$cache" \
    >"$cache/build.log" 2>&1 || skip "cargo could not build it: $(tail -n 1 "$cache/build.log" | cut -c 1-300)"
fi
echo "$program"
