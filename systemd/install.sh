#!/usr/bin/env bash
# Installs the agent on this device, or upgrades it: `systemd/install.sh [--wheel FILE | --version V] [--lock FILE]`.
#
# Safe to run again. Makes the user, a virtual environment of its own for each version
# (/opt/shoal-agent-<number>, with /opt/shoal pointing at the one in use), the unit, and the folders.
# An upgrade keeps the old environment: when the new agent does not come up healthy, /opt/shoal points
# back at it and the old agent runs again. Exit code 1 then.
#
#   --wheel FILE      install this file instead of asking the package index
#   --version V       this version instead of the newest
#   --lock FILE       everything else as this lock of the release pins it, each file by its hash
#   --extra NAME      agent (default), agent-small on the smallest devices and 32-bit Arm,
#                     or agent-tflite-runtime there
#   --no-start        leave the service as it is
#
# DESTDIR is put before every path, as packagers know it; then no user is made.
# SHOAL_PYTHON: another interpreter. SHOAL_HEALTHY_SECONDS: how long the new agent is watched.
set -euo pipefail

here="$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)"
root="${DESTDIR:-}"
python="${SHOAL_PYTHON:-python3}"
healthy_seconds="${SHOAL_HEALTHY_SECONDS:-30}"
user=shoal-agent unit=shoal-agent.service
wheel='' version='' lock='' extra=agent start=yes

say() { printf 'install: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

while [ $# -gt 0 ]; do
    case "$1" in
        --wheel) wheel="${2:?--wheel needs a file}"; shift 2 ;;
        --version) version="${2:?--version needs a number}"; shift 2 ;;
        --lock) lock="${2:?--lock needs a file}"; shift 2 ;;
        --extra) extra="${2:?--extra needs a name}"; shift 2 ;;
        --no-start) start=no; shift ;;
        *) die "unknown option $1" ;;
    esac
done

[ -n "$root" ] || [ "$(id -u)" = 0 ] || die "must run as root (or with DESTDIR)"
"$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' ||
    die "$python: Python 3.11 to 3.13 is needed, set SHOAL_PYTHON"

make_user() {
    [ -z "$root" ] || return 0
    id "$user" >/dev/null 2>&1 && return 0
    useradd --system --home-dir /var/lib/shoal --shell /usr/sbin/nologin "$user"
    say "user $user made"
}

own() { # own <path>: give it to the user, where there is one
    if [ -z "$root" ]; then chown "$user:$user" "$1"; fi
}

make_folders() {
    install -d -m 0755 "$root/opt" "$root/etc/systemd/system"
    install -d -m 0750 "$root/etc/shoal"
    install -d -m 0700 "$root/var/lib/shoal"
    own "$root/var/lib/shoal"
    if [ -z "$root" ]; then chgrp "$user" /etc/shoal; fi
    if [ ! -e "$root/etc/shoal/agent.toml" ]; then
        install -m 0640 "$here/agent.example.toml" "$root/etc/shoal/agent.toml"
        if [ -z "$root" ]; then chgrp "$user" /etc/shoal/agent.toml; fi
        say "/etc/shoal/agent.toml made: fill it in, then run shoal-agent enrol"
    fi
}

next_environment() { # a number above every one there is
    local last=0 path number
    for path in "$root"/opt/shoal-agent-*; do
        number="${path##*-}"
        if [[ "$number" =~ ^[0-9]+$ ]] && [ "$number" -gt "$last" ]; then last="$number"; fi
    done
    echo "shoal-agent-$((last + 1))"
}

install_packages() { # install_packages <environment> <requirement>
    local pip=("$1/bin/pip" install --quiet --disable-pip-version-check)
    if [ -z "$lock" ]; then
        "${pip[@]}" "$2"
    else # pip must not resolve anything by itself: what the wheel asks for is all in the lock
        "${pip[@]}" --require-hashes --only-binary :all: --requirement "$lock" &&
            "${pip[@]}" --no-deps "$2" && "$1/bin/pip" check
    fi
}

make_environment() { # make_environment <name>: nothing that runs is touched
    local environment="$root/opt/$1" wanted="shoal[$extra]"
    if [ -n "$wheel" ]; then wanted="shoal[$extra] @ file://$(realpath "$wheel")"; fi
    if [ -n "$version" ]; then wanted="shoal[$extra]==$version"; fi
    "$python" -m venv "$environment"
    if ! install_packages "$environment" "$wanted"; then
        rm -rf "$environment"
        die "could not install $wanted; nothing was changed"
    fi
    "$environment/bin/python" -m agent.slim 2>/dev/null || say "left as large as pip made it"
    "$environment/bin/shoal-agent" --version >/dev/null || {
        rm -rf "$environment"
        die "the new agent does not start at all; nothing was changed"
    }
}

point_at() { # point_at <name>: one rename, so that /opt/shoal is there at any instant
    ln -sfn "$1" "$root/opt/.shoal-new"
    mv -T "$root/opt/.shoal-new" "$root/opt/shoal"
}

install_unit() { # 0 if it changed
    local target="$root/etc/systemd/system/$unit"
    if cmp -s "$here/$unit" "$target"; then return 0; fi
    if [ -e "$target" ]; then cp -p "$target" "$target.old"; fi
    install -m 0644 "$here/$unit" "$target"
    say "unit installed"
}

enrolled() { [ -s "$root/var/lib/shoal/broker.json" ]; }

comes_up_healthy() { # started, said READY=1, and was not restarted while watched
    systemctl restart "$unit" || return 1
    local before deadline
    before="$(systemctl show -p NRestarts --value "$unit")"
    deadline=$((SECONDS + healthy_seconds))
    while [ "$SECONDS" -lt "$deadline" ]; do
        systemctl is-active --quiet "$unit" || return 1
        [ "$(systemctl show -p NRestarts --value "$unit")" = "$before" ] || return 1
        sleep 1
    done
}

old_name() { if [ -L "$root/opt/shoal" ]; then readlink "$root/opt/shoal"; fi; }

remove_older() { # keep what runs and the one before
    local path
    for path in "$root"/opt/shoal-agent-*; do
        case "${path##*/}" in "$1" | "$2") ;; *) rm -rf "$path" ;; esac
    done
}

roll_back() { # roll_back <old name>
    say "the new agent did not come up healthy; going back to $1"
    point_at "$1"
    if [ -e "$root/etc/systemd/system/$unit.old" ]; then
        mv "$root/etc/systemd/system/$unit.old" "$root/etc/systemd/system/$unit"
    fi
    systemctl daemon-reload
    systemctl restart "$unit" || say "the old agent does not start either; see journalctl -u $unit"
    exit 1
}

make_user
make_folders
if [ -e "$root/opt/shoal" ] && [ ! -L "$root/opt/shoal" ]; then
    mv "$root/opt/shoal" "$root/opt/shoal-agent-0" # made by hand before; its scripts name /opt/shoal
    ln -s shoal-agent-0 "$root/opt/shoal"
fi
old="$(old_name)"
new="$(next_environment)"
say "installing into /opt/$new"
make_environment "$new"
rm -f "$root/etc/systemd/system/$unit.old"
install_unit
point_at "$new"
if [ "$start" = no ]; then
    say "installed; not started"
    exit 0
fi
systemctl daemon-reload
systemctl enable --quiet "$unit"
if ! enrolled; then
    say "installed; not started, since this device is not enrolled yet"
elif comes_up_healthy; then
    remove_older "$new" "$old"
    say "$("$root/opt/shoal/bin/shoal-agent" --version) runs"
elif [ -n "$old" ]; then
    roll_back "$old"
else
    die "the agent did not come up healthy: journalctl -u $unit, shoal-agent doctor"
fi
