#!/usr/bin/env bash
# Sets up what builds and runs firmware, on a new Debian 12 machine with Go: the
# packages, where root or sudo is there, and then the tool chain (setup.sh), which
# stays in the user's cache folder. Running it again costs nothing.
set -eu
here=$(cd "$(dirname "$0")" && pwd)

# The compiler's own, gcc also for the race detector; the emulator.
packages="gcc libc6-dev llvm-19-dev libclang-19-dev clang-19 lld-19 gcc-arm-none-eabi picolibc-arm-none-eabi qemu-system-arm"

wanted=""
for p in $packages; do
	dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'install ok installed' || wanted="$wanted $p"
done
if [ -n "$wanted" ]; then
	sudo=""
	if [ "$(id -u)" != 0 ]; then
		sudo="sudo -n"
		if ! $sudo true 2>/dev/null; then
			printf 'error: not installed, and neither root nor sudo without a password is here:%s\nhint: apt-get install --no-install-recommends%s\n' "$wanted" "$wanted" >&2
			exit 1
		fi
	fi
	echo "installing$wanted" >&2
	$sudo apt-get -o Acquire::Retries=3 -qq update </dev/null >&2
	# shellcheck disable=SC2086 # a list of words
	$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -qq install -y --no-install-recommends $wanted </dev/null >/dev/null
fi
bash "$here/setup.sh"
