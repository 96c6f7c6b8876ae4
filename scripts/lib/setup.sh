#!/usr/bin/env bash
# Make or bring up to date a virtual environment: `scripts/lib/setup.sh [demo|test|tflite-runtime|audit]`.
#
#   demo            .venv with everything that runs                       (locks/demo.lock)
#   test            the same .venv, and what checks and tests it          (locks/test.lock)
#   tflite-runtime  .venv-tflite-runtime, Python 3.11 with numpy 1        (locks/tflite-runtime.lock)
#   audit           .venv-audit with pip-audit and nothing of ours            (locks/audit.lock)
#
# Safe to run twice, and two at once: when nothing has changed it ends at once.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
script_name=setup
. scripts/lib/say.sh
. scripts/lib/python.sh

group="${1:-demo}"
case "$group" in
    demo | test) venv=.venv pythons="python3 python3.13 python3.12 python3.11" versions="11 12 13" in_words="3.11 to 3.13" ;;
    tflite-runtime) venv=.venv-tflite-runtime pythons="python3.11 python3" versions="11" in_words="3.11" ;;
    audit) venv=.venv-audit pythons="python3 python3.13 python3.12 python3.11" versions="11 12 13" in_words="3.11 to 3.13" ;;
    *) die "no set-up named '$group': expected demo, test, tflite-runtime or audit" ;;
esac
lock=locks/$group.lock
log=$venv/setup.log
stamp=$venv/setup.stamp

# What is installed follows from these files and nothing else.
wanted="$group $(cat locks/build.lock "$lock" pyproject.toml | sha256sum | cut -d' ' -f1)"
is_done() { [ -x "$venv/bin/python" ] && grep -qxF "$wanted" "$stamp" 2>/dev/null; }

make_venv() {
    local python
    if "$venv/bin/python" -c 'import pip, sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 13))' 2>/dev/null; then
        return
    fi
    # shellcheck disable=SC2086 # a list of commands
    python="$(find_python "$versions" $pythons)"
    [ -n "$python" ] || die "$(explain_no_python "$versions" "$in_words")"
    say "1/3 making $venv with $("$python" --version)"
    "$python" -m venv --clear "$venv" || die "could not make $venv with $python"
}

# Run pip, count the packages it gets on to, and turn its failure into one sentence.
pip_install() { # pip_install <how many packages> <pip options…>
    local total=$1
    shift
    "$venv/bin/python" -m pip install --disable-pip-version-check --no-input --progress-bar off \
        "$@" 2>&1 | tee -a "$log" | show_progress "$total" || explain_pip_failure
}

show_progress() { # show_progress <total>; reads pip's output
    local total=$1 seen=0 line
    while IFS= read -r line; do
        case "$line" in
            Collecting* | Requirement\ already*)
                seen=$((seen + 1))
                if [ -t 2 ]; then
                    printf '\r%s:     %d of %d packages' "$script_name" "$seen" "$total" >&2
                elif [ $((seen % 25)) -eq 0 ]; then
                    say "    $seen of $total packages"
                fi
                ;;
            Installing\ collected*)
                [ ! -t 2 ] || printf '\n' >&2
                say "    unpacking"
                ;;
        esac
    done
}

explain_pip_failure() {
    if grep -qiE 'name resolution|NewConnectionError|Max retries|ConnectTimeout|Network is unreachable|ProxyError' "$log"; then
        die "pip cannot reach its package index: check the network or pip's settings (all it said is in $log)"
    fi
    die "pip failed: $(grep -E '^ *(ERROR|error)' "$log" | tail -n 1) (all it said is in $log)"
}

install() {
    local count
    : >"$log"
    count="$(grep -c '^[a-z0-9]' "$lock")"
    say "2/3 installing $count locked packages into $venv (about a minute the first time)"
    pip_install 8 --require-hashes --only-binary :all: --quiet --requirement locks/build.lock
    pip_install "$count" --require-hashes --use-pep517 --no-build-isolation --requirement "$lock"
    [ "$group" != audit ] || return 0
    say "3/3 installing shoal itself, editable"
    pip_install 1 --no-deps --no-build-isolation --quiet --editable .
}

if is_done; then exit 0; fi
exec 9<pyproject.toml
flock --timeout 900 9 || die "another set-up has been running for 15 minutes"
if is_done; then exit 0; fi
started=$SECONDS
make_venv
install
# A test environment holds all that the demo needs: both lines are then true of it.
{
    echo "$wanted"
    [ "$group" != test ] || echo "demo $(cat locks/build.lock locks/demo.lock pyproject.toml | sha256sum | cut -d' ' -f1)"
} >"$stamp"
say "$venv is ready after $((SECONDS - started)) s"
