#!/bin/sh
# setup-relay.sh python|go|rust: gets one relay that nobody here wrote and prints how to run it (one path). Prints one reason and
# ends with 3 where that is not possible. What it gets stays in PYLON_TEST_CACHE (~/.cache/pylon-test-relays) for the next time.
set -eu

here=$(cd "$(dirname "$0")" && pwd)
cache=${PYLON_TEST_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pylon-test-relays}

skip() {
  echo "$1" >&2
  exit 3
}

have() { command -v "$1" >/dev/null 2>&1; }

case ${1:-} in
python)
  to=$cache/nostr-relay-1.14
  if [ ! -e "$to/ready" ]; then
    have python3 || skip 'nostr-relay needs python3, and there is none'
    rm -rf "$to"
    mkdir -p "$cache"
    python3 -m venv "$to" >/dev/null 2>&1 || skip 'python3 -m venv does not work here'
    "$to/bin/pip" install -q --disable-pip-version-check nostr-relay==1.14 >/dev/null 2>&1 || skip 'pip could not install nostr-relay 1.14'
    touch "$to/ready"
  fi
  echo "$to/bin/nostr-relay"
  ;;
go)
  to=$cache/khatru-0.18.2
  if [ ! -x "$to/relay" ]; then
    have go || skip 'the relay on eventstore needs Go, and there is none'
    mkdir -p "$to"
    (cd "$here/relay-go" && go build -o "$to/relay.new" .) >/dev/null 2>&1 || skip 'go could not build the relay on eventstore (khatru 0.18.2)'
    mv "$to/relay.new" "$to/relay"
  fi
  echo "$to/relay"
  ;;
rust)
  to=$cache/nostr-rs-relay-0.8.12
  if [ ! -x "$to/bin/nostr-rs-relay" ]; then
    [ "${PYLON_TEST_BUILD_RUST:-}" = 1 ] ||
      skip "no build of nostr-rs-relay 0.8.12 in $to, and it takes many minutes: PYLON_TEST_BUILD_RUST=1 sh test/live/setup-relay.sh rust"
    have cargo || skip 'nostr-rs-relay needs cargo, and there is none'
    have protoc || skip 'nostr-rs-relay needs protoc (Debian: apt-get install protobuf-compiler)'
    cargo install -q nostr-rs-relay --version 0.8.12 --root "$to" >/dev/null || skip 'cargo could not build nostr-rs-relay 0.8.12'
  fi
  echo "$to/bin/nostr-rs-relay"
  ;;
*)
  skip 'usage: setup-relay.sh python|go|rust'
  ;;
esac
