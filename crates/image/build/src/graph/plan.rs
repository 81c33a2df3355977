//! Instructions expanded into steps, one stage after another.

use std::collections::{BTreeMap, BTreeSet};

use carrack_oci::ExecutionConfig;
use carrack_oci::runtime::defaults::DEFAULT_PATH;
use indexmap::IndexMap;

use super::changes;
use super::outline::Outline;
use super::scope::{self, Scope};
use super::{Action, CopyStep, Graph, Origin, PlannedStage, RunStep, Step};
use crate::frontend::dockerfile::instruction::{Command, Pair, Transfer};
use crate::frontend::dockerfile::{Instruction, Located, Position, Problem, Stage, Word};

/// Expands the stages of `outline`, given the configuration of each image it starts from.
///
/// # Errors
///
/// Every value that cannot be expanded or is not what its instruction takes.
pub fn plan(
    outline: &Outline<'_>,
    configs: &BTreeMap<Origin, ExecutionConfig>,
) -> Result<Graph, Vec<Problem>> {
    let dockerfile = outline.dockerfile;
    let mut problems = Vec::new();
    let mut done: BTreeMap<usize, (PlannedStage, IndexMap<String, String>)> = BTreeMap::new();
    for index in &outline.needed {
        let (Some(stage), Some(origin)) =
            (dockerfile.stages.get(*index), outline.bases.get(*index))
        else {
            continue;
        };
        let mut planner = Planner::new(outline, *index, stage);
        planner.start(origin, configs, &done);
        for located in &stage.instructions {
            planner.instruction(located);
        }
        problems.append(&mut planner.scope.problems);
        done.insert(*index, (planner.planned, planner.scope.variables));
    }
    if !problems.is_empty() {
        return Err(problems);
    }
    let unused_arguments = scope::unused(&outline.globals.given, &declared(outline));
    Ok(Graph { stages: done.into_values().map(|(stage, _)| stage).collect(), unused_arguments })
}

/// Every name that an `ARG` anywhere in the file asks for.
fn declared(outline: &Outline<'_>) -> BTreeSet<String> {
    let before = outline.dockerfile.arguments.iter().map(|located| &located.value);
    let stages = outline.dockerfile.stages.iter().flat_map(|stage| &stage.instructions);
    let inside = stages.filter_map(|located| match &located.value {
        Instruction::Arg(arguments) => Some(arguments),
        _ => None,
    });
    before.chain(inside).flatten().map(|argument| argument.name.clone()).collect()
}

struct Planner<'a> {
    outline: &'a Outline<'a>,
    scope: Scope<'a>,
    planned: PlannedStage,
    proxies: Vec<String>,
    /// Whether this stage has a `CMD` of its own, which an `ENTRYPOINT` then leaves.
    has_command: bool,
}

impl<'a> Planner<'a> {
    fn new(outline: &'a Outline<'a>, index: usize, stage: &Stage) -> Self {
        let dockerfile = outline.dockerfile;
        Self {
            outline,
            scope: Scope::new(&dockerfile.file, dockerfile.escape),
            planned: PlannedStage {
                index,
                name: stage.name.clone().unwrap_or_else(|| format!("stage-{index}")),
                origin: Origin::Scratch,
                steps: Vec::new(),
                config: ExecutionConfig::default(),
            },
            proxies: scope::proxies(&outline.globals.given),
            has_command: false,
        }
    }

    /// Takes over the configuration of what the stage starts from. An earlier
    /// stage hands on its build arguments as well.
    fn start(
        &mut self,
        origin: &Origin,
        configs: &BTreeMap<Origin, ExecutionConfig>,
        done: &BTreeMap<usize, (PlannedStage, IndexMap<String, String>)>,
    ) {
        self.planned.origin = origin.clone();
        match origin {
            Origin::Stage(index) => {
                if let Some((stage, variables)) = done.get(index) {
                    self.planned.config = stage.config.clone();
                    self.scope.variables = variables.clone();
                }
                return;
            }
            Origin::Scratch => self.planned.config.env.push(DEFAULT_PATH.to_owned()),
            _ => self.planned.config = configs.get(origin).cloned().unwrap_or_default(),
        }
        let variables = self.planned.config.env.iter().filter_map(|entry| entry.split_once('='));
        self.scope.variables =
            variables.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    }

    fn instruction(&mut self, located: &Located<Instruction>) {
        let action = self.action(located);
        let Some(action) = action else { return };
        let created_by = match &action {
            Action::Run(step) => format!("RUN {}", step.args.join(" ")),
            _ => located.source.clone(),
        };
        self.planned.steps.push(Step {
            name: located.source.split_whitespace().collect::<Vec<_>>().join(" "),
            created_by,
            position: located.position,
            action,
        });
    }

    /// What the instruction does, its change of the configuration already made.
    fn action(&mut self, located: &Located<Instruction>) -> Option<Action> {
        let position = located.position;
        match &located.value {
            Instruction::Run(command) => return self.run(command),
            Instruction::Copy(transfer) => return self.copy(transfer, position, false),
            Instruction::Add(transfer) => return self.copy(transfer, position, true),
            Instruction::Workdir(word) => return self.workdir(word),
            Instruction::Arg(arguments) => {
                for argument in arguments {
                    self.scope.declare(argument, &self.outline.globals);
                }
            }
            Instruction::Env(pairs) => self.environment(pairs),
            Instruction::Label(pairs) => {
                for (name, value) in self.pairs(pairs) {
                    self.planned.config.labels.insert(name, value);
                }
            }
            Instruction::User(word) => self.user(word),
            Instruction::Expose(words) => words.iter().for_each(|word| self.expose(word)),
            Instruction::Volume(words) => {
                for word in words {
                    let volume = self.scope.expand(word);
                    self.planned.config.volumes.insert(volume);
                }
            }
            Instruction::StopSignal(word) => self.stop_signal(word),
            Instruction::Entrypoint(command) => {
                let config = &mut self.planned.config;
                config.entrypoint = changes::arguments(command, &config.shell);
                if !self.has_command {
                    config.cmd.clear();
                }
            }
            Instruction::Cmd(command) => {
                let config = &mut self.planned.config;
                config.cmd = changes::arguments(command, &config.shell);
                self.has_command = true;
            }
            Instruction::Healthcheck(check) => {
                self.planned.config.healthcheck = Some(changes::healthcheck(check));
            }
            Instruction::Shell(words) => self.planned.config.shell.clone_from(words),
        }
        Some(Action::Configure)
    }

    /// Names and values expanded, all before any of them counts.
    fn pairs(&mut self, pairs: &[Pair]) -> Vec<(String, String)> {
        let expand = |pair: &Pair| (self.scope.expand(&pair.name), self.scope.expand(&pair.value));
        pairs.iter().map(expand).collect()
    }

    fn environment(&mut self, pairs: &[Pair]) {
        for (name, value) in self.pairs(pairs) {
            self.planned.config.set_variable(&name, &value);
            self.scope.variables.insert(name, value);
        }
    }

    fn user(&mut self, word: &Word) {
        let user = self.scope.expand(word);
        if user.is_empty() {
            return self.scope.problem(word.position, format!("the user `{}` is empty", word.text));
        }
        self.planned.config.user = user;
    }

    fn expose(&mut self, word: &Word) {
        for port in self.scope.expand_words(word) {
            if changes::expose(&mut self.planned.config, &port).is_none() {
                let message = format!("`{port}` is not a port, such as 80, 53/udp or 8000-8010");
                self.scope.problem(word.position, message);
            }
        }
    }

    fn stop_signal(&mut self, word: &Word) {
        let signal = self.scope.expand(word);
        if !changes::is_signal(&signal) {
            let message = format!("`{signal}` is not a signal, such as SIGTERM or 15");
            return self.scope.problem(word.position, message);
        }
        self.planned.config.stop_signal = Some(signal);
    }

    fn workdir(&mut self, word: &Word) -> Option<Action> {
        let path = self.scope.expand(word);
        if path.is_empty() {
            let message = format!("the directory `{}` is empty", word.text);
            self.scope.problem(word.position, message);
            return None;
        }
        let config = &mut self.planned.config;
        config.working_dir = changes::join(&config.working_dir, &path);
        let (path, user) = (config.working_dir.clone(), config.user.clone());
        Some(Action::MakeDirectory { path, user })
    }

    fn run(&mut self, command: &Command) -> Option<Action> {
        let config = &self.planned.config;
        let variables = &self.scope.variables;
        let mut env: Vec<_> =
            variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        if !variables.contains_key("PATH") {
            env.push(DEFAULT_PATH.to_owned());
        }
        let known = |proxy: &&String| {
            proxy.split_once('=').is_none_or(|(name, _)| !variables.contains_key(name))
        };
        Some(Action::Run(RunStep {
            args: changes::arguments(command, &config.shell),
            has_shell: matches!(command, Command::Shell(_)),
            env,
            proxies: self.proxies.iter().filter(known).cloned().collect(),
            user: config.user.clone(),
            cwd: changes::join("/", &config.working_dir),
        }))
    }

    fn copy(&mut self, transfer: &Transfer, position: Position, unpack: bool) -> Option<Action> {
        let written = self.scope.expand(&transfer.destination);
        let sources: Vec<_> =
            transfer.sources.iter().map(|source| self.scope.expand(source)).collect();
        let documents = transfer.documents.iter().map(|document| {
            let content = if document.expand {
                self.scope.expand_document(&document.content, position)
            } else {
                document.content.clone()
            };
            (document.name.clone(), content)
        });
        let documents: Vec<_> = documents.collect();
        let many = sources.len() + documents.len() > 1;
        let directory = written.ends_with('/') || written == "." || written.ends_with("/.");
        if written.is_empty() || (many && !directory) {
            let message = if written.is_empty() {
                format!("the destination `{}` is empty", transfer.destination.text)
            } else {
                format!("with more than one source `{written}` has to end with /")
            };
            self.scope.problem(transfer.destination.position, message);
        }
        let mut destination = changes::join(&self.planned.config.working_dir, &written);
        if directory && destination != "/" {
            destination.push('/');
        }
        Some(Action::Copy(CopyStep {
            from: self.copy_origin(transfer),
            sources,
            documents,
            destination,
            chown: transfer.chown.as_ref().map(|word| self.scope.expand(word)),
            chmod: transfer.chmod.as_ref().and_then(|word| self.mode(word)),
            unpack,
        }))
    }

    fn copy_origin(&self, transfer: &Transfer) -> Origin {
        let Some(from) = &transfer.from else { return Origin::BuildContext };
        let key = (self.planned.index, from.position);
        self.outline.copies.get(&key).cloned().unwrap_or(Origin::Scratch)
    }

    fn mode(&mut self, word: &Word) -> Option<u32> {
        let text = self.scope.expand(word);
        let octal = !text.is_empty() && text.chars().all(|c| c.is_digit(8));
        let mode = u32::from_str_radix(&text, 8).ok().filter(|mode| octal && *mode <= 0o7777);
        if mode.is_none() {
            let message = format!("--chmod takes an octal mode such as 755, not `{text}`");
            self.scope.problem(word.position, message);
        }
        mode
    }
}
