#!/bin/busybox sh
# Leads to systemd as process 1 of the guest, which starts this again for the cases. Verdicts
# are as in guest.sh.

if [ "$1" != cases ]; then
    /bin/busybox --install -s /bin
    mkdir /new && mount -t tmpfs root /new
    for directory in /init /bin /guest /bundle /lib /lib64 /usr /etc; do
        [ -e $directory ] && cp -a $directory /new/
    done
    mkdir -p /new/proc /new/sys /new/dev /new/run /new/tmp /new/out /new/var
    exec switch_root /new /usr/lib/systemd/systemd
fi

export PATH=/bin:/usr/bin
exec </dev/null >/dev/console 2>&1
. /guest/say.sh
echo "@@ note $(systemctl --version | head -n 1), kernel $(uname -r)"

runtime() { /guest/carrack-runtime --root /run/states --systemd-cgroup "$@"; }
said() { tr '\n' ' ' < /out/$NAME.said; tail -n 3 /out/$NAME | tr '\n' ' '; }
create() {
    NAME=$1
    runtime create --bundle /bundle/$NAME $NAME > /out/$NAME 2> /out/$NAME.said
}
up() {
    create $1 && runtime start $1 2>> /out/$1.said && return 0
    bad $1 "it did not start: $(said)"
    runtime delete --force $1 2>/dev/null
    return 1
}
down() { runtime delete --force $NAME > /dev/null 2>> /out/$NAME.said || bad $NAME-delete "$(said)"; }
show() { systemctl show -p $2 --value $1; }
known() { [ "$(show $1 LoadState)" = loaded ]; }

held() {
    equal $1-memory "$(show $U MemoryMax) $(value memory.max)" "$2 $2"
    equal $1-swap "$(show $U MemorySwapMax)" 0
    [ ! -e $G/memory.swap.max ] || equal $1-swap-file "$(value memory.swap.max)" 0
    equal $1-tasks "$(show $U TasksMax) $(value pids.max)" "$3 $3"
    equal $1-quota "$(show $U CPUQuotaPerSecUSec) $(value cpu.max)" "$4"
    equal $1-weight "$(show $U CPUWeight) $(value cpu.weight)" "$5 $5"
    equal $1-cpuset "$(show $U AllowedCPUs) $(value cpuset.cpus)" "1 1"
    equal $1-high "$(show $U MemoryHigh) $(value memory.high)" "30003200 30003200"
    equal $1-low "$(show $U MemoryLow) $(value memory.low)" "16777216 16777216"
    if [ $1 = started ] || [ "$(systemctl --version | sed -n '1s/systemd \([0-9]*\).*/\1/p')" -ge 253 ]; then
        equal $1-oom-group "$(value memory.oom.group)" 1
    else
        skip $1-oom-group "systemd before 253 has no word for it, and writes its own value"
    fi
    equal $1-devices "$(runtime exec limits sh -c '
        (: < /dev/zero) 2>/dev/null && echo zero; mknod /tmp/tty c 4 67;
        (: < /tmp/tty) 2>/dev/null && echo tty; rm /tmp/tty; echo done' 2>&1 | tr '\n' ' ')" "zero done "
}

# On version 1 a group is in several hierarchies; $V is all of them.
legacy() {
    V=/sys/fs/cgroup
    at() { cat $V/$1/cases.slice/cases-deep.slice/box-legacy.scope/$2 2>/dev/null || echo absent; }
    legacy_held() {
        equal $1-memory "$(show $U MemoryLimit) $(at memory memory.limit_in_bytes)" "$2 $2"
        equal $1-tasks "$(show $U TasksMax) $(at pids pids.max)" "$3 $3"
        equal $1-quota "$(show $U CPUQuotaPerSecUSec) $(at cpu cpu.cfs_quota_us)" "$4"
        equal $1-shares "$(show $U CPUShares) $(at cpu cpu.shares)" "512 512"
        equal $1-cpuset "$(at cpuset cpuset.cpus)" 1
        equal $1-devices "$(runtime exec legacy sh -c '
            (: < /dev/zero) 2>/dev/null && echo zero; mknod /tmp/tty c 4 67;
            (: < /tmp/tty) 2>/dev/null && echo tty; rm /tmp/tty; echo done' 2>&1 | tr '\n' ' ')" "zero done "
    }
    U=box-legacy.scope
    up legacy || return
    for hierarchy in memory pids cpu cpuset devices freezer systemd; do
        equal joined-$hierarchy "$(at $hierarchy cgroup.procs | wc -l)" 1
    done
    legacy_held started 33554432 20 "60ms 6000"
    systemctl daemon-reload
    legacy_held reloaded 33554432 20 "60ms 6000"
    echo '{"memory":{"limit":50331648},"cpu":{"quota":20000},"pids":{"limit":30},"devices":[{"allow":false,"access":"rwm"},{"allow":true,"type":"c","major":1,"minor":5,"access":"rwm"}]}' > /tmp/update
    runtime update --resources /tmp/update legacy 2>> /out/legacy.said || bad update "$(said)"
    systemctl daemon-reload
    legacy_held updated 50331648 30 "200ms 20000"
    runtime pause legacy 2>> /out/legacy.said || bad pause "$(said)"
    equal pause "$(at freezer freezer.state)" FROZEN
    runtime resume legacy 2>> /out/legacy.said || bad resume "$(said)"
    down
    if known $U; then bad delete-removes-the-unit "$(show $U ActiveState)"; else ok delete-removes-the-unit; fi
    equal delete-removes-the-groups "$(ls -d $V/*/cases.slice/cases-deep.slice/$U 2>/dev/null)" ""
}
if [ -d /sys/fs/cgroup/memory ]; then
    legacy
    echo "@@ end"
    poweroff -f
fi

U=box-limits.scope
G=/sys/fs/cgroup/cases.slice/cases-deep.slice/$U
if up limits; then
    holds scope-is-in-its-slice [ -d $G ]
    equal slice "$(show $U Slice) $(show $U ControlGroup)" "cases-deep.slice /cases.slice/cases-deep.slice/$U"
    equal delegated "$(show $U Delegate) $(show $U DefaultDependencies)" "yes no"
    equal described "$(show $U Description)" "carrack container limits"
    equal annotated "$(show $U TimeoutStopUSec)" 7s
    equal nobody-else-is-in-it "$(wc -l < $G/cgroup.procs)" 1
    held started 33554432 20 "60ms 6000 100000" 59
    systemctl daemon-reload
    held reloaded 33554432 20 "60ms 6000 100000" 59
    echo '{"memory":{"limit":50331648,"swap":50331648},"cpu":{"quota":20000,"shares":1024},"pids":{"limit":30}}' > /tmp/update
    runtime update --resources /tmp/update limits 2>> /out/limits.said || bad update "$(said)"
    systemctl daemon-reload
    held updated 50331648 30 "200ms 20000 100000" 100
    equal exec-joins "$(runtime exec limits cat /proc/self/cgroup 2>&1)" 0::/
    runtime pause limits 2>> /out/limits.said || bad pause "$(said)"
    equal pause "$(counter cgroup.events frozen)" 1
    systemctl daemon-reload
    runtime resume limits 2>> /out/limits.said || bad resume "$(said)"
    equal resume "$(counter cgroup.events frozen)" 0
    runtime kill --all limits KILL 2>> /out/limits.said || bad kill-all "$(said)"
    holds kill-all within 10 '[ ! -e $G ] || [ "$(counter cgroup.events populated)" = 0 ]'
    runtime delete limits 2>> /out/limits.said || bad delete "$(said)"
    holds delete-removes-the-group [ ! -e $G ]
    if known $U; then bad delete-removes-the-unit "$(show $U ActiveState)"; else ok delete-removes-the-unit; fi
fi

G=/sys/fs/cgroup/system.slice/carrack-plain.scope
if up plain; then
    equal without-a-path "$(value pids.max)" 9
    create plain; holds a-name-that-is-taken grep -q exists /out/plain.said
    equal the-first-is-left-alone "$(value pids.max)" 9
    down
    if known carrack-plain.scope; then bad force-removes-the-unit; else ok force-removes-the-unit; fi
fi

U=box-short.scope
if up short; then
    holds ends-by-itself within 10 '! known $U'
    runtime delete short 2>> /out/short.said || bad short-delete "$(said)"
    holds is-deleted-all-the-same [ ! -e /run/states/short ]
fi

for case in bad path annotation; do
    U=box-$case.scope
    if create $case; then bad $case "it was made"; down; continue; fi
    if known $U; then bad $case-leaves-no-unit "$(show $U ActiveState)"; else ok $case-leaves-no-unit; fi
    holds $case-leaves-no-group [ ! -e /sys/fs/cgroup/system.slice/$U ]
    holds $case-leaves-no-record [ ! -e /run/states/$case ]
done
holds a-bad-cpuset-is-named grep -q cpuset /out/bad.said
holds a-path-is-refused-with-its-form grep -q SLICE:PREFIX:NAME /out/path.said
holds a-property-is-named grep -q NoSuchProperty /out/annotation.said
equal nothing-failed "$(systemctl list-units --state=failed --no-legend --plain)" ""
echo "@@ end"
poweroff -f
