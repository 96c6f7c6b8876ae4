# Sourced (with say.sh): Debian packages that the tests need besides Python.

# Install the packages whose programs are missing, or end with one sentence.
need_programs() { # need_programs <program>=<package>…
    local pair program missing=()
    for pair in "$@"; do
        program=${pair%%=*}
        PATH="$PATH:/usr/sbin:/usr/local/sbin" command -v "$program" >/dev/null || missing+=("${pair#*=}")
    done
    if [ ${#missing[@]} -gt 0 ]; then install_packages "${missing[@]}"; fi
}

# Take programs out of a package without installing it, since that would start a service.
unpack_programs() { # unpack_programs <package> <program>…
    local folder="$PWD/.venv-tools" package=$1 program work missing=()
    shift
    for program in "$@"; do
        [ -x "$folder/$program" ] || command -v "$program" >/dev/null || missing+=("$program")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    command -v apt-get >/dev/null || die "${missing[*]} missing, and no apt-get here: put it on the path"
    say "unpacking ${missing[*]} from the Debian package $package"
    mkdir -p "$folder"
    work="$(mktemp -d "$folder/unpack-XXXXXX")"
    (cd "$work" && { apt-get -qq download "$package" || { update_lists && apt-get -qq download "$package"; }; }) 2>/dev/null ||
        die "apt-get could not download $package: check the network, or put ${missing[*]} on the path"
    dpkg-deb -x "$work"/*.deb "$work/files"
    for program in "${missing[@]}"; do mv "$work/files/usr/bin/$program" "$folder/"; done
    rm -rf "$work"
}

install_packages() {
    command -v apt-get >/dev/null || die "$* missing, and no apt-get here: install with your system's packages"
    say "installing Debian packages: $*"
    update_lists || die "apt-get update failed: check the network, or install $* by hand"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
        die "apt-get could not install $*: install them by hand"
}

update_lists() { as_root apt-get update -qq; }

as_root() {
    if [ "$(id -u)" -eq 0 ]; then "$@"; return; fi
    command -v sudo >/dev/null || die "not root, and no sudo here: as root, run $*"
    sudo "$@"
}
