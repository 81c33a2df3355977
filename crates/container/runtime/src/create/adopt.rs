//! A container whose processes somebody else makes: those of a checkpoint.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use carrack_linux::{mount, process, trusted};
use rustix::process::Pid;

use super::{Making, host};
use crate::error::CreateError;
use crate::state::RecordedProcess;
use crate::{AdoptRequest, Place, Runtime};

/// Where the root file system is shown while the processes are made.
const ROOT: &str = "criu-root";

pub(crate) fn adopt(
    runtime: &Runtime,
    request: AdoptRequest<'_>,
    bring: impl FnOnce(&Place) -> io::Result<i32>,
) -> Result<(Pid, OwnedFd), CreateError> {
    let (mut making, config) = Making::begin(runtime, request.id, request.bundle, None)?;
    let adopted = making.adopt(&config, request.pid_file, bring);
    making.or_undo(adopted)
}

impl Making {
    fn adopt(
        &mut self,
        config: &[u8],
        pid_file: Option<&Path>,
        bring: impl FnOnce(&Place) -> io::Result<i32>,
    ) -> Result<(Pid, OwnedFd), CreateError> {
        self.keep(config)?;
        self.home.make(&self.plan.limits)?;
        self.record.cgroup = self.home.group().path().to_owned();
        let root = self.show_root().map_err(host(format!(
            "showing the root file system {} as a mount",
            self.plan.rootfs.display()
        )))?;
        let place = Place { root: root.clone(), cgroup: self.home.group().path().to_owned() };
        let brought = bring(&place);
        // What was brought back has copied it; a mount that stays is harmless till then.
        mount::detach(&root).ok();
        self.directory.remove_directory(ROOT).ok();
        let ours = |source| host("bringing its processes back")(source);
        let gone = || ours(io::Error::other("the first one has ended already"));
        let pid = brought.map_err(ours)?;
        let pid = Pid::from_raw(pid).ok_or_else(gone)?;
        let pidfd = process::open(pid).map_err(ours)?;
        self.home.take_in(pid)?;
        let started = process::start_time(pid).ok_or_else(gone)?;
        self.record.process = Some(RecordedProcess { pid: pid.as_raw_nonzero().get(), started });
        self.record.write(&self.directory)?;
        if let Some(path) = pid_file {
            crate::write_pid_file(path, pid)
                .map_err(host(format!("writing {}", path.display())))?;
        }
        Ok((pid, pidfd))
    }

    fn show_root(&self) -> io::Result<PathBuf> {
        let path = self.directory.path().join(ROOT);
        self.directory.make_directory(ROOT, 0o700)?;
        let source = trusted::directory(&self.plan.rootfs)?;
        let tree = mount::clone_tree(source.as_fd(), true)?;
        mount::attach(tree.as_fd(), trusted::directory(&path)?.as_fd())?;
        Ok(path)
    }
}
