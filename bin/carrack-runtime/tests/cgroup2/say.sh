# What the scripts of the guests share: verdicts, and looking into a group, $G.

ok() { echo "@@ ok $1"; }
bad() { echo "@@ not ok $1: $2"; }
skip() { echo "@@ skip $1: $2"; }

value() { cat "$G/$1" 2>/dev/null || echo absent; }
counter() { grep "^$2 " "$G/$1" 2>/dev/null | cut -d' ' -f2; }
status() { runtime state $NAME 2>/dev/null | grep '"status"' | cut -d'"' -f4; }
equal() { if [ "$2" = "$3" ]; then ok $1; else bad $1 "'$2', not '$3'"; fi; }
holds() { name=$1; shift; if "$@"; then ok $name; else bad $name "not so: $*"; fi; }
# within SECONDS CONDITION: the kernel has no event for most of these.
within() {
    rounds=$(($1 * 10)); shift
    while [ $rounds -gt 0 ]; do
        eval "$1" && return 0
        rounds=$((rounds - 1)); sleep 0.1
    done
    return 1
}
centiseconds() { cut -d' ' -f1 /proc/uptime | tr -d .; }
