#!/bin/sh
# Makes a virtual environment with a nutshell mint (PyPI cashu) in DIR, from wherever pip of this machine finds its packages.
# usage: setup-nutshell.sh DIR. Prints one reason and ends with 3 where that is not possible; starts nothing.
set -eu
dir=$1

skip() {
  rm -rf "$dir"
  echo "nutshell: $1" >&2
  exit 3
}

[ -e "$dir/ready" ] && exit 0
rm -rf "$dir"
command -v python3 >/dev/null 2>&1 || skip 'there is no python3'
python3 -c 'import sys; sys.exit(sys.version_info < (3, 10))' || skip 'it needs Python 3.10 or newer'
mkdir -p "$(dirname "$dir")"
python3 -m venv "$dir" >/dev/null 2>&1 || skip 'python3 makes no virtual environment (is python3-venv missing?)'
# Of the last three newer releases took away what nutshell still uses.
"$dir/bin/pip" install --quiet --disable-pip-version-check 'cashu==0.20.*' 'marshmallow<4' 'limits<4' 'setuptools<81' >"$dir/pip.log" 2>&1 ||
  skip "pip could not install it: $(tail -n 1 "$dir/pip.log" | cut -c 1-300)"
"$dir/bin/python" -c 'import cashu.mint.main' >"$dir/pip.log" 2>&1 || skip "the package does not load: $(tail -n 1 "$dir/pip.log" | cut -c 1-300)"
touch "$dir/ready"
