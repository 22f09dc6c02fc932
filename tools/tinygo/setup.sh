#!/usr/bin/env bash
# Builds the TinyGo tool chain that tinygo-check uses, once, and prints its folder.
# Needs Go, gcc and what the line "needs" below names (Debian 12: .ci/run installs it).
# Everything goes under the user's cache folder; running it again costs nothing.
#
#   FOLDER/bin/tinygo      the compiler
#   FOLDER/root            TINYGOROOT: its runtime, targets and libraries
#   FOLDER/rt              C library and compiler runtime for Cortex-M0 and M3
#   FOLDER/version         the stamp, written last: a half-built folder has none
set -eu

here=$(cd "$(dirname "$0")" && pwd)
export GOTOOLCHAIN=go1.23.12 # TinyGo 0.39 refuses Go 1.26; from 1.24 on crypto/sha256 allocates at start
export GOWORK=off GOFLAGS=-mod=readonly GOOS= GOARCH= CGO_ENABLED=1

die() {
	printf 'error: %s\nhint: %s\n' "$1" "$2" >&2
	exit 1
}

for tool in go gcc clang-19 ld.lld-19 arm-none-eabi-gcc arm-none-eabi-objcopy; do
	command -v "$tool" >/dev/null 2>&1 || die "$tool is not installed" \
		"Debian 12: apt-get install gcc llvm-19-dev libclang-19-dev clang-19 lld-19 gcc-arm-none-eabi picolibc-arm-none-eabi"
done
[ -d /usr/lib/llvm-19/include/llvm-c ] || die "LLVM 19's headers are not installed" "Debian 12: apt-get install llvm-19-dev libclang-19-dev"
picolibc=/usr/lib/picolibc/arm-none-eabi/lib/release/thumb
[ -d "$picolibc" ] || die "picolibc for ARM is not installed" "Debian 12: apt-get install picolibc-arm-none-eabi"

# The stamp changes with this script, with the pinned sources and with the
# installed LLVM that the compiler is linked to.
stamp=$({
	cat "$here/setup.sh" "$here/toolchain/go.mod" "$here/toolchain/go.sum" "$here/runtime/semihosting.go"
	clang-19 --version
	arm-none-eabi-gcc --version
} | sha256sum | cut -c1-16)
cache=${XDG_CACHE_HOME:-${HOME:?set HOME or XDG_CACHE_HOME}/.cache}/runnel
dir=$cache/tinygo-$stamp
if [ "$(cat "$dir/version" 2>/dev/null)" = "$stamp" ]; then
	printf '%s\n' "$dir"
	exit 0
fi

mkdir -p "$cache"
exec 9>"$cache/tinygo.lock"
flock 9 # two checks started together build it once
if [ "$(cat "$dir/version" 2>/dev/null)" = "$stamp" ]; then
	printf '%s\n' "$dir"
	exit 0
fi
printf 'building the TinyGo tool chain in %s (once, about two minutes)\n' "$dir" >&2
rm -rf "$dir"
mkdir -p "$dir/bin" "$dir/root" "$dir/rt"

cd "$here/toolchain"
go build -tags llvm19 -o "$dir/bin/tinygo" github.com/tinygo-org/tinygo >&2
source=$(go list -m -f '{{.Dir}}' github.com/tinygo-org/tinygo)
cp -r "$source/src" "$source/targets" "$source/lib" "$dir/root/"
chmod -R u+w "$dir/root"
# Programs with the tag "semihosting" print and end by calls to the debugger, on any
# emulated machine; TinyGo's own file for the tag "qemu" knows one board's UART.
cp "$here/runtime/semihosting.go" "$dir/root/src/runtime/runtime_semihosting.go"
qemu=$dir/root/src/runtime/runtime_cortexm_qemu.go
sed 's|^//go:build cortexm && qemu$|//go:build cortexm \&\& qemu \&\& !semihosting|' "$qemu" >"$qemu.new"
! cmp -s "$qemu" "$qemu.new" || die "TinyGo's runtime_cortexm_qemu.go is not what this script knows" "adapt the build constraint above"
mv "$qemu.new" "$qemu"
mkdir -p "$dir/root/src/net" # a git submodule that the module's archive lacks; the folder must exist

# The module's archive has neither a C library nor compiler-rt: Debian's picolibc
# and gcc's libgcc stand in. Their .debug_frame would stop TinyGo's stack analysis.
for pair in v6-m:m0 v7-m:m3; do
	arch=${pair%:*} cpu=${pair#*:}
	strip() { arm-none-eabi-objcopy --strip-debug --remove-section=.debug_frame "$1" "$2"; }
	strip "$picolibc/$arch/nofp/libc.a" "$dir/rt/libc-$cpu.a"
	strip "$(arm-none-eabi-gcc "-mcpu=cortex-$cpu" -mthumb -mfloat-abi=soft -print-libgcc-file-name)" "$dir/rt/libgcc-$cpu.a"
done

printf '%s\n' "$stamp" >"$dir/version"
printf '%s\n' "$dir"
