//! Networks, programs, room and limits.

use carrack_linux::host::Host;

use super::{Finding, Status};
use crate::output::units;

/// Less than this is little for images.
const LITTLE: u64 = 5 << 30;
/// With less than this nothing can be pulled.
const TOO_LITTLE: u64 = 200 << 20;

pub(super) fn findings(host: &Host) -> Vec<Finding> {
    vec![
        nftables(host),
        forwarding(host),
        memory_programs(host),
        bpf(host),
        kvm(host),
        criu(host),
        data(host),
        open_files(host),
        inotify(host),
    ]
}

fn setting<T: std::str::FromStr>(host: &Host, name: &str) -> Option<T> {
    host.settings.get(name)?.parse().ok()
}

fn nftables(host: &Host) -> Finding {
    // Carrack speaks to the kernel itself; the program is for people who look.
    let found = match host.programs.get("nft") {
        Some((path, _)) => format!("{} to look at rules", path.display()),
        None => "no nft to look at rules; Carrack itself needs none".to_owned(),
    };
    Finding::ok("nftables", found, "looking at the rules of networks")
}

fn forwarding(host: &Host) -> Finding {
    let on = setting::<u8>(host, "net/ipv4/ip_forward") == Some(1);
    let found = if on { "on" } else { "off" };
    Finding::ok("IPv4 forwarding", found, "containers that reach other machines").unless(
        on,
        Status::Warning,
        "sysctl -w net.ipv4.ip_forward=1 (networks turn it on where they may)",
    )
}

fn memory_programs(host: &Host) -> Finding {
    let mode = setting::<u8>(host, "vm/memfd_noexec").unwrap_or(0);
    Finding::ok(
        "programs in memory",
        if mode < 2 { "allowed" } else { "forbidden" },
        "the sealed runtime, and --init",
    )
    .unless(mode < 2, Status::Missing, "sysctl -w vm.memfd_noexec=0")
}

fn bpf(host: &Host) -> Finding {
    let there = host.files.get("/sys/fs/bpf").copied().unwrap_or(false);
    Finding::ok(
        "BPF",
        if there { "there" } else { "no /sys/fs/bpf" },
        "rules for devices on control groups version 2",
    )
    .unless(
        there || !host.unified,
        Status::Warning,
        "use a kernel with CONFIG_BPF_SYSCALL and CONFIG_CGROUP_BPF",
    )
}

fn kvm(host: &Host) -> Finding {
    let there = host.files.get("/dev/kvm").copied().unwrap_or(false);
    let found = if there { "there" } else { "not there" };
    Finding::ok("/dev/kvm", found, "containers that start virtual machines; optional")
}

fn criu(host: &Host) -> Finding {
    let found = match host.programs.get("criu") {
        Some((path, _)) => path.display().to_string(),
        None => "not installed".to_owned(),
    };
    Finding::ok("CRIU", found, "checkpoint and restore; optional")
}

fn data(host: &Host) -> Finding {
    let needed_for = "images, volumes and logs";
    let Some((kind, free)) = &host.data else {
        return Finding::ok("data directory", "cannot be looked at", needed_for)
            .but(Status::Missing, "make the directory that --root names");
    };
    let finding =
        Finding::ok("data directory", format!("{kind}, {} free", units::memory(*free)), needed_for);
    if *free < TOO_LITTLE {
        finding.but(Status::Missing, "free some space, or name another directory with --root")
    } else if matches!(kind.as_str(), "nfs" | "fuse" | "9p") {
        finding.but(
            Status::Missing,
            "overlays cannot write there: name a directory on a local disk with --root",
        )
    } else if matches!(kind.as_str(), "overlay") {
        finding.but(
            Status::Warning,
            "an overlay on an overlay may be refused: name a directory on a volume with --root",
        )
    } else if *free < LITTLE {
        finding.but(Status::Warning, "free some space: carrack rmi removes images")
    } else {
        finding
    }
}

fn open_files(host: &Host) -> Finding {
    let show = |limit: Option<u64>| limit.map_or("no limit".to_owned(), |limit| limit.to_string());
    let (soft, hard) = host.open_files;
    let enough = hard.is_none_or(|hard| hard >= 4096);
    Finding::ok(
        "open files",
        format!("{} soft, {} hard", show(soft), show(hard)),
        "the node proxy: one descriptor for each connection",
    )
    .unless(enough, Status::Warning, "raise it: LimitNOFILE= of the service, or ulimit -Hn")
}

fn inotify(host: &Host) -> Finding {
    let instances = setting::<u64>(host, "fs/inotify/max_user_instances").unwrap_or(0);
    let watches = setting::<u64>(host, "fs/inotify/max_user_watches").unwrap_or(0);
    Finding::ok(
        "inotify",
        format!("{instances} instances, {watches} watches"),
        "following logs, and programs that watch files",
    )
    .unless(
        instances >= 128 && watches >= 8192,
        Status::Warning,
        "sysctl -w fs.inotify.max_user_instances=512 fs.inotify.max_user_watches=524288",
    )
}
