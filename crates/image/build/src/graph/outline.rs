//! Which stages a build needs and what images they start from.

use std::collections::{BTreeMap, BTreeSet};

use carrack_oci::{Platform, Reference};

use super::scope::{Globals, Scope, platform_arguments};
use super::{ContextKind, Inputs, Origin};
use crate::frontend::dockerfile::{Dockerfile, Instruction, Position, Problem, Stage, Word};

/// The stages a build needs, with every name in `FROM` and `--from` understood.
#[derive(Clone, Debug)]
pub struct Outline<'a> {
    pub(super) dockerfile: &'a Dockerfile,
    pub(super) globals: Globals,
    /// Stages by place in the Dockerfile, in the order to do them. The last is the target.
    pub(super) needed: Vec<usize>,
    /// What each stage starts from.
    pub(super) bases: Vec<Origin>,
    /// What each `--from` means, by stage and the place of its word.
    pub(super) copies: BTreeMap<(usize, Position), Origin>,
}

impl Outline<'_> {
    /// The images and named contexts that have to be at hand.
    pub fn origins(&self) -> BTreeSet<&Origin> {
        let bases = self.needed.iter().filter_map(|index| self.bases.get(*index));
        let copies = self.copies.iter().filter(|((index, _), _)| self.needed.contains(index));
        bases
            .chain(copies.map(|(_, origin)| origin))
            .filter(|origin| matches!(origin, Origin::Image(_) | Origin::Context(_)))
            .collect()
    }
}

/// Finds out what a build of `dockerfile` needs.
///
/// # Errors
///
/// Every problem with a name, a platform, the target or an argument's default.
pub fn outline<'a>(
    dockerfile: &'a Dockerfile,
    inputs: &Inputs<'_>,
) -> Result<Outline<'a>, Vec<Problem>> {
    let mut scope = Scope::new(&dockerfile.file, dockerfile.escape);
    let globals = globals(dockerfile, inputs, &mut scope);
    let mut outliner = Outliner { dockerfile, inputs, scope, copies: BTreeMap::new() };
    let mut bases = Vec::with_capacity(dockerfile.stages.len());
    for (index, stage) in dockerfile.stages.iter().enumerate() {
        bases.push(outliner.base(index, stage));
        outliner.copies(index, stage);
    }
    let target = outliner.target();
    let Outliner { scope, copies, .. } = outliner;
    if !scope.problems.is_empty() {
        return Err(scope.problems);
    }
    let needed = needed(target, &bases, &copies);
    Ok(Outline { dockerfile, globals, needed, bases, copies })
}

/// The stages that `target` needs, itself last. A stage needs only earlier ones.
fn needed(
    target: usize,
    bases: &[Origin],
    copies: &BTreeMap<(usize, Position), Origin>,
) -> Vec<usize> {
    let mut needed = BTreeSet::from([target]);
    for index in (0..=target).rev() {
        if !needed.contains(&index) {
            continue;
        }
        let of_stage = copies.iter().filter(|((stage, _), _)| *stage == index);
        for origin in of_stage.map(|(_, origin)| origin).chain(bases.get(index)) {
            if let Origin::Stage(earlier) = origin {
                needed.insert(*earlier);
            }
        }
    }
    needed.into_iter().collect()
}

fn globals(dockerfile: &Dockerfile, inputs: &Inputs<'_>, scope: &mut Scope<'_>) -> Globals {
    let mut globals = Globals {
        given: inputs.arguments.clone(),
        declared: BTreeMap::new(),
        platform: platform_arguments(inputs.platform),
    };
    scope.variables.extend(globals.platform.clone());
    for argument in dockerfile.arguments.iter().flat_map(|located| &located.value) {
        if let Some(value) = scope.declare(argument, &globals) {
            globals.declared.insert(argument.name.clone(), value);
        }
    }
    globals
}

struct Outliner<'a, 'b> {
    dockerfile: &'a Dockerfile,
    inputs: &'b Inputs<'b>,
    scope: Scope<'a>,
    copies: BTreeMap<(usize, Position), Origin>,
}

impl Outliner<'_, '_> {
    fn base(&mut self, index: usize, stage: &Stage) -> Origin {
        if let Some(platform) = &stage.platform {
            self.check_platform(platform);
        }
        let name = self.scope.expand(&stage.base);
        if name.is_empty() {
            let message = format!("the base `{}` of this stage is empty", stage.base.text);
            self.scope.problem(stage.base.position, message);
            return Origin::Scratch;
        }
        if let Some(earlier) = self.stage_named(&name, index) {
            return Origin::Stage(earlier);
        }
        match self.inputs.contexts.get(&name) {
            Some(ContextKind::Image) => return Origin::Context(name),
            Some(ContextKind::Directory) => {
                let message = format!(
                    "the context `{name}` is a directory, which can be copied from but not \
                     started from"
                );
                self.scope.problem(stage.base.position, message);
                return Origin::Scratch;
            }
            None if name == "scratch" => return Origin::Scratch,
            None => {}
        }
        self.image(&name, stage.base.position)
    }

    fn copies(&mut self, index: usize, stage: &Stage) {
        for located in &stage.instructions {
            let Instruction::Copy(transfer) = &located.value else { continue };
            let Some(from) = &transfer.from else { continue };
            let origin = self.copy_origin(index, from);
            self.copies.insert((index, from.position), origin);
        }
    }

    fn copy_origin(&mut self, index: usize, from: &Word) -> Origin {
        let name = &from.text;
        if let Some(earlier) = self.stage_named(name, index) {
            return Origin::Stage(earlier);
        }
        if let Ok(number) = name.parse::<usize>() {
            if number < index {
                return Origin::Stage(number);
            }
            let message = format!("--from={name} is not an earlier stage; this one is {index}");
            self.scope.problem(from.position, message);
            return Origin::Scratch;
        }
        if self.inputs.contexts.contains_key(name) {
            return Origin::Context(name.clone());
        }
        let stages = self.dockerfile.stages.iter();
        if stages
            .filter_map(|stage| stage.name.as_ref())
            .any(|stage| name.eq_ignore_ascii_case(stage))
        {
            let message = format!("--from={name} names this stage or a later one");
            self.scope.problem(from.position, message);
            return Origin::Scratch;
        }
        if name == "scratch" {
            self.scope.problem(from.position, "--from=scratch has nothing to copy");
            return Origin::Scratch;
        }
        self.image(name, from.position)
    }

    fn image(&mut self, name: &str, position: Position) -> Origin {
        match name.parse::<Reference>() {
            Ok(reference) => Origin::Image(reference.or_latest()),
            Err(error) => {
                self.scope.problem(position, error.to_string());
                Origin::Scratch
            }
        }
    }

    fn stage_named(&self, name: &str, before: usize) -> Option<usize> {
        let name = name.to_ascii_lowercase();
        let earlier = self.dockerfile.stages.iter().take(before);
        earlier
            .enumerate()
            .find(|(_, stage)| stage.name.as_deref() == Some(name.as_str()))
            .map(|(index, _)| index)
    }

    fn check_platform(&mut self, word: &Word) {
        let asked = self.scope.expand(word);
        let ours = self.inputs.platform;
        let same = match asked.parse::<Platform>() {
            Ok(platform) => platform.runs_on(ours),
            Err(_) => false,
        };
        if !same {
            let message =
                format!("the platform `{asked}` is not supported; this machine is {ours}");
            self.scope.problem(word.position, message);
        }
    }

    fn target(&mut self) -> usize {
        let last = self.dockerfile.stages.len().saturating_sub(1);
        let Some(target) = self.inputs.target else { return last };
        let by_name = self.stage_named(target, self.dockerfile.stages.len());
        let by_number = target.parse().ok().filter(|number| *number <= last);
        by_name.or(by_number).unwrap_or_else(|| {
            let message = format!("there is no stage `{target}` to build");
            self.scope.problem(Position { line: 1, column: 1 }, message);
            last
        })
    }
}
