#!/bin/sh
# Stream downloads on loopback: bytes per second, ratio to a plain copy in the same
# run, allocations and processor time. Medians of COUNT runs that take turns, so
# that what else the machine does hits all of them. See bench/README.md.
set -eu
cd "$(dirname "$0")/.."
count=${COUNT:-7}
command -v nginx >/dev/null || echo "NGINX IS NOT INSTALLED: THE ROW nginx IS MISSING BELOW" >&2
out=$(mktemp)
trap 'rm -f "$out"' EXIT
go test -c -o "$out.test" ./bench/streams
trap 'rm -f "$out" "$out.test"' EXIT
i=0
while [ "$i" -lt "$count" ]; do
	"$out.test" -test.run '^$' -test.bench . -test.benchtime "${TIME:-1s}" >>"$out"
	i=$((i + 1))
done
awk '
function median(name, what,   n, i, j, t, a) {
	n = split(seen[name, what], a, " ")
	for (i = 2; i <= n; i++) for (j = i; j > 1 && a[j] + 0 < a[j-1] + 0; j--) { t = a[j]; a[j] = a[j-1]; a[j-1] = t }
	return a[int((n + 1) / 2)]
}
/^Benchmark/ {
	name = $1; sub(/^Benchmark/, "", name); sub(/-[0-9]+$/, "", name)
	if (!(name in known)) { known[name] = 1; order[++names] = name }
	for (i = 3; i < NF; i++) seen[name, $(i+1)] = seen[name, $(i+1)] " " $i
}
END {
	printf "%-22s %10s %8s %14s %12s\n", "", "MB/s", "to copy", "allocs/request", "cpu s/GB"
	for (k = 1; k <= names; k++) {
		n = order[k]
		printf "%-22s %10.0f %8.2f %14s %12s\n", n, median(n, "MB/s"), median(n, "MB/s") / median("Copy", "MB/s"), median(n, "allocs/op"), (n == "Nginx" ? "-" : median(n, "cpu-s/GB"))
	}
}' "$out"
