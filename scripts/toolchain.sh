#!/bin/sh
# Runs a command with the pinned Node first on PATH.
set -eu
root=$(cd "$(dirname "$0")/.." && pwd)
PATH="$root/.toolchain/node-v$(cat "$root/.nvmrc")-linux-x64/bin:$root/node_modules/.bin:$PATH" exec "$@"
