# The shared part of scripts/demo and scripts/test; sourced by them. Makes or updates .venv, quickly when nothing changed.
#
#   PYTHON                 the Python to use (3.11 or newer); looked for when not set
#   PACSNODE_TORCH_INDEX   where the CPU build of torch comes from when pip's own configuration offers none
#
# shellcheck shell=bash

ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
VENV=$ROOT/.venv
SETUP_LOG=$ROOT/.venv/setup.log
unset PYTHONPATH PYTHONHOME

# debian_packages PACKAGE:FILE...: have each package whose FILE is missing installed. Fails, and says what to do, when
# that cannot be.
debian_packages() {
    local missing="" pair
    for pair in "$@"; do
        [ -e "${pair#*:}" ] || missing="$missing ${pair%%:*}"
    done
    [ -n "$missing" ] || return 0
    local become=""
    if ! command -v apt-get >/dev/null; then
        echo "Not installed:$missing (these are the Debian names; install them by the means of this system)" >&2
        return 1
    elif [ "$(id -u)" != 0 ]; then
        if ! command -v sudo >/dev/null || { ! sudo -n true 2>/dev/null && { [ -n "${CI:-}" ] || [ ! -t 0 ]; }; }; then
            echo "Not installed:$missing. As root: apt-get install$missing" >&2
            return 1
        fi
        become=sudo
    fi
    echo "Installing Debian packages:$missing"
    local log
    log=$(mktemp)
    # shellcheck disable=SC2086  # words on purpose
    if ! { $become apt-get update -qq && $become env DEBIAN_FRONTEND=noninteractive \
        apt-get install -qq -y --no-install-recommends $missing; } </dev/null >"$log" 2>&1; then
        tail -n 15 "$log" >&2
        rm -f "$log"
        echo "apt could not install:$missing" >&2
        return 1
    fi
    rm -f "$log"
}

# find_python: print a Python of 3.11 or newer that can make virtual environments.
find_python() {
    local candidate
    for candidate in ${PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return 0
        fi
    done
    return 1
}

has_gpu() {
    nvidia-smi -L 2>/dev/null | grep -q '^GPU'
}

pip_install() {
    "$VENV/bin/python" -m pip --disable-pip-version-check --no-input install "$@" </dev/null >>"$SETUP_LOG" 2>&1 || {
        tail -n 25 "$SETUP_LOG" >&2
        echo "pip could not install; the whole log: $SETUP_LOG" >&2
        return 1
    }
}

# offered_torch VERSION: print the exact version that pip's own configuration would install, without downloading it.
offered_torch() {
    local report=$VENV/torch-report.json
    "$VENV/bin/python" -m pip --disable-pip-version-check --no-input install --dry-run --no-deps --ignore-installed \
        --only-binary :all: --quiet --report "$report" "torch==$1" </dev/null >>"$SETUP_LOG" 2>&1 || return 0
    "$VENV/bin/python" -c 'import json, sys
print(json.load(open(sys.argv[1]))["install"][0]["metadata"]["version"])' "$report"
}

# install_torch: the CUDA build (several GB) only where a GPU is; else the CPU build, from wherever it is had.
install_torch() {
    local version have offered
    version=$(sed -n 's/^torch==\([0-9.]*\).*/\1/p' "$ROOT/constraints.txt")
    have=$("$VENV/bin/python" -c 'import importlib.metadata as m; print(m.version("torch"))' 2>/dev/null) || have=""
    case $have in
        "$version" | "$version+"*) return 0 ;;
    esac
    if has_gpu; then
        echo "A GPU is here: installing torch $version with CUDA (several GB)"
        pip_install "torch==$version"
        return
    fi
    offered=$(offered_torch "$version")
    case $offered in
        *+cpu)
            echo "Installing torch $offered"
            pip_install --no-deps "torch==$offered"
            ;;
        *)
            local index=${PACSNODE_TORCH_INDEX:-https://download.pytorch.org/whl/cpu}
            echo "Installing torch $version, CPU build (about 200 MB)"
            pip_install --no-deps --index-url "$index" "torch==$version" || {
                echo "Set PACSNODE_TORCH_INDEX to a package index that has the CPU build of torch; $index did not" >&2
                return 1
            }
            ;;
    esac
}

# python_environment EXTRAS: .venv holds this repository (editable) with these extras, in the versions of constraints.txt.
python_environment() {
    local extras=$1 python wanted stamp
    if ! python=$(find_python); then
        debian_packages python3-venv:/nonexistent || return 1
        if ! python=$(find_python); then
            echo "Python 3.11 or newer is needed; set PYTHON to one (Debian 12 and Ubuntu 24.04 have it as python3)" >&2
            return 1
        fi
    fi
    wanted=$({ cat "$ROOT/pyproject.toml" "$ROOT/constraints.txt" "$ROOT/scripts/setup.sh"
        echo "$ROOT $extras $python"; "$python" -V; } | sha256sum)
    stamp=$VENV/installed-$extras
    [ "$(cat "$stamp" 2>/dev/null)" != "$wanted" ] || return 0
    # One at a time: a demo and a test may be started together.
    { flock 9; _install "$extras" "$python"; } 9<"$ROOT" || return 1
    echo "$wanted" >"$stamp"
}

_install() {
    # A folder that was moved or copied: the commands in .venv/bin still point to the old place.
    if ! "$VENV/bin/python" -c '' 2>/dev/null || ! head -n 1 "$VENV/bin/pip" 2>/dev/null | grep -qF "$VENV/"; then
        echo "Making $VENV with $("$2" -V)"
        "$2" -m venv --clear "$VENV" || return 1
    fi
    : >"$SETUP_LOG"
    pip_install --upgrade 'pip>=24' || return 1
    install_torch || return 1
    echo "Installing pacsnode [$1] and what it needs"
    pip_install -c "$ROOT/constraints.txt" -e "$ROOT[$1]"
}
