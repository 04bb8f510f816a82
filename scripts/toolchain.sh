#!/bin/sh
# Runs a command with the pinned Node and the locked dependencies, fetching both on first use.
#   sh scripts/toolchain.sh COMMAND [ARGUMENT...]
# Linux takes exactly the version in .nvmrc: the machine's own Node where it is that one, else the npm package that
# carries the binary, through the machine's own npm and its settings. macOS uses its own Node. Progress goes to stderr.
set -eu

root=$(CDPATH='' cd -- "$(dirname -- "$0")/.." && pwd)
tools=$root/.toolchain
pinned=$(tr -d '[:space:]' <"$root/.nvmrc")
log=$tools/setup.log
lock=$tools/lock

# With PYLON_STARTED_AT (install.sh) each line says how many seconds in.
say() {
  if [ -n "${PYLON_STARTED_AT:-}" ]; then
    printf '[%3ss] %s\n' "$(($(date +%s) - PYLON_STARTED_AT))" "$*" >&2
  else
    printf 'pylon: %s\n' "$*" >&2
  fi
}
die() {
  say "error: $1"
  shift
  for line in "$@"; do printf '       %s\n' "$line" >&2; done
  exit 1
}

platform() {
  case $(uname -s) in
    Linux) os=linux ;;
    Darwin) os=darwin ;;
    *) die "$(uname -s) is not supported." 'Pylon runs on Linux (x64, arm64) and, from source, on macOS. On Windows use WSL 2.' ;;
  esac
  case $(uname -m) in
    x86_64 | amd64) arch=x64 ;;
    aarch64 | arm64) arch=arm64 ;;
    *) die "the processor type $(uname -m) is not supported." 'Pylon runs on x86_64 (x64) and aarch64 (arm64) machines.' ;;
  esac
  if [ "$os" = linux ] && ls /lib/ld-musl-*.so.1 >/dev/null 2>&1 && ! ls /lib*/ld-linux-*.so.* /lib/*/ld-linux-*.so.* >/dev/null 2>&1; then
    die 'this Linux uses musl (Alpine?), and Pylon needs glibc.' 'Use Debian, Ubuntu, Fedora or another glibc system, or a container of one.'
  fi
}

# The version of the Node on PATH without its v, or nothing.
own_node() { node --version 2>/dev/null | sed -n 's/^v//p'; }

need_npm() {
  command -v npm >/dev/null 2>&1 && return
  hint='Install Node.js with npm, then run this again.'
  if command -v apt-get >/dev/null 2>&1; then hint='Install it with: sudo apt-get install npm'; fi
  if command -v dnf >/dev/null 2>&1; then hint='Install it with: sudo dnf install nodejs-npm'; fi
  if command -v brew >/dev/null 2>&1; then hint='Install it with: brew install node@24'; fi
  die 'npm was not found, and everything Pylon is built from comes through it.' "$hint"
}

need_space() {
  free_kb=$(df -Pk "$root" 2>/dev/null | awk 'NR == 2 { print $4 }')
  case $free_kb in '' | *[!0-9]*) return ;; esac
  [ "$free_kb" -ge "$1" ] || die "not enough disk space: $((free_kb / 1024)) MB free at $root, $(($1 / 1024)) MB needed." 'Free some space and run this again.'
}

# Says why the npm command that wrote the log failed, in the reader's words.
die_of_npm() {
  say "$1 failed; npm said:"
  grep -vE '^npm (warn|error$)' "$log" | head -n 12 | sed 's/^/       /' >&2
  if grep -q 'ENOSPC' "$log"; then die 'the disk is full.' 'Free some space and run this again.'; fi
  if grep -qE 'ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ETIMEDOUT|ENETUNREACH|ERR_SOCKET_TIMEOUT|EHOSTUNREACH' "$log"; then
    die 'the npm registry could not be reached.' 'Check the network and the proxy (npm config get registry, npm config get proxy), then run this again.'
  fi
  if grep -qE 'EACCES|EPERM|EROFS' "$log"; then die "npm may not write here." "Check who owns $root and the npm cache (npm config get cache)."; fi
  die "$1 failed." "The whole log: $log"
}

# One setup at a time for one checkout; a lock whose owner died is taken over.
take_lock() {
  mkdir -p "$tools" 2>/dev/null || die "cannot write to $root." 'Clone Pylon into a folder of your own.'
  waited=0
  until mkdir "$lock" 2>/dev/null; do
    [ -d "$lock" ] || [ -w "$tools" ] || die "cannot write to $tools." 'Check who owns it.'
    owner=$(cat "$lock/pid" 2>/dev/null || true)
    if [ -n "$owner" ] && ! kill -0 "$owner" 2>/dev/null; then
      # The rename is atomic: of several waiters one gets the dead lock, and puts it back if it was no longer dead.
      if mv "$lock" "$lock.$$" 2>/dev/null; then
        if [ "$(cat "$lock.$$/pid" 2>/dev/null || true)" = "$owner" ]; then rm -rf "$lock.$$"; else mv "$lock.$$" "$lock" 2>/dev/null || rm -rf "$lock.$$"; fi
      fi
      continue
    fi
    [ "$waited" -ne 0 ] || say 'another setup is running in this checkout; waiting for it'
    waited=$((waited + 1))
    [ "$waited" -lt 900 ] || die 'another setup has held this checkout for 15 minutes.' "If none is running, remove $lock and try again."
    sleep 1
  done
  trap 'rm -rf "$lock"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
  echo $$ >"$lock/pid"
}

drop_lock() {
  rm -rf "$lock"
  trap - EXIT INT TERM HUP
}

fetch_node() {
  need_npm
  need_space 307200
  say "fetching Node $pinned ($os-$arch)"
  fresh=$tools/fetch.$$
  rm -rf "$fresh"
  mkdir -p "$fresh/node"
  package=node-$os-$arch@$pinned
  npm pack "$package" --pack-destination "$fresh" --loglevel=error >"$log" 2>&1 || { rm -rf "$fresh"; die_of_npm "npm pack $package"; }
  tar -xzf "$fresh"/*.tgz -C "$fresh/node" --strip-components=1 2>>"$log" || { rm -rf "$fresh"; die "Node $pinned could not be unpacked (is the disk full, or tar missing?)." "The whole log: $log"; }
  got=$("$fresh/node/bin/node" --version 2>>"$log" || true)
  [ "$got" = "v$pinned" ] || { rm -rf "$fresh"; die "the Node that was fetched does not run here (it said '$got')." 'Pylon needs glibc 2.28 or newer.' "The whole log: $log"; }
  rm -rf "$home"
  mv "$fresh/node" "$home"
  rm -rf "$fresh"
}

choose_node() {
  if [ "$(own_node)" = "$pinned" ]; then
    home=
  elif [ "$os" = darwin ]; then
    home=
    own=$(own_node)
    major=${own%%.*}
    minor=${own#*.}
    minor=${minor%%.*}
    if [ -z "$own" ] || [ "$major" -lt 22 ] || { [ "$major" -eq 22 ] && [ "$minor" -lt 19 ]; }; then
      die "Pylon needs Node 22.19 or newer (found: ${own:-none})." "Install it with: brew install node@24"
    fi
  else
    home=$tools/node-v$pinned-$os-$arch
    PATH=$home/bin:$PATH
  fi
  PATH=$root/node_modules/.bin:$PATH
  export PATH
}

is_node_ready() { [ -z "$home" ] || [ -x "$home/bin/node" ]; }
are_packages_ready() { [ -f "$root/node_modules/.package-lock.json" ] && node "$root/scripts/is-installed.mjs"; }

install_packages() {
  need_npm
  need_space 512000
  say 'installing the locked dependencies'
  (cd "$root" && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error) >"$log" 2>&1 </dev/null || die_of_npm 'npm ci'
  are_packages_ready || die 'npm ci finished, but node_modules does not match package-lock.json.' "The whole log: $log"
}

[ $# -gt 0 ] || die 'usage: sh scripts/toolchain.sh COMMAND [ARGUMENT...]'
platform
choose_node
if ! is_node_ready || ! are_packages_ready; then
  take_lock
  is_node_ready || fetch_node
  are_packages_ready || install_packages
  drop_lock
fi
exec "$@"
