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

install_packages() {
    local root=()
    command -v apt-get >/dev/null || die "$* missing, and no apt-get here: install with your system's packages"
    if [ "$(id -u)" -ne 0 ]; then
        command -v sudo >/dev/null || die "$* missing: as root, run apt-get install $*"
        root=(sudo)
    fi
    say "installing Debian packages: $*"
    "${root[@]}" apt-get update -qq ||
        die "apt-get update failed: check the network, or install $* by hand"
    "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends "$@" >/dev/null ||
        die "apt-get could not install $*: install them by hand"
}
