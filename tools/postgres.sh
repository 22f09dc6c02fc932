#!/usr/bin/env bash
# Installs PostgreSQL's server where it is not, from Debian's packages. Tests start
# servers of their own from it: none is made or started here. Running it again costs
# nothing.
set -eu
if command -v initdb >/dev/null || compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null; then
	exit 0
fi
sudo=""
if [ "$(id -u)" != 0 ]; then
	sudo="sudo -n"
	if ! $sudo true 2>/dev/null; then
		printf 'error: PostgreSQL is not installed, and neither root nor sudo without a password is here\nhint: apt-get install --no-install-recommends postgresql\n' >&2
		exit 1
	fi
fi
echo "installing postgresql" >&2
# Else the package makes a cluster and starts it.
$sudo mkdir -p /etc/postgresql-common
[ -e /etc/postgresql-common/createcluster.conf ] || echo 'create_main_cluster = false' | $sudo tee /etc/postgresql-common/createcluster.conf >/dev/null
$sudo apt-get -o Acquire::Retries=3 -qq update </dev/null >&2
$sudo env DEBIAN_FRONTEND=noninteractive apt-get -o Acquire::Retries=3 -o Dpkg::Options::=--force-confold -qq install -y --no-install-recommends postgresql </dev/null >/dev/null
