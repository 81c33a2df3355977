//! What a Dockerfile says, checked but not yet expanded.

use super::position::Position;
use super::statement::{Heredoc, Word};

/// A whole Dockerfile.
#[derive(Clone, Debug)]
pub struct Dockerfile {
    /// The file, as the person named it.
    pub file: String,
    /// The escape character, `\` unless a directive says otherwise.
    pub escape: char,
    /// `ARG`s before the first `FROM`.
    pub arguments: Vec<Located<Vec<Argument>>>,
    /// In order; never empty.
    pub stages: Vec<Stage>,
}

/// Something, and the instruction it came from.
#[derive(Clone, Debug)]
pub struct Located<T> {
    /// Where the instruction starts.
    pub position: Position,
    /// The instruction on one line, as written.
    pub source: String,
    /// What it says.
    pub value: T,
}

/// From one `FROM` to the next.
#[derive(Clone, Debug)]
pub struct Stage {
    /// Where its `FROM` starts.
    pub position: Position,
    /// The `FROM` as written.
    pub source: String,
    /// What it starts from, variables not expanded.
    pub base: Word,
    /// The value of `--platform`, variables not expanded.
    pub platform: Option<Word>,
    /// Its name, in lower case.
    pub name: Option<String>,
    /// What follows, in order.
    pub instructions: Vec<Located<Instruction>>,
}

/// One `name` or `name=default` of an `ARG`.
#[derive(Clone, Debug)]
pub struct Argument {
    /// The name, as it stands.
    pub name: String,
    /// The default, variables not expanded.
    pub default: Option<Word>,
    /// Where it stands.
    pub position: Position,
}

/// A name and a value, as `ENV` and `LABEL` have them.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The name, variables not expanded.
    pub name: Word,
    /// The value, variables not expanded.
    pub value: Word,
}

/// A command for `RUN`, `CMD`, `ENTRYPOINT` and `HEALTHCHECK`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// A line for the shell.
    Shell(String),
    /// A program and its arguments.
    Exec(Vec<String>),
}

/// What `COPY` and `ADD` bring in, and where to.
#[derive(Clone, Debug)]
pub struct Transfer {
    /// A stage, an image or a named context; the build context when absent.
    pub from: Option<Word>,
    /// `USER[:GROUP]`, variables not expanded.
    pub chown: Option<Word>,
    /// Octal mode, variables not expanded.
    pub chmod: Option<Word>,
    /// Paths, variables not expanded.
    pub sources: Vec<Word>,
    /// Documents that stand in the Dockerfile.
    pub documents: Vec<Heredoc>,
    /// Where to, variables not expanded.
    pub destination: Word,
}

/// How to find out whether a container is well.
#[derive(Clone, Debug)]
pub struct Check {
    /// What to run; `None` turns an inherited check off.
    pub command: Option<Command>,
    /// Time between two checks, in nanoseconds; 0 is the default.
    pub interval_ns: u64,
    /// Time a check may take.
    pub timeout_ns: u64,
    /// Time to come up, during which failures do not count.
    pub start_period_ns: u64,
    /// Time between two checks while coming up.
    pub start_interval_ns: u64,
    /// Failures in a row before it is unhealthy; 0 is the default.
    pub retries: u64,
}

/// An instruction inside a stage.
#[derive(Clone, Debug)]
#[expect(missing_docs, reason = "each is the Dockerfile instruction of that name")]
pub enum Instruction {
    Arg(Vec<Argument>),
    Env(Vec<Pair>),
    Label(Vec<Pair>),
    Workdir(Word),
    Copy(Transfer),
    Add(Transfer),
    Run(Command),
    User(Word),
    Expose(Vec<Word>),
    Entrypoint(Command),
    Cmd(Command),
    Volume(Vec<Word>),
    Healthcheck(Check),
    StopSignal(Word),
    Shell(Vec<String>),
}
