//! One value to write into one file of a group, and what may be done when that fails.

use std::io;
use std::path::Path;

use super::{CgroupError, read_file, write_file};

/// One value to write into one file of a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Setting {
    /// The controller the file belongs to.
    pub(super) controller: &'static str,
    pub(super) file: String,
    pub(super) value: String,
    /// What to write where a kernel has another file for the same.
    pub(super) instead: Option<(String, String)>,
    pub(super) rule: Rule,
}

/// What to do when the kernel refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Rule {
    /// Say so.
    Must,
    /// Go on when there is no such file: what is asked for holds without.
    IfThere,
    /// Try once more behind the others: values depend on each other, and the order that
    /// works depends on what held before.
    Again,
}

impl Setting {
    pub(super) fn new(
        controller: &'static str,
        file: impl Into<String>,
        value: impl ToString,
    ) -> Self {
        let (file, value) = (file.into(), value.to_string());
        Self { controller, file, value, instead: None, rule: Rule::Must }
    }

    pub(super) fn or(mut self, file: impl Into<String>, value: impl ToString) -> Self {
        self.instead = Some((file.into(), value.to_string()));
        self
    }

    pub(super) fn rule(mut self, rule: Rule) -> Self {
        self.rule = rule;
        self
    }

    /// Writes it into the group at `directory`; `false` when it is to be tried again.
    pub(super) fn write(&self, directory: &Path, last: bool) -> Result<bool, CgroupError> {
        let first = write_file(&directory.join(&self.file), &self.value);
        let written = match (&self.instead, first) {
            (Some((file, value)), Err(error)) if is(&error, libc::ENOENT) => {
                write_file(&directory.join(file), value)
            }
            (_, first) => first,
        };
        match written {
            Ok(()) => Ok(true),
            Err(error) if self.rule == Rule::IfThere && is(&error, libc::ENOENT) => Ok(true),
            Err(error) if self.rule == Rule::Again && !last && is(&error, libc::EINVAL) => {
                Ok(false)
            }
            Err(error) => Err(self.explain(error, directory)),
        }
    }

    /// What the kernel's short answer means here.
    fn explain(&self, error: CgroupError, directory: &Path) -> CgroupError {
        let in_use = |file: &str| {
            let text = read_file(&directory.join(file)).unwrap_or_default();
            text.trim().parse().unwrap_or(0)
        };
        if is(&error, libc::EBUSY) && self.file == "memory.limit_in_bytes" {
            return CgroupError::InUse {
                limit: self.value.clone(),
                used: in_use("memory.usage_in_bytes"),
                peak: in_use("memory.max_usage_in_bytes"),
            };
        }
        if !is(&error, libc::ENOENT) {
            return error;
        }
        match missing_controller(directory, self.controller_name()) {
            Some(missing) => missing,
            None => error,
        }
    }

    /// Settings given by file name belong to what stands before the first dot.
    fn controller_name(&self) -> &str {
        match self.controller {
            "" => self.file.split('.').next().unwrap_or_default(),
            controller => controller,
        }
    }
}

fn is(error: &CgroupError, code: i32) -> bool {
    let (CgroupError::Write { source, .. } | CgroupError::Open { source, .. }) = error else {
        return false;
    };
    source.raw_os_error() == Some(code)
        || (code == libc::ENOENT && source.kind() == io::ErrorKind::NotFound)
}

/// The reason why a version 2 group lacks a controller: the group above that has it and
/// does not hand it down, or that there is none.
fn missing_controller(directory: &Path, controller: &str) -> Option<CgroupError> {
    let has = |directory: &Path, file: &str| {
        let listed = read_file(&directory.join(file)).ok()?;
        Some(listed.split_ascii_whitespace().any(|name| name == controller))
    };
    if has(directory, "cgroup.controllers")? {
        return None;
    }
    let mut above = directory.parent()?;
    loop {
        match has(above, "cgroup.controllers") {
            Some(true) => {
                return Some(CgroupError::NotHandedDown {
                    controller: controller.to_owned(),
                    path: above.to_owned(),
                });
            }
            Some(false) => above = above.parent()?,
            None => {
                return Some(CgroupError::Unsupported {
                    what: format!("controller {controller}"),
                    remedy: "remove the limit, or enable the controller on the kernel's command line",
                });
            }
        }
    }
}
