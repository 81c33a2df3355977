#!/bin/busybox sh
# Process 1 of the guest. Runs each case and says its verdict on the console, in one line:
#   @@ ok CASE
#   @@ not ok CASE: what was seen
#   @@ skip CASE: why
# and `@@ end` behind the last. Only the OCI command line is used, so that a peer can be asked too.

if [ "$1" != cases ]; then
    # A root file system that came as an archive cannot be pivoted away from.
    /bin/busybox --install -s /bin
    mkdir /new && mount -t tmpfs root /new
    cp -a /init /bin /guest /bundle /new/
    for directory in /lib /lib64 /usr; do [ -e $directory ] && cp -a $directory /new/; done
    exec switch_root /new /init cases
fi

export PATH=/bin
mkdir -p /proc /sys /dev /run /tmp /out
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t cgroup2 -o nsdelegate cgroup2 /sys/fs/cgroup
insmod /guest/loop.ko max_loop=4
[ -e /guest/overlay.ko ] && insmod /guest/overlay.ko
exec </dev/null >/dev/console 2>&1
for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
    echo "+$controller" > /sys/fs/cgroup/cgroup.subtree_control
done
echo "@@ note kernel $(uname -r), controllers $(cat /sys/fs/cgroup/cgroup.controllers)"

RUNTIME=$(cat /guest/runtime)
. /guest/say.sh

runtime() { $RUNTIME --root /run/states "$@"; }
said() { tr '\n' ' ' < /out/$NAME.said; tail -n 3 /out/$NAME | tr '\n' ' '; }

# Creates the container of this bundle; its output is in /out/NAME.
create() {
    NAME=$1
    G=/sys/fs/cgroup/cases/$NAME
    runtime create --bundle /bundle/$NAME $NAME > /out/$NAME 2> /out/$NAME.said
}
up() {
    create $1 && runtime start $1 2>> /out/$1.said && return 0
    bad $1 "it did not start: $(said)"
    runtime delete --force $1 2>/dev/null
    return 1
}
down() { runtime delete --force $NAME > /dev/null 2>> /out/$NAME.said || bad $NAME-delete "$(said)"; }

limits() {
    up limits || return
    equal memory.max "$(value memory.max)" 33554432
    if [ -e $G/memory.swap.max ]; then
        equal memory.swap.max "$(value memory.swap.max)" 16777216
    else
        skip memory.swap.max "this kernel does not count swap"
    fi
    equal memory.low "$(value memory.low)" 16777216
    equal cpu.max "$(value cpu.max)" "50000 100000"
    # Shares of 2, 1024 and 262144 are weights of 1, 100 and 10000; older peers drew a line.
    weight=$(value cpu.weight)
    holds cpu.weight [ "$weight" = 59 -o "$weight" = 20 ]
    equal pids.max "$(value pids.max)" 20
    equal cpuset.cpus "$(value cpuset.cpus)" 1
    equal cpuset.mems "$(value cpuset.mems)" 0
    equal cpuset-holds "$(runtime exec limits grep Cpus_allowed_list /proc/self/status 2>&1 | tr -d '\t')" \
        Cpus_allowed_list:1
    equal unified-memory.high "$(value memory.high)" 30003200
    if [ -e $G/hugetlb.2MB.max ]; then
        equal hugetlb.2MB.max "$(value hugetlb.2MB.max)" 4194304
    else
        skip hugetlb.2MB.max "this processor has no such pages"
    fi
    echo '{"memory":{"limit":50331648,"swap":50331648},"cpu":{"quota":20000,"period":50000,"shares":1024},"pids":{"limit":30}}' > /tmp/update
    if runtime update --resources /tmp/update limits 2>> /out/limits.said; then
        equal update "$(value memory.max) $(value memory.swap.max) $(value cpu.max) $(value pids.max)" \
            "50331648 0 20000 50000 30"
    else
        bad update "$(said)"
    fi
    echo '{"cpu":{"period":25000}}' > /tmp/update
    runtime update --resources /tmp/update limits 2>> /out/limits.said || bad update-period "$(said)"
    equal update-keeps-the-quota "$(value cpu.max)" "20000 25000"
    echo '{"memory":{"swap":67108864},"cpu":{"quota":10000}}' > /tmp/update
    runtime update --resources /tmp/update limits 2>> /out/limits.said || bad update-swap "$(said)"
    equal update-keeps-the-period "$(value cpu.max)" "10000 25000"
    equal update-counts-swap-beside-memory "$(value memory.max) $(value memory.swap.max)" "50331648 16777216"
    echo '{"memory":{"limit":4096,"swap":8192,"checkBeforeUpdate":true}}' > /tmp/update
    if runtime update --resources /tmp/update limits 2>> /out/limits.said; then
        bad update-is-checked "it was taken"
    else
        equal update-is-checked "$(value memory.max)" 50331648
    fi
    echo '{"memory":{"limit":-1}}' > /tmp/update
    runtime update --resources /tmp/update limits 2>> /out/limits.said || bad update-unlimited "$(said)"
    equal update-unlimited "$(value memory.max) $(value memory.swap.max)" "max max"
    equal exec-joins "$(runtime exec limits cat /proc/self/cgroup 2>&1)" 0::/
    down
    holds delete-removes-group [ ! -e $G ]
}

unlimited() {
    up unlimited || return
    equal unlimited "$(value memory.max) $(value memory.swap.max) $(value pids.max) $(value cpu.max)" \
        "max max max max 100000"
    down
}

refused() {
    if create bad-cpuset; then
        bad refused-is-said "cpuset 77 was taken"; down
    else
        holds refused-is-said grep -q cpuset /out/bad-cpuset.said
        holds refused-leaves-no-group [ ! -e $G ]
    fi
    mkdir -p /sys/fs/cgroup/busy
    if create bad-unified; then
        bad unified-path-refused "a file outside of the group was taken"; down
    else
        ok unified-path-refused
    fi
    # A group with processes of its own cannot hand memory limits down.
    sleep 1000 & echo $! > /sys/fs/cgroup/busy/cgroup.procs
    if create busy-parent; then
        bad busy-parent-said "it was made without its limit"; down
    else
        holds busy-parent-said grep -q -e max -e controller /out/busy-parent.said
        holds busy-parent-cleaned [ ! -e /sys/fs/cgroup/busy/child ]
    fi
    kill -9 $!
    wait $! 2>/dev/null
    rmdir /sys/fs/cgroup/busy
}

namespace() {
    up namespace || return
    within 10 'grep -q done /out/namespace'
    equal cgroup-namespace "$(sed -n 1p /out/namespace)" 0::/
    equal own-group-is-seen "$(sed -n 2p /out/namespace)" 17
    equal group-is-read-only "$(sed -n 3p /out/namespace)" refused
    down
}

out_of_memory() {
    up oom || return
    within 20 'grep -q code /out/oom'
    holds memory-holds grep -q 'code 137' /out/oom
    holds oom-is-counted [ "$(counter memory.events oom_kill)" -ge 1 ]
    down
}

processor() {
    up spin || return
    within 10 '[ "$(counter cpu.stat nr_throttled)" -ge 3 ]'
    holds cpu-is-throttled [ "$(counter cpu.stat nr_throttled)" -ge 3 ]
    used=$(counter cpu.stat usage_usec); since=$(centiseconds)
    sleep 3
    used=$(($(counter cpu.stat usage_usec) - used)); since=$((($(centiseconds) - since) * 10000))
    # A tenth is allowed.
    holds cpu-holds [ $((used * 100 / since)) -le 20 ]
    down
}

fork_bomb() {
    up bomb || return
    within 15 '[ "$(counter pids.events max)" -ge 8 ]'
    holds fork-bomb-is-refused [ "$(counter pids.events max)" -ge 8 ]
    holds fork-bomb-is-bounded [ "$(value pids.current)" -le 12 ]
    runtime kill --all bomb KILL 2>> /out/bomb.said || bad fork-bomb-kill "$(said)"
    holds fork-bomb-is-killed within 10 '[ "$(counter cgroup.events populated)" = 0 ]'
    down
    holds fork-bomb-is-deleted [ ! -e $G ]
}

devices() {
    up devices || return
    within 10 'grep -q done /out/devices'
    for line in "loop0-read ok" "loop0-write ok" "loop1-read ok" "loop1-write refused" \
        "loop2-read refused" "ttyS1 ok" "ttyS2 refused" "null ok" "zero ok" "tty-made ok" \
        "tty-opened refused"; do
        equal device-${line% *} "$(grep "^${line% *} " /out/devices)" "$line"
    done
    echo '{"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"b","major":7,"minor":2,"access":"r"}]}' > /tmp/update
    if runtime update --resources /tmp/update devices 2>> /out/devices.said; then
        equal device-update "$(runtime exec devices sh -c '
            (: < /dev/loop2) 2>/dev/null && echo loop2; (: < /dev/loop0) 2>/dev/null && echo loop0;
            (: < /dev/null) && echo null' | tr '\n' ' ')" "loop2 null "
    else
        bad device-update "$(said)"
    fi
    down
}

block_io() {
    if [ ! -b /dev/loop0 ]; then skip io.max "no block device"; return; fi
    dd if=/dev/zero of=/disk bs=1M count=8 2>/dev/null
    losetup /dev/loop0 /disk
    up io || { losetup -d /dev/loop0; return; }
    equal io.max "$(value io.max)" "7:0 rbps=max wbps=1048576 riops=max wiops=500"
    within 30 'grep -q took /out/io'
    took=$(grep took /out/io | cut -d' ' -f2)
    # Three megabytes at one a second.
    holds io-holds [ "$took" -ge 180 ]
    down
    losetup -d /dev/loop0
    mkdir -p /sys/fs/cgroup/cases/probe
    if [ -e /sys/fs/cgroup/cases/probe/io.weight ]; then
        up io-weight || return
        equal io.weight "$(sed -n 1p $G/io.weight)" "default 4950"
        down
    elif [ -e /sys/fs/cgroup/cases/probe/io.bfq.weight ]; then
        skip io.weight "this kernel has only BFQ's"
    else
        skip io.weight "this kernel has no io.weight"
    fi
    rmdir /sys/fs/cgroup/cases/probe
}

freezing() {
    up freeze || return
    within 5 '[ "$(counter cpu.stat usage_usec)" -gt 100000 ]'
    runtime pause freeze 2>> /out/freeze.said || bad pause "$(said)"
    equal pause "$(status) $(counter cgroup.events frozen)" "paused 1"
    before=$(counter cpu.stat usage_usec); sleep 1
    holds pause-holds [ $(($(counter cpu.stat usage_usec) - before)) -le 20000 ]
    runtime resume freeze 2>> /out/freeze.said || bad resume "$(said)"
    equal resume "$(status) $(counter cgroup.events frozen)" "running 0"
    before=$(counter cpu.stat usage_usec)
    holds resume-holds within 5 '[ $(($(counter cpu.stat usage_usec) - before)) -ge 100000 ]'
    runtime pause freeze
    runtime kill freeze KILL 2>> /out/freeze.said
    holds kill-while-paused within 5 '[ "$(counter cgroup.events populated)" = 0 ]'
    down
    up freeze || return
    runtime pause freeze
    down
    holds delete-while-paused [ ! -e $G ]
}

kill_all() {
    up kill-all || return
    within 5 '[ "$(wc -l < $G/cgroup.procs)" -ge 4 ]'
    runtime kill --all kill-all TERM 2>> /out/kill-all.said || bad kill-all-term "$(said)"
    holds kill-all-term within 5 '[ "$(wc -l < $G/cgroup.procs)" = 1 ]'
    runtime kill --all kill-all KILL 2>> /out/kill-all.said || bad kill-all "$(said)"
    holds kill-all within 5 '[ "$(counter cgroup.events populated)" = 0 ]'
    equal stopped "$(status)" stopped
    runtime delete kill-all 2>> /out/kill-all.said || bad kill-all-delete "$(said)"
    holds kill-all-removes-group [ ! -e $G ]
}

# A container that makes groups of its own, as systemd and containers in containers do.
nested() {
    up $1 || return
    within 10 'grep -q done /out/$NAME'
    equal $1-groups "$(tr '\n' ' ' < /out/$1)" "made moved handed-down kept done "
    runtime exec $1 cat /proc/self/cgroup > /tmp/exec 2>&1
    equal $1-exec "$(cat /tmp/exec)" 0::/inner
    runtime pause $1 2>> /out/$1.said; equal $1-pause "$(status)" paused
    runtime resume $1 2>> /out/$1.said; equal $1-resume "$(status)" running
    down
    holds $1-is-removed [ ! -e $G ]
}

user() {
    up user || return
    within 10 'grep -q done /out/user'
    equal user-namespace "$(tr '\n' ' ' < /out/user)" "0::/ 17 done "
    down
}

shim() {
    if [ ! -e /guest/tests ]; then skip shim "only for our own runtime"; return; fi
    if /guest/tests --exact --ignored --nocapture inside::a_shim_says_that_memory_ran_out \
        > /out/shim 2>&1; then
        ok shim-reports-oom
    else
        bad shim-reports-oom "$(grep -v '^$' /out/shim | tr '\n' ' ')"
    fi
}

for case in limits unlimited refused namespace out_of_memory processor fork_bomb devices block_io \
    freezing kill_all "nested nested" "nested nested-user" user shim; do
    $case
done
equal nothing-left "$(ls -d /sys/fs/cgroup/cases/*/ 2>/dev/null | tr '\n' ' ')" ""
echo "@@ end"
poweroff -f
