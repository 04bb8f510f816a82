#!/bin/sh
# setup-lnd.sh: prints the folder with lnd and btcd, a real Lightning node and its chain. They are built once from Go's registry, where
# PYLON_TEST_BUILD_GO=1 asks for it, which takes many minutes, and kept in PYLON_TEST_LND (~/.cache/pylon-test-lnd). Prints one reason and
# ends with 3 where there are none.
set -eu

version=v0.20.1-beta
cache=${PYLON_TEST_LND:-${XDG_CACHE_HOME:-$HOME/.cache}/pylon-test-lnd}

skip() {
  echo "lnd: $1" >&2
  exit 3
}

if [ ! -x "$cache/bin/lnd" ] || [ ! -x "$cache/bin/btcd" ]; then
  [ "${PYLON_TEST_BUILD_GO:-}" = 1 ] || skip 'not built yet, and it takes many minutes: PYLON_TEST_BUILD_GO=1 sh test/live/setup-lnd.sh'
  command -v go >/dev/null 2>&1 || skip 'it needs go, and there is none'
  mkdir -p "$cache/bin" "$cache/fetch"
  cd "$cache/fetch"
  [ -e go.mod ] || go mod init pylon-test-fetch >/dev/null 2>&1
  source=$(go mod download -json "github.com/lightningnetwork/lnd@$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
  [ -n "$source" ] || skip "lnd $version is not to be had"
  # Its go.mod replaces modules, which only the main module may.
  rm -rf "$cache/src"
  cp -r "$source" "$cache/src"
  chmod -R u+w "$cache/src"
  cd "$cache/src"
  nice -n 10 go build -o "$cache/bin/btcd" github.com/btcsuite/btcd >"$cache/build.log" 2>&1 || skip "go could not build btcd: $(tail -n 1 "$cache/build.log")"
  nice -n 10 go build -tags invoicesrpc -o "$cache/bin/lnd" ./cmd/lnd >"$cache/build.log" 2>&1 || skip "go could not build lnd: $(tail -n 1 "$cache/build.log")"
  rm -rf "$cache/src" "$cache/fetch"
fi
echo "$cache/bin"
