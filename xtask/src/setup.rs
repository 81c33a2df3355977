//! What a bare machine lacks. Debian's packages only; elsewhere the missing
//! programs are named, so that they can be installed by hand.

use std::path::Path;
use std::process::Command;

/// A program and the Debian package that brings it.
struct Needed {
    program: &'static str,
    package: &'static str,
}

const BUILD: &[Needed] = &[Needed { program: "cc", package: "gcc" }];

/// Peers, clients and observers that the tests and benchmarks call.
const PEERS: &[Needed] = &[
    Needed { program: "cc", package: "gcc" },
    Needed { program: "ip", package: "iproute2" },
    Needed { program: "nft", package: "nftables" },
    Needed { program: "tcpdump", package: "tcpdump" },
    Needed { program: "curl", package: "curl" },
    Needed { program: "python3", package: "python3" },
    Needed { program: "openssl", package: "openssl" },
    Needed { program: "gpg", package: "gnupg" },
    Needed { program: "dpkg-deb", package: "dpkg" },
    Needed { program: "xz", package: "xz-utils" },
    Needed { program: "apt-ftparchive", package: "apt-utils" },
    Needed { program: "skopeo", package: "skopeo" },
    Needed { program: "umoci", package: "umoci" },
    Needed { program: "buildah", package: "buildah" },
    Needed { program: "podman", package: "podman" },
    Needed { program: "conmon", package: "conmon" },
    Needed { program: "containerd", package: "containerd" },
    Needed { program: "dockerd", package: "docker.io" },
    Needed { program: "docker", package: "docker.io" },
    Needed { program: "runc", package: "runc" },
    Needed { program: "crun", package: "crun" },
    Needed { program: "containerd", package: "containerd" },
    Needed { program: "nginx", package: "nginx-light" },
    Needed { program: "wrk", package: "wrk" },
    Needed { program: "chromium", package: "chromium" },
    Needed { program: "/bin/busybox", package: "busybox-static" },
    // The guest's kernel is no program: the test downloads and unpacks it, see
    // bin/carrack-runtime/tests/cgroup2.
    Needed { program: "qemu-system-x86_64", package: "qemu-system-x86" },
    Needed { program: "cpio", package: "cpio" },
];

/// What compiling needs.
pub(crate) fn build_tools() -> Result<(), String> {
    install(BUILD)
}

/// What the tests need.
pub(crate) fn test_peers() -> Result<(), String> {
    install(PEERS)
}

fn install(needed: &[Needed]) -> Result<(), String> {
    let missing: Vec<&Needed> = needed.iter().filter(|need| !found(need.program)).collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !found("apt-get") {
        let programs: Vec<_> = missing.iter().map(|need| need.program).collect();
        return Err(format!(
            "install these programs by hand, then try again: {}",
            programs.join(", ")
        ));
    }
    crate::run(Command::new("apt-get").args(["update", "-qq"]))?;
    crate::run(
        Command::new("apt-get")
            .env("DEBIAN_FRONTEND", "noninteractive")
            .args(["install", "-y", "-qq", "--no-install-recommends"])
            .args(missing.iter().map(|need| need.package)),
    )
}

fn found(program: &str) -> bool {
    if program.starts_with('/') {
        return Path::new(program).exists();
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain(["/usr/sbin".into(), "/sbin".into()])
        .any(|directory| directory.join(program).is_file())
}
