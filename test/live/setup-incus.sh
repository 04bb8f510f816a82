#!/bin/sh
# Installs what the live lane of Incus needs on Debian 12, as root: incus-base from backports, dnsmasq-base, debootstrap,
# btrfs-progs and a static busybox. Prints one reason and ends with 3 where that is not possible; starts nothing.
set -eu

skip() {
  echo "incus: $1" >&2
  exit 3
}

have() { command -v "$1" >/dev/null 2>&1 || [ -x "/usr/sbin/$1" ]; }
ready() { [ -x /usr/libexec/incus/incusd ] && have busybox && have debootstrap && have mkfs.btrfs && have lxcfs; }

ready && exit 0
[ "$(id -u)" = 0 ] || skip 'not installed, and installing it needs root'
[ -r /etc/os-release ] || skip 'not installed, and this is no Debian'
. /etc/os-release
[ "${ID:-}" = debian ] || skip "not installed, and this script only knows Debian (this is ${ID:-unknown})"

export DEBIAN_FRONTEND=noninteractive
# No daemon may start by itself: the tests start their own.
policy=/usr/sbin/policy-rc.d
made_policy=''
if [ ! -e "$policy" ]; then
  printf '#!/bin/sh\nexit 101\n' >"$policy"
  chmod 755 "$policy"
  made_policy=yes
fi
source_file=/etc/apt/sources.list.d/pylon-backports.sources
cleanup() {
  [ -z "$made_policy" ] || rm -f "$policy"
}
trap cleanup EXIT

release=''
if [ "${VERSION_CODENAME:-}" = bookworm ]; then
  release=bookworm-backports
  if ! grep -rqs "$release" /etc/apt/sources.list /etc/apt/sources.list.d; then
    # The mirror that this machine already uses, with one more suite.
    uri=$(sed -n 's/^URIs: *\([^ ]*\/debian\/\{0,1\}\)$/\1/p' /etc/apt/sources.list.d/*.sources 2>/dev/null | head -n 1)
    [ -n "$uri" ] || uri=$(sed -n 's/^deb [^h]*\(http[^ ]*\/debian\/\{0,1\}\) .*/\1/p' /etc/apt/sources.list 2>/dev/null | head -n 1)
    [ -n "$uri" ] || skip 'no Debian mirror found in /etc/apt to take backports from'
    printf 'Types: deb\nURIs: %s\nSuites: %s\nComponents: main\nSigned-By: /usr/share/keyrings/debian-archive-keyring.gpg\n' "$uri" "$release" >"$source_file"
  fi
fi
apt-get update -qq || skip 'apt-get update failed'
apt-get install -y -qq --no-install-recommends ${release:+-t "$release"} incus-base >/dev/null || skip 'apt-get could not install incus-base'
apt-get install -y -qq --no-install-recommends dnsmasq-base debootstrap btrfs-progs busybox-static >/dev/null ||
  skip 'apt-get could not install dnsmasq-base, debootstrap, btrfs-progs and busybox-static'
ready || skip 'the packages are installed and incusd is not where it is expected (/usr/libexec/incus/incusd)'
