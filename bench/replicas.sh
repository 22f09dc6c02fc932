#!/usr/bin/env bash
# Polls and reports a second: one server on SQLite, one and two on PostgreSQL, in turns of
# one run, with 100,000 devices. Needs PostgreSQL's server (bash tools/postgres.sh).
#
#   bash bench/replicas.sh
#   RUNNEL_BENCH_DEVICES=10000 bash bench/replicas.sh
set -eu
cd "$(dirname "$0")/.."
exec go test -run '^$' -bench Replicas -benchtime 1x -timeout 40m ./bench/replicas
