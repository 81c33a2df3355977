//! buildah, as Debian ships it, with `--runtime`: its steps run through our runtime.

use std::process::ExitCode;

use carrack_judges::{Caller, missing, runtime, write_layer};
use carrack_testkit::Journey;

fn main() -> ExitCode {
    if missing(&["buildah", "busybox"]) {
        return ExitCode::SUCCESS;
    }
    let directory = tempfile::tempdir().expect("a directory");
    let place = |name: &str| directory.path().join(name).display().to_string();
    let (root, run) = (place("root"), place("run"));
    let arguments = ["--root", &root, "--runroot", &run, "--storage-driver", "vfs"];
    let buildah = Caller::new("buildah", &arguments);
    let runtime = runtime().display().to_string();
    let options = "--network none";
    let step = format!("run --isolation oci --runtime {runtime} {options} work --");
    let mut journey = Journey::default();
    journey.required("buildah runs a step", || {
        let layer = write_layer(directory.path());
        buildah
            .run("from --name work --ulimit nofile=20000:20000 --ulimit nproc=1000:1000 scratch")
            .expect_ok();
        buildah.run(&format!("add work {} /", layer.display())).expect_ok();
        assert_eq!(buildah.script(&step, "echo made > /made; cat /made").expect_ok(), "made\n");
    });
    journey.step("buildah ends with the step's code", || {
        let said = buildah.script(&step, "exit 7");
        assert_eq!(said.code, 7, "{said:?}");
    });
    journey.step("buildah keeps what a step wrote", || {
        buildah.run("commit --quiet work made").expect_ok();
        assert_eq!(buildah.script(&step, "cat /made").expect_ok(), "made\n");
    });
    buildah.run("rm --all");
    journey.end()
}
