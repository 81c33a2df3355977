//! Processor time and memory nodes of the calling thread: policy, affinity, NUMA policy.

use std::io;

/// The arguments of `sched_setattr`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    /// `SCHED_*`.
    pub policy: u32,
    /// `SCHED_FLAG_*`.
    pub flags: u64,
    /// Niceness, -20 to 19.
    pub nice: i32,
    /// Static priority, for the real-time policies.
    pub priority: u32,
    /// Nanoseconds of each period, for deadlines.
    pub runtime: u64,
    /// Nanoseconds by which they are had.
    pub deadline: u64,
    /// Nanoseconds of a period.
    pub period: u64,
}

/// `struct sched_attr` of the first version.
#[repr(C)]
#[derive(Default)]
struct Attributes {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
}

/// Schedules the calling thread, and what it starts, by `policy`.
///
/// # Errors
///
/// As `sched_setattr`.
pub fn set_policy(policy: &Policy) -> io::Result<()> {
    let attributes = Attributes {
        size: u32::try_from(size_of::<Attributes>()).map_err(io::Error::other)?,
        policy: policy.policy,
        flags: policy.flags,
        nice: policy.nice,
        priority: policy.priority,
        runtime: policy.runtime,
        deadline: policy.deadline,
        period: policy.period,
    };
    // SAFETY: `attributes` is laid out as the kernel's first version, says its own size, and
    // outlives the call; process 0 is the calling thread.
    let answer =
        unsafe { libc::syscall(libc::SYS_sched_setattr, 0, std::ptr::from_ref(&attributes), 0) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Numbers of processors or memory nodes, in ascending order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Numbers(Vec<u32>);

/// The highest processor or node that is taken.
const HIGHEST: u32 = 8191;

impl Numbers {
    /// Reads ranges as the kernel writes them: `0-2,7`. `None` for anything else.
    pub fn parse(text: &str) -> Option<Self> {
        let mut all = Vec::new();
        for part in text.trim().split(',').map(str::trim).filter(|part| !part.is_empty()) {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let number = |text: &str| text.trim().parse::<u32>().ok();
            let (first, last) = (number(first)?, number(last)?);
            if first > last || last > HIGHEST {
                return None;
            }
            all.extend(first..=last);
        }
        all.sort_unstable();
        all.dedup();
        Some(Self(all))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As words of a bit mask.
    fn mask(&self) -> Vec<libc::c_ulong> {
        let bits = libc::c_ulong::BITS;
        let mut mask = Vec::new();
        for &number in &self.0 {
            let word = usize::try_from(number / bits).unwrap_or_default();
            if mask.len() <= word {
                mask.resize(word + 1, 0);
            }
            if let Some(word) = mask.get_mut(word) {
                *word |= 1 << (number % bits);
            }
        }
        mask
    }
}

/// The processors the calling thread may run on.
///
/// # Errors
///
/// As `sched_getaffinity`.
pub fn affinity() -> io::Result<Numbers> {
    let mut mask = vec![0 as libc::c_ulong; 128];
    let size = mask.len() * size_of::<libc::c_ulong>();
    // SAFETY: the kernel writes at most `size` bytes to `mask`, which is that long.
    let written = unsafe { libc::syscall(libc::SYS_sched_getaffinity, 0, size, mask.as_mut_ptr()) };
    if written < 0 {
        return Err(io::Error::last_os_error());
    }
    let bits = libc::c_ulong::BITS;
    let numbers = (0_u32..).zip(&mask).flat_map(|(word, value)| {
        (0..bits).filter(move |bit| value >> bit & 1 == 1).map(move |bit| word * bits + bit)
    });
    Ok(Numbers(numbers.collect()))
}

/// Lets the calling thread, and what it starts, run on these processors only.
///
/// # Errors
///
/// `EINVAL` when none of them may be used.
pub fn set_affinity(processors: &Numbers) -> io::Result<()> {
    let mask = processors.mask();
    let size = mask.len() * size_of::<libc::c_ulong>();
    // SAFETY: the kernel reads `size` bytes of `mask`, which is that long and outlives the call.
    let answer = unsafe { libc::syscall(libc::SYS_sched_setaffinity, 0, size, mask.as_ptr()) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Takes memory of the calling thread, and of what it starts, from `nodes` by `mode`, which is
/// an `MPOL_*` number with its flags.
///
/// # Errors
///
/// As `set_mempolicy`.
pub fn set_memory_policy(mode: i32, nodes: &Numbers) -> io::Result<()> {
    let mask = nodes.mask();
    // The kernel reads one bit less than it is told.
    let bits = mask.len() * usize::try_from(libc::c_ulong::BITS).unwrap_or_default() + 1;
    let (mask, bits) = if mask.is_empty() { (std::ptr::null(), 0) } else { (mask.as_ptr(), bits) };
    // SAFETY: without nodes no memory is read; otherwise the mask has `bits` - 1 bits and its
    // words outlive the call.
    let answer = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, bits) };
    if answer == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_the_kernel_writes_them() {
        for (text, expected) in [
            ("0", Some(vec![0])),
            ("0-2,7", Some(vec![0, 1, 2, 7])),
            (" 3 , 1 ", Some(vec![1, 3])),
            ("", Some(vec![])),
        ] {
            assert_eq!(Numbers::parse(text).map(|numbers| numbers.0), expected, "for {text:?}");
        }
        for text in ["a", "2-1", "0-99999", "-1", "0x1"] {
            assert_eq!(Numbers::parse(text), None, "for {text:?}");
        }
    }

    #[test]
    fn numbers_beyond_a_word_go_into_the_next() {
        assert_eq!(Numbers(vec![0, 65]).mask(), [1, 2]);
    }

    #[test]
    fn a_thread_can_be_held_to_one_of_its_processors_and_let_go() {
        std::thread::spawn(|| {
            let before = affinity().unwrap();
            let first = Numbers(before.0[..1].to_vec());
            set_affinity(&first).unwrap();
            assert_eq!(affinity().unwrap(), first);
            set_affinity(&before).unwrap();
            assert_eq!(affinity().unwrap(), before);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn memory_of_node_zero_can_be_asked_for_and_the_default_restored() {
        const DEFAULT: i32 = 0;
        const BIND: i32 = 2;
        std::thread::spawn(|| match set_memory_policy(BIND, &Numbers(vec![0])) {
            Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
                eprintln!("skipped: this kernel has no memory policies");
            }
            answer => {
                answer.unwrap();
                set_memory_policy(DEFAULT, &Numbers::default()).unwrap();
            }
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_thread_can_be_made_batch() {
        const BATCH: u32 = 3;
        std::thread::spawn(|| {
            set_policy(&Policy { policy: BATCH, nice: 5, ..Policy::default() }).unwrap();
        })
        .join()
        .unwrap();
    }
}
