use super::*;

const X86_64: u32 = 0xc000_003e;
const ALLOW: u32 = 0x7fff_0000;

fn errno(number: u32) -> u32 {
    0x0005_0000 | number
}

/// Runs the program as the kernel would.
fn verdict(filter: &Filter, architecture: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let mut data = [0u8; 64];
    data[0..4].copy_from_slice(&number.to_le_bytes());
    data[4..8].copy_from_slice(&architecture.to_le_bytes());
    for (index, argument) in arguments.iter().enumerate() {
        data[16 + 8 * index..24 + 8 * index].copy_from_slice(&argument.to_le_bytes());
    }
    let mut accumulator = 0u32;
    let mut at = 0usize;
    for _ in 0..MAX_INSTRUCTIONS {
        let step = filter.instructions[at];
        at += 1;
        let jump = |taken: bool| usize::from(if taken { step.when_true } else { step.when_false });
        match step.operation {
            assemble::LOAD => {
                let offset = usize::try_from(step.value).unwrap();
                accumulator = u32::from_le_bytes(data[offset..offset + 4].try_into().unwrap());
            }
            assemble::AND => accumulator &= step.value,
            assemble::JUMP => at += usize::try_from(step.value).unwrap(),
            assemble::JUMP_EQUAL => at += jump(accumulator == step.value),
            assemble::JUMP_GREATER => at += jump(accumulator > step.value),
            assemble::JUMP_GREATER_EQUAL => at += jump(accumulator >= step.value),
            assemble::RETURN => return step.value,
            other => panic!("operation {other:#x}"),
        }
    }
    panic!("the filter does not end")
}

fn rule(names: &[&str], action: Action, conditions: &[Condition]) -> Rule {
    Rule {
        names: names.iter().map(|&name| name.to_owned()).collect(),
        action,
        conditions: conditions.to_vec(),
    }
}

fn profile(default: Action, rules: Vec<Rule>) -> Profile {
    Profile {
        default,
        architectures: vec![Architecture::X86_64, Architecture::X86],
        rules,
        log: false,
        allow_speculation: false,
        wait_killable: false,
    }
}

fn number(name: &str) -> u32 {
    Architecture::X86_64.number(name).unwrap()
}

#[test]
fn the_table_is_sorted_and_knows_well_known_numbers() {
    assert!(syscalls::TABLE.is_sorted_by_key(|entry| entry.0));
    assert_eq!(number("read"), 0);
    assert_eq!(i64::from(number("clone3")), libc::SYS_clone3);
    assert_eq!(i64::from(number("openat2")), libc::SYS_openat2);
    assert_eq!(Architecture::Aarch64.number("openat"), Some(56));
    assert_eq!(Architecture::Aarch64.number("open"), None);
    assert_eq!(Architecture::X86.number("open"), Some(5));
}

#[test]
fn every_call_gets_the_verdict_its_rules_say() {
    let allowed = ["read", "write", "exit_group", "mmap", "close", "fstat", "clone3", "openat2"];
    let profile = profile(
        Action::Errno(1),
        vec![
            rule(&allowed, Action::Allow, &[]),
            rule(&["ptrace", "no_such_call"], Action::KillThread, &[]),
        ],
    );
    let filter = profile.compile().unwrap();
    for (name, x86_64, x86, _) in syscalls::TABLE {
        let newest = number("clone3").max(number("openat2"));
        let expected = match *name {
            name if allowed.contains(&name) => ALLOW,
            "ptrace" => 0,
            _ => errno(1),
        };
        if *x86_64 != syscalls::NONE {
            let call = u32::from(*x86_64);
            let expected = if call > newest { errno(38) } else { expected };
            assert_eq!(verdict(&filter, X86_64, call, [0; 6]), expected, "for {name}");
        }
        if *x86 != syscalls::NONE {
            let call = u32::from(*x86);
            let expected = if call > newest { errno(38) } else { expected };
            assert_eq!(verdict(&filter, 0x4000_0003, call, [0; 6]), expected, "for {name} on x86");
        }
    }
}

#[test]
fn unknown_architectures_are_killed_and_x32_does_not_exist() {
    let filter = profile(Action::Allow, Vec::new()).compile().unwrap();
    assert_eq!(verdict(&filter, 0x1234, 0, [0; 6]), 0x8000_0000);
    assert_eq!(verdict(&filter, X86_64, X32_BIT | 1, [0; 6]), errno(38));
    assert_eq!(verdict(&filter, X86_64, 1, [0; 6]), ALLOW);
}

#[test]
fn comparisons_are_unsigned_and_64_bits_wide() {
    use Comparison::*;
    const BIG: u64 = 0x1_0000_0005;
    let cases: &[(Comparison, u64, &[u64], &[u64])] = &[
        (Equal, BIG, &[BIG], &[5, 0x2_0000_0005, BIG + 1, 0]),
        (NotEqual, BIG, &[5, 0x2_0000_0005, BIG + 1], &[BIG]),
        (Less, BIG, &[0, 5, 0xffff_ffff, BIG - 1], &[BIG, BIG + 1, u64::MAX]),
        (LessOrEqual, BIG, &[0, BIG], &[BIG + 1, 0x2_0000_0000]),
        (Greater, BIG, &[BIG + 1, 0x2_0000_0000, u64::MAX], &[BIG, 0xffff_ffff]),
        (GreaterOrEqual, BIG, &[BIG, u64::MAX], &[BIG - 1, 6, 0]),
        (
            MaskedEqual(0xf0_0000_00f0),
            0x10_0000_0020,
            &[0x1f_0000_002f, 0xf10_0000_0020],
            &[0x20, 0x30_0000_0020],
        ),
    ];
    for (comparison, value, yes, no) in cases {
        let condition = Condition { argument: 3, comparison: *comparison, value: *value };
        let rules = vec![rule(&["read"], Action::Allow, &[condition])];
        let filter = profile(Action::Errno(1), rules).compile().unwrap();
        for (arguments, expected) in [(yes, ALLOW), (no, errno(1))] {
            for &argument in *arguments {
                let seen = verdict(&filter, X86_64, 0, [9, 9, 9, argument, 9, 9]);
                assert_eq!(seen, expected, "for {argument:#x} {comparison:?} {value:#x}");
            }
        }
    }
}

#[test]
fn all_conditions_of_a_rule_must_hold_and_any_rule_may_match() {
    let equal = |argument, value| Condition { argument, comparison: Comparison::Equal, value };
    let rules = vec![
        rule(&["personality"], Action::Allow, &[equal(0, 1), equal(1, 2)]),
        rule(&["personality"], Action::Allow, &[equal(0, 8)]),
        rule(&["socket"], Action::Errno(22), &[equal(0, 40)]),
        rule(&["socket"], Action::Allow, &[]),
    ];
    let filter = profile(Action::Errno(1), rules).compile().unwrap();
    let personality =
        |zero, one| verdict(&filter, X86_64, number("personality"), [zero, one, 0, 0, 0, 0]);
    assert_eq!([personality(1, 2), personality(1, 3), personality(8, 0)], [ALLOW, errno(1), ALLOW]);
    let socket = |family| verdict(&filter, X86_64, number("socket"), [family, 0, 0, 0, 0, 0]);
    assert_eq!([socket(40), socket(2)], [errno(22), ALLOW]);
}

#[test]
fn a_condition_on_a_seventh_argument_is_refused() {
    let condition = Condition { argument: 6, comparison: Comparison::Equal, value: 0 };
    let rules = vec![rule(&["read"], Action::Allow, &[condition])];
    let error = profile(Action::Allow, rules).compile().unwrap_err();
    assert!(error.to_string().contains("read"), "{error}");
}

#[test]
fn the_kernel_takes_the_filter_and_obeys_it() {
    std::thread::spawn(|| {
        let rules = vec![rule(&["getpriority"], Action::Errno(77), &[])];
        let filter = profile(Action::Allow, rules).compile().unwrap();
        rustix::thread::set_no_new_privs(true).unwrap();
        filter.load().unwrap();
        let error = rustix::process::getpriority_process(None).unwrap_err();
        assert_eq!(error.raw_os_error(), 77);
    })
    .join()
    .unwrap();
}
