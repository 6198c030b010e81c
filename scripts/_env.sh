# Makes .venv in the checkout: what requirements.lock pins, and driftline itself, editable.
# requirements-text.lock pins the same and torch besides, for those who embed texts.
# Sourced by the scripts beside it, which set $root. A second run does nothing until the lock or
# pyproject.toml change. Needs Python 3.11 or later; nothing is installed outside the checkout.

venv=$root/.venv

say() { printf '%s\n' "$*" >&2; }

give_up() {
    say "$*"
    exit 1
}

is_recent_enough() {
    "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1
}

find_python() {
    for python in python3 python3.13 python3.12 python3.11 python3.14; do
        if is_recent_enough "$python"; then
            return
        fi
    done
    found=$(python3 --version 2>/dev/null) || found="no python3"
    give_up "driftline needs Python 3.11 or later; found $found." \
        "Install a newer one (Debian, Ubuntu: apt install python3.11 python3.11-venv) and try again."
}

make_venv() {
    # An environment whose interpreter is gone, or too old, is made anew.
    if is_recent_enough "$venv/bin/python"; then
        return
    fi
    say "making $venv with $python"
    if "$python" -c 'import ensurepip' >/dev/null 2>&1; then
        "$python" -m venv --clear "$venv"
    elif "$python" -m pip --version >/dev/null 2>&1; then
        # Debian's Python without python3-venv. Its pip may install into an environment, though
        # not into the system, and needs none of its own there.
        "$python" -m venv --clear --without-pip "$venv"
    else
        give_up "$python has neither ensurepip nor pip, so it cannot fill an environment." \
            "Install one of them (Debian, Ubuntu: apt install python3-venv) and try again."
    fi
}

pip_install() {
    if "$venv/bin/python" -m pip --version >/dev/null 2>&1; then
        "$venv/bin/python" -m pip --disable-pip-version-check install --quiet "$@"
    else
        "$python" -m pip --disable-pip-version-check --python "$venv/bin/python" \
            install --quiet "$@"
    fi
}

ensure_env() {
    install_lock requirements.lock "minutes, once"
}

# What ensure_env installs, and torch, transformers and a small model: about 5 GB.
ensure_text_env() {
    ensure_env
    install_lock requirements-text.lock "torch is among it: 5 GB, once"
}

install_lock() {
    lock=$1
    [ -f "$root/$lock" ] || give_up "$root/$lock is missing; get the whole checkout."
    stamp=$venv/.installed-$lock
    wanted=$(cd "$root" && pwd && cksum "$lock" pyproject.toml)
    if [ -x "$venv/bin/driftline" ] && [ "$(cat "$stamp" 2>/dev/null)" = "$wanted" ]; then
        return
    fi
    find_python
    make_venv
    say "installing what $lock pins into $venv ($2)"
    pip_install --require-hashes --requirement "$root/$lock"
    # setuptools is in the lock: the build needs no network and nothing that is not pinned.
    pip_install --no-deps --no-build-isolation --editable "$root"
    printf '%s\n' "$wanted" >"$stamp"
}
