#!/usr/bin/env bash
# Sets a Debian machine up for working on gomem, or says what is missing. Quick when there is nothing to do.
#   deploy/setup.sh packages NAME...   Debian packages that must be installed
#   deploy/setup.sh venv DIRECTORY     a virtual environment that sees Debian's bcc, with gomem and its tools
set -euo pipefail
cd "$(dirname "$0")/.."
cache=${XDG_CACHE_HOME:-$HOME/.cache}/gomem
mkdir -p "$cache"

say() { printf 'setup: %s\n' "$*" >&2; }

missing_packages() {
    local name
    for name; do
        dpkg-query --show --showformat='${db:Status-Status}' "$name" 2>/dev/null | grep -qx installed || echo "$name"
    done
}

install_packages() {
    local apt=(env DEBIAN_FRONTEND=noninteractive apt-get -qq)
    "${apt[@]}" install -y --no-install-recommends "$@" >"$cache/apt.log" 2>&1 && return
    # The package lists may be absent or out of date.
    "${apt[@]}" update >"$cache/apt.log" 2>&1 || true
    "${apt[@]}" install -y --no-install-recommends "$@" >"$cache/apt.log" 2>&1 && return
    tail -n 20 "$cache/apt.log" >&2
    return 1
}

packages() {
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        say "this is not Debian: please see to it yourself that the equivalents of these are installed: $*"
        return
    fi
    local missing
    mapfile -t missing < <(missing_packages "$@")
    [ ${#missing[@]} -eq 0 ] && return
    if [ "$(id -u)" -ne 0 ]; then
        say "missing Debian packages; install them with:"
        say "  sudo apt-get install --no-install-recommends ${missing[*]}"
        exit 1
    fi
    say "installing ${missing[*]}"
    install_packages "${missing[@]}" || { say "apt-get could not install: ${missing[*]}"; exit 1; }
}

# bcc is no PyPI package: it belongs to the system's own Python, whatever `python3` on the PATH is.
system_python() {
    local candidate
    for candidate in /usr/bin/python3 "$(command -v python3 || true)"; do
        if [ -x "$candidate" ] && "$candidate" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
            echo "$candidate"
            return
        fi
    done
    say "no Python 3.11 or newer was found"
    return 1
}

venv() {
    local directory=$1 python wanted
    python=$(system_python)
    wanted=$(cat pyproject.toml deploy/setup.sh <("$python" --version) | sha256sum)
    [ "$(cat "$directory/.ready" 2>/dev/null)" = "$wanted" ] || make_venv "$directory" "$python" "$wanted"
    # As pip does for what it installs, but not for what it leaves in its place: it saves each start 0.4 s.
    "$directory/bin/python" -m compileall -q bpf exporters tracer
}

make_venv() {
    local directory=$1 python=$2 wanted=$3
    say "making the virtual environment $directory"
    "$python" -m venv --clear --system-site-packages "$directory"
    "$directory/bin/python" -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
    "$directory/bin/python" -c 'import bcc' 2>/dev/null || say "no bcc for $python: gomem will do without BPF"
    echo "$wanted" >"$directory/.ready"
}

task=${1:?packages or venv}
shift
exec 9>"$cache/setup.lock"
flock 9
"$task" "$@"
