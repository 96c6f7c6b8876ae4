# Sourced: how every script speaks. Steps go to standard error, so that output can be piped.

say() { printf '%s: %s\n' "$script_name" "$*" >&2; }

# One clear sentence, and out.
die() {
    say "$*"
    exit 1
}
