//! Verdicts and searches as instructions of the classic packet filter machine.

use super::{Comparison, Condition};

/// `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Instruction {
    pub(super) operation: u16,
    pub(super) when_true: u8,
    pub(super) when_false: u8,
    pub(super) value: u32,
}

pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQUAL: u16 = 0x15;
pub(super) const JUMP_GREATER: u16 = 0x25;
pub(super) const JUMP_GREATER_EQUAL: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

/// Offsets in `struct seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

fn load(offset: u32) -> Instruction {
    Instruction { operation: LOAD, when_true: 0, when_false: 0, value: offset }
}

fn and(mask: u32) -> Instruction {
    Instruction { operation: AND, when_true: 0, when_false: 0, value: mask }
}

fn answer(value: u32) -> Instruction {
    Instruction { operation: RETURN, when_true: 0, when_false: 0, value }
}

fn jump(distance: usize) -> Instruction {
    // Programs are held below 4096 instructions, so this never saturates.
    let value = u32::try_from(distance).unwrap_or(u32::MAX);
    Instruction { operation: JUMP, when_true: 0, when_false: 0, value }
}

/// What happens to a call: the code that decides, ending in an answer on every path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    /// Blocks that answer when their conditions hold, and fall through otherwise.
    conditional: Vec<Instruction>,
    /// The answer when none held.
    otherwise: u32,
}

impl Verdict {
    /// The same for every argument.
    pub(super) fn always(value: u32) -> Self {
        Self { conditional: Vec::new(), otherwise: value }
    }

    /// No rule yet.
    pub(super) fn undecided(default: u32) -> Self {
        Self::always(default)
    }

    /// Adds a rule behind those there are.
    pub(super) fn add(&mut self, conditions: &[Condition], value: u32) {
        if conditions.is_empty() {
            self.otherwise = value;
        } else {
            self.conditional.extend(block(conditions, value));
        }
    }

    fn code(&self) -> Vec<Instruction> {
        let mut code = self.conditional.clone();
        code.push(answer(self.otherwise));
        code
    }
}

/// Where a jump in a block of conditions leads.
#[derive(Clone, Copy)]
enum Target {
    /// This many instructions on.
    Skip(u8),
    /// Behind the block.
    Fail,
}

type Test = (Instruction, Target, Target);

/// Code that answers `value` when all conditions hold and falls through otherwise.
fn block(conditions: &[Condition], value: u32) -> Vec<Instruction> {
    let tests: Vec<Test> = conditions.iter().flat_map(tests).collect();
    let behind = tests.len() + 1;
    let mut code: Vec<Instruction> = tests
        .iter()
        .enumerate()
        .map(|(index, &(instruction, when_true, when_false))| {
            let distance = |target| match target {
                Target::Skip(distance) => distance,
                // Six arguments make 36 tests at most.
                Target::Fail => u8::try_from(behind - index - 1).unwrap_or(u8::MAX),
            };
            Instruction {
                when_true: distance(when_true),
                when_false: distance(when_false),
                ..instruction
            }
        })
        .collect();
    code.push(answer(value));
    code
}

/// The tests for one condition, high half first.
fn tests(condition: &Condition) -> Vec<Test> {
    use Target::{Fail, Skip};
    let low_at = ARGUMENTS + 8 * u32::from(condition.argument);
    let (low, high) = halves(condition.value);
    let plain = |instruction| (instruction, Skip(0), Skip(0));
    let test = |operation, value, when_true, when_false| {
        (Instruction { operation, when_true: 0, when_false: 0, value }, when_true, when_false)
    };
    // Both machines we run on are little-endian: the high half is the second word.
    let load_high = plain(load(low_at + 4));
    let load_low = plain(load(low_at));
    match condition.comparison {
        Comparison::Equal => vec![
            load_high,
            test(JUMP_EQUAL, high, Skip(0), Fail),
            load_low,
            test(JUMP_EQUAL, low, Skip(0), Fail),
        ],
        Comparison::NotEqual => vec![
            load_high,
            test(JUMP_EQUAL, high, Skip(0), Skip(2)),
            load_low,
            test(JUMP_EQUAL, low, Fail, Skip(0)),
        ],
        Comparison::MaskedEqual(mask) => {
            let (mask_low, mask_high) = halves(mask);
            vec![
                load_high,
                plain(and(mask_high)),
                test(JUMP_EQUAL, high, Skip(0), Fail),
                load_low,
                plain(and(mask_low)),
                test(JUMP_EQUAL, low, Skip(0), Fail),
            ]
        }
        Comparison::Greater | Comparison::GreaterOrEqual => {
            let last = if condition.comparison == Comparison::Greater {
                JUMP_GREATER
            } else {
                JUMP_GREATER_EQUAL
            };
            vec![
                load_high,
                test(JUMP_GREATER, high, Skip(3), Skip(0)),
                test(JUMP_EQUAL, high, Skip(0), Fail),
                load_low,
                test(last, low, Skip(0), Fail),
            ]
        }
        Comparison::Less | Comparison::LessOrEqual => {
            let last = if condition.comparison == Comparison::Less {
                JUMP_GREATER_EQUAL
            } else {
                JUMP_GREATER
            };
            vec![
                load_high,
                test(JUMP_GREATER, high, Fail, Skip(0)),
                test(JUMP_EQUAL, high, Skip(0), Skip(2)),
                load_low,
                test(last, low, Fail, Skip(0)),
            ]
        }
    }
}

/// The low and the high 32 bits.
fn halves(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & u64::from(u32::MAX)).unwrap_or_default();
    let high = u32::try_from(value >> 32).unwrap_or_default();
    (low, high)
}

/// A balanced search for the range that holds the number in the accumulator.
///
/// Each range reaches from its number to the next one's.
pub(super) fn search(ranges: &[(u32, Verdict)]) -> Vec<Instruction> {
    match ranges {
        [] => Vec::new(),
        [(_, verdict)] => verdict.code(),
        _ => {
            let (below, above) = ranges.split_at(ranges.len() / 2);
            let boundary = above.first().map_or(0, |(start, _)| *start);
            let below = search(below);
            let test = |when_true| Instruction {
                operation: JUMP_GREATER_EQUAL,
                when_true,
                when_false: 0,
                value: boundary,
            };
            let mut code = match u8::try_from(below.len()) {
                Ok(distance) => vec![test(distance)],
                // A test reaches 255 instructions, a plain jump any distance.
                Err(_) => vec![Instruction { when_false: 1, ..test(0) }, jump(below.len())],
            };
            code.extend(below);
            code.extend(search(above));
            code
        }
    }
}

/// The whole filter: a section for each architecture, and the answer for all others.
pub(super) fn program(sections: Vec<(u32, Vec<Instruction>)>, other: u32) -> Vec<Instruction> {
    let mut code = vec![load(ARCHITECTURE)];
    for (architecture, section) in sections {
        // Equal: over the jump, into the section.
        code.push(Instruction {
            operation: JUMP_EQUAL,
            when_true: 1,
            when_false: 0,
            value: architecture,
        });
        code.push(jump(section.len() + 1));
        code.push(load(NUMBER));
        code.extend(section);
    }
    code.push(answer(other));
    code
}
