//! The kernel, typed: what every other crate asks of Linux goes through here.
//!
//! This is the one crate where `unsafe` lives. Each block performs one unsafe act
//! and names the contract it meets.
#![expect(
    unsafe_code,
    reason = "system calls that rustix does not wrap are made here and nowhere else"
)]

pub mod capability;
pub mod cgroup;
pub mod copy;
pub mod dbus;
pub mod fs;
pub mod host;
pub mod label;
pub mod memory;
pub mod mount;
pub mod namespace;
pub mod netlink;
pub mod nft;
pub mod process;
pub mod procfs;
pub mod rooted;
pub mod schedule;
pub mod seal;
pub mod seccomp;
pub mod session;
pub mod socket;
pub mod trusted;
