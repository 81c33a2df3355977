//! Labels of the next program: AppArmor profiles and SELinux contexts.
//!
//! A label is written to a file of `/proc` by the very process that is to carry it. What a
//! container shows as `/proc` may be anything (CVE-2019-19921, CVE-2025-52881), so the file is
//! opened from the host's, before the root is changed, by [`crate::procfs`].

use std::io;
use std::os::fd::OwnedFd;

use crate::procfs::Proc;

/// A system of labels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum System {
    /// Profiles.
    AppArmor,
    /// Contexts.
    Selinux,
}

impl System {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::AppArmor => "AppArmor",
            Self::Selinux => "SELinux",
        }
    }

    /// Whether the running kernel enforces it.
    pub fn is_enabled(self) -> bool {
        match self {
            Self::AppArmor => std::fs::read("/sys/module/apparmor/parameters/enabled")
                .is_ok_and(|answer| answer.starts_with(b"Y")),
            Self::Selinux => std::fs::exists("/sys/fs/selinux/enforce").unwrap_or(false),
        }
    }
}

/// Where the calling thread's next program gets its label from.
#[derive(Debug)]
pub struct ExecLabel {
    system: System,
    file: OwnedFd,
}

impl ExecLabel {
    /// Opens the place, from a `/proc` that the caller trusts.
    ///
    /// # Errors
    ///
    /// `NotFound` when the kernel has no such labels; `InvalidData` when it is no `/proc`.
    pub fn open(system: System) -> io::Result<Self> {
        let paths: &[&str] = match system {
            // The second is where kernels before 5.8 have it.
            System::AppArmor => &["thread-self/attr/apparmor/exec", "thread-self/attr/exec"],
            System::Selinux => &["thread-self/attr/exec"],
        };
        let proc = Proc::mounted()?;
        let missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        let opened = paths
            .iter()
            .map(|path| proc.writable(path))
            .find(|answer| !matches!(answer, Err(error) if missing(error)));
        Ok(Self { system, file: opened.unwrap_or(Err(io::ErrorKind::NotFound.into()))? })
    }

    /// Makes the next program of this thread carry `label`.
    ///
    /// # Errors
    ///
    /// `ENOENT` for a profile that is not loaded; `EINVAL` for no valid context.
    pub fn write(&self, label: &str) -> io::Result<()> {
        let text = match self.system {
            System::AppArmor => format!("exec {label}"),
            System::Selinux => label.to_owned(),
        };
        rustix::io::write(&self.file, text.as_bytes())?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_place_of_a_label_is_the_kernels_own() {
        match ExecLabel::open(System::Selinux) {
            Ok(label) => assert!(System::Selinux.is_enabled() || label.write("x").is_err()),
            Err(error) => {
                eprintln!("skipped: this kernel has no labels ({error})");
            }
        }
    }
}
