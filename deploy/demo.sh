#!/usr/bin/env bash
# Traces a Go program that grows, frees and scavenges its heap.   deploy/demo.sh PYTHON [gomem trace options]
set -euo pipefail
cd "$(dirname "$0")/.."
python=$1
shift
demo=$("$python" -c 'from tests.support.builds import built; print(built("churn", "1.25.5"))')
log=$(mktemp)
"$demo" >"$log" &
pid=$!
trap 'kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; rm -f "$log"' EXIT
sleep 2
printf '$ gomem trace --pid %s --duration 8\n' "$pid" >&2
"$(dirname "$python")/gomem" trace --pid "$pid" --duration 8 "$@"
printf '\nWhat the program itself said meanwhile:\n' >&2
cat "$log" >&2
