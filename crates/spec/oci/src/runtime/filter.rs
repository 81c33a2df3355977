use std::path::PathBuf;

use super::field::{closed, words};

words! {
    /// Which system calls may be made.
    pub struct LinuxSeccomp {
        /// What happens to calls no rule names.
        named default_action ("defaultAction"): LinuxSeccompAction,
        /// The error number or trace message that goes with it.
        default_errno_ret ("defaultErrnoRet"): Option<u32>,
        /// Instruction sets that are filtered besides the native one.
        architectures ("architectures"): Vec<Arch>,
        /// Flags of `seccomp`.
        flags ("flags"): Vec<LinuxSeccompFlag>,
        /// The socket that is sent the listener's descriptor.
        listener_path ("listenerPath"): PathBuf,
        /// What goes along with it.
        listener_metadata ("listenerMetadata"): String,
        /// Rules; an earlier one does not hide a later one.
        syscalls ("syscalls"): Vec<LinuxSyscall>,
    }
}

words! {
    /// What happens to some calls.
    pub struct LinuxSyscall {
        /// The calls, by name.
        kept names ("names"): Vec<String>,
        /// What happens.
        named action ("action"): LinuxSeccompAction,
        /// The error number or trace message that goes with it.
        errno_ret ("errnoRet"): Option<u32>,
        /// Conditions on arguments, all of which must hold.
        args ("args"): Vec<LinuxSeccompArg>,
    }
}

words! {
    /// A condition on an argument.
    #[derive(Copy)]
    pub struct LinuxSeccompArg {
        /// Which, from 0 to 5.
        kept index ("index"): u32,
        /// What it is compared with; the mask, for a masked comparison.
        kept value ("value"): u64,
        /// What a masked comparison must give.
        value_two ("valueTwo"): u64,
        /// How.
        named op ("op"): LinuxSeccompOperator,
    }
}

closed! {
    /// What happens to a call.
    pub enum LinuxSeccompAction {
        /// The thread ends.
        Kill = "SCMP_ACT_KILL",
        /// The process ends.
        KillProcess = "SCMP_ACT_KILL_PROCESS",
        /// The thread ends.
        KillThread = "SCMP_ACT_KILL_THREAD",
        /// The thread gets `SIGSYS`.
        Trap = "SCMP_ACT_TRAP",
        /// The call fails.
        Errno = "SCMP_ACT_ERRNO",
        /// A tracer decides.
        Trace = "SCMP_ACT_TRACE",
        /// The call is made.
        Allow = "SCMP_ACT_ALLOW",
        /// The call is made and logged.
        Log = "SCMP_ACT_LOG",
        /// Whoever listens decides.
        Notify = "SCMP_ACT_NOTIFY",
    }
}

closed! {
    /// Comparisons.
    pub enum LinuxSeccompOperator {
        /// Not equal.
        NotEqual = "SCMP_CMP_NE",
        /// Less.
        Less = "SCMP_CMP_LT",
        /// Less or equal.
        LessOrEqual = "SCMP_CMP_LE",
        /// Equal.
        Equal = "SCMP_CMP_EQ",
        /// Greater or equal.
        GreaterOrEqual = "SCMP_CMP_GE",
        /// Greater.
        Greater = "SCMP_CMP_GT",
        /// Equal under a mask.
        MaskedEqual = "SCMP_CMP_MASKED_EQ",
    }
}

closed! {
    /// Flags of `seccomp`.
    pub enum LinuxSeccompFlag {
        /// Hold for all threads; a runtime has one when it loads the filter.
        ThreadSync = "SECCOMP_FILTER_FLAG_TSYNC",
        /// Log what is not allowed.
        Log = "SECCOMP_FILTER_FLAG_LOG",
        /// No mitigation of speculation for the filter's sake.
        SpeculationAllow = "SECCOMP_FILTER_FLAG_SPEC_ALLOW",
        /// Whoever waits for the listener can only be killed.
        WaitKillableReceive = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
    }
}

closed! {
    /// Instruction sets.
    pub enum Arch {
        /// That of the kernel.
        Native = "SCMP_ARCH_NATIVE",
        /// 32-bit x86.
        X86 = "SCMP_ARCH_X86",
        /// 64-bit x86.
        X86_64 = "SCMP_ARCH_X86_64",
        /// 64-bit x86 with 32-bit pointers.
        X32 = "SCMP_ARCH_X32",
        /// 32-bit Arm.
        Arm = "SCMP_ARCH_ARM",
        /// 64-bit Arm.
        Aarch64 = "SCMP_ARCH_AARCH64",
        /// LoongArch.
        LoongArch64 = "SCMP_ARCH_LOONGARCH64",
        /// Motorola 68000.
        M68k = "SCMP_ARCH_M68K",
        /// MIPS.
        Mips = "SCMP_ARCH_MIPS",
        /// MIPS, 64-bit.
        Mips64 = "SCMP_ARCH_MIPS64",
        /// MIPS, 64-bit with 32-bit pointers.
        Mips64n32 = "SCMP_ARCH_MIPS64N32",
        /// MIPS, little-endian.
        Mipsel = "SCMP_ARCH_MIPSEL",
        /// MIPS, 64-bit, little-endian.
        Mipsel64 = "SCMP_ARCH_MIPSEL64",
        /// MIPS, 64-bit with 32-bit pointers, little-endian.
        Mipsel64n32 = "SCMP_ARCH_MIPSEL64N32",
        /// PowerPC.
        Ppc = "SCMP_ARCH_PPC",
        /// PowerPC, 64-bit.
        Ppc64 = "SCMP_ARCH_PPC64",
        /// PowerPC, 64-bit, little-endian.
        Ppc64le = "SCMP_ARCH_PPC64LE",
        /// IBM Z, 31-bit.
        S390 = "SCMP_ARCH_S390",
        /// IBM Z.
        S390x = "SCMP_ARCH_S390X",
        /// PA-RISC.
        Parisc = "SCMP_ARCH_PARISC",
        /// PA-RISC, 64-bit.
        Parisc64 = "SCMP_ARCH_PARISC64",
        /// RISC-V.
        Riscv64 = "SCMP_ARCH_RISCV64",
        /// SuperH.
        Sh = "SCMP_ARCH_SH",
        /// SuperH, big-endian.
        Sheb = "SCMP_ARCH_SHEB",
    }
}
