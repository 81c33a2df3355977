use carrack_linux::seccomp::{Action, Architecture, Comparison, Condition, Filter, Profile, Rule};
use carrack_oci::runtime as oci;

use super::Problems;
use crate::error::SpecError;

/// The configuration's profile, compiled.
pub(super) fn compile(
    seccomp: &oci::LinuxSeccomp,
    problems: &mut Problems,
) -> Result<Option<Filter>, SpecError> {
    let default_errno = seccomp.default_errno_ret;
    let profile = Profile {
        default: action(seccomp.default_action, default_errno, problems),
        architectures: seccomp
            .architectures
            .iter()
            .filter_map(|&arch| architecture(arch))
            .collect(),
        rules: seccomp
            .syscalls
            .iter()
            .map(|call| Rule {
                names: call.names.clone(),
                action: action(call.action, call.errno_ret, problems),
                conditions: call.args.iter().map(|arg| condition(arg, problems)).collect(),
            })
            .collect(),
        log: has_flag(seccomp, oci::LinuxSeccompFlag::Log),
        allow_speculation: has_flag(seccomp, oci::LinuxSeccompFlag::SpeculationAllow),
        wait_killable: has_flag(seccomp, oci::LinuxSeccompFlag::WaitKillableReceive),
    };
    check_listener(seccomp, &profile, problems);
    profile.compile().map(Some).map_err(SpecError::Seccomp)
}

/// Calls that hand the listener over; they are made before anybody listens.
const HANDING_OVER: [&str; 3] = ["recvmsg", "sendmsg", "write"];

/// What is left to a listener needs one, which must be reachable without an answer of its own.
fn check_listener(seccomp: &oci::LinuxSeccomp, profile: &Profile, problems: &mut Problems) {
    let path = &seccomp.listener_path;
    let has_path = !path.as_os_str().is_empty();
    if profile.notifies() && !has_path {
        let message = "is missing, and SCMP_ACT_NOTIFY needs somebody who listens";
        problems.add("linux.seccomp.listenerPath", message);
    }
    if has_path && !path.is_absolute() {
        problems.add("linux.seccomp.listenerPath", format!("{} is not absolute", path.display()));
    }
    if has_path && !profile.notifies() {
        problems.warn("linux.seccomp.listenerPath", "no rule has SCMP_ACT_NOTIFY; nobody is told");
    }
    if profile.default == Action::Notify {
        problems.add("linux.seccomp.defaultAction", "cannot be SCMP_ACT_NOTIFY; name the calls");
    }
    for rule in profile.rules.iter().filter(|rule| rule.action == Action::Notify) {
        if let Some(name) = rule.names.iter().find(|name| HANDING_OVER.contains(&name.as_str())) {
            let message = format!(
                "SCMP_ACT_NOTIFY cannot be used for {name}, with which the listener is handed over"
            );
            problems.add("linux.seccomp.syscalls", message);
        }
    }
}

fn has_flag(seccomp: &oci::LinuxSeccomp, flag: oci::LinuxSeccompFlag) -> bool {
    seccomp.flags.contains(&flag)
}

fn action(action: oci::LinuxSeccompAction, errno: Option<u32>, problems: &mut Problems) -> Action {
    use oci::LinuxSeccompAction as Oci;
    const EPERM: u16 = 1;
    let number = match errno.map(u16::try_from) {
        None => EPERM,
        Some(Ok(number)) if number <= 4095 => number,
        Some(_) => {
            problems.add("linux.seccomp", "errnoRet is more than 4095, which no error number is");
            EPERM
        }
    };
    match action {
        Oci::Kill | Oci::KillThread => Action::KillThread,
        Oci::KillProcess => Action::KillProcess,
        Oci::Trap => Action::Trap,
        Oci::Errno => Action::Errno(number),
        Oci::Trace => Action::Trace(number),
        Oci::Log => Action::Log,
        Oci::Allow => Action::Allow,
        Oci::Notify => Action::Notify,
    }
}

/// Architectures this machine cannot run are left out: nothing can make calls of them.
fn architecture(architecture: oci::Arch) -> Option<Architecture> {
    match (architecture, Architecture::NATIVE) {
        (oci::Arch::X86_64, Architecture::X86_64) => Some(Architecture::X86_64),
        (oci::Arch::X86, Architecture::X86_64) => Some(Architecture::X86),
        (oci::Arch::Aarch64, Architecture::Aarch64) => Some(Architecture::Aarch64),
        _ => None,
    }
}

fn condition(argument: &oci::LinuxSeccompArg, problems: &mut Problems) -> Condition {
    use oci::LinuxSeccompOperator as Oci;
    let (comparison, value) = match argument.op {
        Oci::NotEqual => (Comparison::NotEqual, argument.value),
        Oci::Less => (Comparison::Less, argument.value),
        Oci::LessOrEqual => (Comparison::LessOrEqual, argument.value),
        Oci::Equal => (Comparison::Equal, argument.value),
        Oci::GreaterOrEqual => (Comparison::GreaterOrEqual, argument.value),
        Oci::Greater => (Comparison::Greater, argument.value),
        // Here the first value is the mask and the second what must come out.
        Oci::MaskedEqual => (Comparison::MaskedEqual(argument.value), argument.value_two),
    };
    let index = u8::try_from(argument.index).unwrap_or(u8::MAX);
    if index > 5 {
        problems.add(
            "linux.seccomp.syscalls",
            format!("argument {index} does not exist; they are numbered 0 to 5"),
        );
        return Condition { argument: 0, comparison, value };
    }
    Condition { argument: index, comparison, value }
}
