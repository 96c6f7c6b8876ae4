# Sourced: finding a Python that can run this project.

# Print the path of the first of the given commands that runs, is one of the versions wanted
# ("11 12 13" means 3.11 to 3.13) and can make virtual environments. Prints nothing if there is
# none; a name on PATH alone proves nothing, it may be a launcher for a version that is absent.
find_python() { # find_python "<minor versions>" <command…>
    local versions=$1 candidate minor
    shift
    for candidate in "$@"; do
        minor="$("$candidate" -c 'import sys; print(sys.version_info[1] * (sys.version_info[0] == 3))' 2>/dev/null || true)"
        case " $versions " in
            *" ${minor:-none} "*)
                if "$candidate" -c 'import ensurepip, venv' 2>/dev/null; then
                    command -v "$candidate"
                    return
                fi
                ;;
        esac
    done
}

# Why find_python printed nothing, as a sentence.
explain_no_python() { # explain_no_python "<minor versions>" "<versions in words>"
    if ! command -v python3 >/dev/null; then
        echo "no Python $2 found: apt-get install python3 python3-venv"
    elif python3 -c 'import sys; sys.exit(str(sys.version_info[1]) not in sys.argv[1].split())' "$1"; then
        echo "$(python3 --version) has no venv module: apt-get install python3-venv brings it"
    else
        echo "no Python $2 found, python3 is $(python3 --version)"
    fi
}
