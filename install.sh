#!/bin/sh
# Builds Pylon from this checkout and installs its single executable. See --help.
set -eu
umask 022

usage() {
  cat <<'TEXT'
Usage: ./install.sh [--prefix DIR] [--demo]
       ./install.sh --uninstall [--prefix DIR]

Builds pylon from this checkout and installs it as one executable. Needs npm and about 600 MB of free disk; what it
fetches comes from the npm registry. Run it again to update, over a running node too.

  --prefix DIR   install to DIR/bin (default: ~/.local/bin, and /usr/local/bin for root)
  --demo         go on with 'pylon demo' when installed
  --uninstall    remove the executable; the home (keys, database, money) stays, and what it holds is said
  --help         this text
TEXT
}

PYLON_STARTED_AT=$(date +%s)
export PYLON_STARTED_AT

say() { printf '[%3ss] %s\n' "$(($(date +%s) - PYLON_STARTED_AT))" "$*"; }
note() { printf '       %s\n' "$*"; }
die() {
  printf 'install: error: %s\n' "$1" >&2
  shift
  for line in "$@"; do printf '         %s\n' "$line" >&2; done
  exit 1
}

root=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
prefix=
action=install
demo=no
while [ $# -gt 0 ]; do
  case $1 in
    --prefix)
      [ $# -ge 2 ] && [ -n "$2" ] || { usage >&2; exit 2; }
      prefix=$2
      shift
      ;;
    --prefix=?*) prefix=${1#--prefix=} ;;
    --demo) demo=yes ;;
    --uninstall) action=uninstall ;;
    -h | --help) usage; exit 0 ;;
    *) printf 'install: unknown option: %s\n\n' "$1" >&2; usage >&2; exit 2 ;;
  esac
  shift
done

case $prefix in
  '') if [ "$(id -u)" -eq 0 ]; then bin=/usr/local/bin; else bin=${HOME:?HOME is not set}/.local/bin; fi ;;
  /*) bin=${prefix%/}/bin ;;
  *) bin=$(pwd)/${prefix%/}/bin ;;
esac
target=$bin/pylon
home=${PYLON_HOME:-${HOME:-/root}/.pylon}

# Runs the installed executable for an answer, bounded in time, without its noise.
ask() {
  if command -v timeout >/dev/null 2>&1; then timeout 20 "$target" "$@" 2>/dev/null </dev/null; else "$target" "$@" 2>/dev/null </dev/null; fi
}
is_running() { ask status >/dev/null; }

need_space() {
  free_kb=$(df -Pk "$1" 2>/dev/null | awk 'NR == 2 { print $4 }')
  case $free_kb in '' | *[!0-9]*) return ;; esac
  [ "$free_kb" -ge "$(($2 * 1024))" ] || die "not enough disk space: $((free_kb / 1024)) MB free at $1, $2 MB needed." 'Free some space and run this again.'
}

check_platform() {
  case $(uname -s)-$(uname -m) in
    Linux-x86_64 | Linux-amd64 | Linux-aarch64 | Linux-arm64) ;;
    Darwin-*) die 'the executable is built on Linux only.' "On macOS run Pylon from source: $root/bin/pylon (needs Node 22.19 or newer)." ;;
    *) die "$(uname -s) on $(uname -m) is not supported." 'Pylon is built for Linux on x86_64 and aarch64. On Windows use WSL 2.' ;;
  esac
}

# The folder of the executable, proven writable before minutes of building.
check_target() {
  [ ! -d "$target" ] || die "$target is a folder." 'Move it away or choose another --prefix.'
  mkdir -p "$bin" 2>/dev/null || die "cannot create $bin." 'Choose a folder that you may write to: ./install.sh --prefix DIR'
  fresh=$bin/.pylon.new.$$
  (: >"$fresh") 2>/dev/null || die "cannot write to $bin." 'Choose a folder that you may write to: ./install.sh --prefix DIR'
  trap 'rm -f "$fresh"' EXIT
  trap 'exit 130' INT
  trap 'exit 143' TERM HUP
}

install_executable() {
  check_platform
  check_target
  if [ -d "$root/node_modules" ]; then need_space "$root" 300; else need_space "$root" 600; fi
  need_space "$bin" 150

  say "building pylon (in $root)"
  sh "$root/scripts/toolchain.sh" node "$root/scripts/package.mjs" >/dev/null || die 'the build failed (see above); nothing was installed.'

  say "installing $target"
  was_running=no
  if [ -x "$target" ] && is_running; then was_running=yes; fi
  # Written beside and renamed: a node that runs keeps its old file, and a crash leaves the old or the new one whole.
  cp "$root/build/pylon" "$fresh" || die "could not copy the executable to $bin (is the disk full?)." 'The installed version was not touched.'
  chmod 755 "$fresh"
  sync "$fresh" 2>/dev/null || sync
  version=$("$fresh" --version) || die 'the executable that was built does not run here.' 'The installed version was not touched.'
  mv -f "$fresh" "$target"
  say "pylon $version is installed"
  if [ "$was_running" = yes ]; then note 'A node is running the version it was started with; switch it over with: pylon restart'; fi
  say_path
}

say_path() {
  found=$(command -v pylon 2>/dev/null || true)
  case :${PATH:-}: in
    *:"$bin":*) [ -z "$found" ] || [ "$found" = "$target" ] || note "Another pylon comes first on your PATH: $found" ;;
    *) note "$bin is not on your PATH. Add it with: export PATH=\"$bin:\$PATH\"" ;;
  esac
}

# The numbers of the JSON field $1 on stdin, one a line.
json_numbers() { tr ',{}[]' '\n\n\n\n\n' | sed -n "s/^[[:space:]]*\"$1\"[[:space:]]*:[[:space:]]*\([0-9][0-9]*\)[[:space:]]*\$/\1/p"; }

say_money() {
  wallet=$(ask wallet balance --json || true)
  agents=$(ask agent list --json || true)
  earned=$(ask earnings --json || true)
  play=
  case $wallet$agents$earned in *'"network":"sandbox"'* | *'"network": "sandbox"'*) play=' of play money' ;; esac
  sats=$(printf '%s' "$wallet" | json_numbers balance_sats | head -n 1)
  of_agents=$(printf '%s' "$agents" | json_numbers balance_sats | awk '{ sum += $1; seen = 1 } END { if (seen) printf "%d", sum }')
  msats=$(printf '%s' "$earned" | json_numbers total_msats | head -n 1)
  if [ -n "$sats" ]; then
    note "Its wallet holds $sats sats$play."
  elif held=$(ask doctor --json | sed -n 's/.*all wallets hold \([0-9][0-9]*\) sats.*/\1/p' | head -n 1) && [ -n "$held" ]; then
    # A stopped node: the books say it, for the node, the customer and the agents together.
    note "All its wallets together hold $held sats$play."
  else
    note 'What its wallet holds could not be read (it may be locked, stopped or empty): see pylon wallet balance before you delete anything.'
  fi
  if [ -n "$of_agents" ]; then note "Its agents hold $of_agents sats$play."; fi
  if [ -n "$msats" ]; then note "It has earned $((msats / 1000)) sats$play so far."; fi
}

uninstall_executable() {
  if [ ! -e "$target" ]; then
    say "pylon is not installed at $target"
    [ ! -d "$home" ] || note "The home $home is there, untouched."
    return
  fi
  money=
  if [ -d "$home" ]; then money=$(say_money); fi
  if is_running; then
    say 'stopping the running node'
    ask stop >/dev/null || die 'the running node could not be stopped; nothing was removed.' 'Stop it with: pylon stop --force'
  fi
  rm -f "$target" || die "cannot remove $target."
  say "removed $target"
  if [ -d "$home" ]; then
    note "The home stays: $home (keys, database and money)."
    printf '%s\n' "$money"
    note 'Whoever deletes that folder deletes the keys and the money in it.'
  fi
}

if [ "$action" = uninstall ]; then
  uninstall_executable
else
  install_executable
  if [ "$demo" = yes ]; then
    trap - EXIT
    exec "$target" demo
  fi
  note 'Next: pylon demo (a tour with play money), or pylon start'
fi
