use carrack_linux::schedule::{Numbers, Policy};
use carrack_oci::runtime as oci;

use super::Problems;

/// Processors for a program that joins a container.
#[derive(Debug, Default)]
pub(crate) struct Affinity {
    /// While it is born and joins the control group.
    pub(crate) initial: Option<Numbers>,
    /// From then on.
    pub(crate) last: Option<Numbers>,
}

pub(super) fn policy(scheduler: &oci::Scheduler, problems: &mut Problems) -> Policy {
    use oci::SchedulerPolicy as Oci;
    let field = "process.scheduler";
    let policy = match scheduler.policy {
        Oci::Other => 0,
        Oci::Fifo => 1,
        Oci::RoundRobin => 2,
        Oci::Batch => 3,
        Oci::Iso => {
            problems.add(field, "SCHED_ISO was never part of Linux; choose another policy");
            0
        }
        Oci::Idle => 5,
        Oci::Deadline => 6,
    };
    if !(-20..=19).contains(&scheduler.nice) {
        problems.add(field, format!("nice is {}, and has to be -20 to 19", scheduler.nice));
    }
    let real_time = matches!(scheduler.policy, Oci::Fifo | Oci::RoundRobin);
    if scheduler.priority != 0 && !real_time {
        problems.add(field, "priority has a meaning for SCHED_FIFO and SCHED_RR only");
    }
    let deadline = scheduler.policy == Oci::Deadline;
    if !deadline && (scheduler.runtime, scheduler.deadline, scheduler.period) != (0, 0, 0) {
        problems.add(field, "runtime, deadline and period have a meaning for SCHED_DEADLINE only");
    }
    Policy {
        policy,
        flags: scheduler.flags.iter().fold(0, |all, flag| all | flag_value(*flag)),
        nice: scheduler.nice,
        priority: u32::try_from(scheduler.priority).unwrap_or_else(|_| {
            problems.add(field, format!("priority {} is negative", scheduler.priority));
            0
        }),
        runtime: scheduler.runtime,
        deadline: scheduler.deadline,
        period: scheduler.period,
    }
}

fn flag_value(flag: oci::SchedulerFlag) -> u64 {
    use oci::SchedulerFlag as Oci;
    match flag {
        Oci::ResetOnFork => 0x01,
        Oci::Reclaim => 0x02,
        Oci::DeadlineOverrun => 0x04,
        Oci::KeepPolicy => 0x08,
        Oci::KeepParams => 0x10,
        Oci::UtilizationMin => 0x20,
        Oci::UtilizationMax => 0x40,
    }
}

pub(super) fn affinity(asked: Option<&oci::CpuAffinity>, problems: &mut Problems) -> Affinity {
    let Some(asked) = asked else { return Affinity::default() };
    let mut numbers = |text: &str, name: &str| {
        if text.is_empty() {
            return None;
        }
        let numbers = Numbers::parse(text).filter(|numbers| !numbers.is_empty());
        if numbers.is_none() {
            let message = format!("{text:?} is no list of processors, such as 0-2,7");
            problems.add(format!("process.execCPUAffinity.{name}"), message);
        }
        numbers
    };
    Affinity { initial: numbers(&asked.initial, "initial"), last: numbers(&asked.r#final, "final") }
}

/// The number of a memory policy with its flags, and its nodes.
pub(super) fn memory_policy(linux: &oci::Linux, problems: &mut Problems) -> Option<(i32, Numbers)> {
    use oci::{MemoryPolicyFlag as Flag, MemoryPolicyMode as Mode};
    let policy = linux.memory_policy.as_ref()?;
    let mode = match policy.mode {
        Mode::Default => 0,
        Mode::Preferred => 1,
        Mode::Bind => 2,
        Mode::Interleave => 3,
        Mode::Local => 4,
        Mode::PreferredMany => 5,
        Mode::WeightedInterleave => 6,
    };
    let flags = policy.flags.iter().fold(0, |all, flag| {
        all | match flag {
            Flag::StaticNodes => 1 << 15,
            Flag::RelativeNodes => 1 << 14,
            Flag::NumaBalancing => 1 << 13,
        }
    });
    let nodes = Numbers::parse(&policy.nodes).unwrap_or_else(|| {
        let message = format!("{:?} is no list of nodes, such as 0-1,3", policy.nodes);
        problems.add("linux.memoryPolicy.nodes", message);
        Numbers::default()
    });
    let needs = matches!(
        policy.mode,
        Mode::Bind | Mode::Interleave | Mode::WeightedInterleave | Mode::PreferredMany
    );
    if needs && nodes.is_empty() {
        problems
            .add("linux.memoryPolicy.nodes", format!("is empty, and {} needs some", policy.mode));
    }
    Some((mode | flags, nodes))
}
