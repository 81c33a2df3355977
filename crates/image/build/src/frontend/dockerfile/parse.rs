//! Statements made into instructions, and everything wrong with them.

use super::flags::Flags;
use super::instruction::{
    Argument, Check, Command, Dockerfile, Instruction, Located, Pair, Stage, Transfer,
};
use super::lines::Lines;
use super::position::{Fault, Position, Problem};
use super::statement::{self, Form, Statement, Word, heredoc_word};
use super::support::{self, Support};

/// A line longer than this is no text that a person wrote.
const LONGEST_LINE: usize = 64 * 1024;

/// Reads a Dockerfile; `file` is only for naming it in problems.
///
/// # Errors
///
/// Everything wrong with it, in the order of the text.
pub fn parse(text: &str, file: &str) -> Result<Dockerfile, Vec<Problem>> {
    if let Some(line) = text.lines().position(|line| line.len() > LONGEST_LINE) {
        let position = Position { line: line + 1, column: 1 };
        let message = format!("the line is longer than {LONGEST_LINE} bytes; break it with \\");
        return Err(vec![Fault::new(position, message).in_file(file)]);
    }
    let mut reader = Reader::default();
    let mut lines = Lines::new(text);
    while let Some(statement) = statement::next(&mut lines) {
        match statement {
            Ok(statement) => reader.read(statement),
            Err(fault) => reader.faults.push(fault),
        }
    }
    reader.faults.extend(lines.take_faults());
    if reader.stages.is_empty() && reader.faults.is_empty() {
        let position = Position { line: 1, column: 1 };
        reader.faults.push(Fault::new(position, "the file has no FROM, so it builds nothing"));
    }
    if !reader.faults.is_empty() {
        reader.faults.sort_by_key(|fault| fault.position);
        return Err(reader.faults.into_iter().map(|fault| fault.in_file(file)).collect());
    }
    Ok(Dockerfile {
        file: file.to_owned(),
        escape: lines.escape,
        arguments: reader.arguments,
        stages: reader.stages,
    })
}

#[derive(Default)]
struct Reader {
    arguments: Vec<Located<Vec<Argument>>>,
    stages: Vec<Stage>,
    faults: Vec<Fault>,
}

impl Reader {
    fn read(&mut self, statement: Statement) {
        if statement.keyword == "FROM" {
            match self.stage(&statement) {
                Ok(stage) => self.stages.push(stage),
                Err(fault) => self.faults.push(fault),
            }
            return;
        }
        let position = statement.position;
        let source = statement.original.clone();
        let value = match self.instruction(&statement) {
            Ok(value) => value,
            Err(fault) => return self.faults.push(fault),
        };
        match (self.stages.last_mut(), value) {
            (Some(stage), value) => stage.instructions.push(Located { position, source, value }),
            (None, Instruction::Arg(value)) => {
                self.arguments.push(Located { position, source, value });
            }
            (None, _) => {
                // A FROM that was refused still opened a stage; one complaint is enough.
                if self.faults.is_empty() {
                    let message = format!("{} stands before the first FROM", statement.keyword);
                    self.faults.push(Fault::new(position, message));
                }
            }
        }
    }

    fn stage(&mut self, statement: &Statement) -> Result<Stage, Fault> {
        let mut flags = Flags::read(statement, &mut self.faults);
        let (base, name) = match statement.words.as_slice() {
            [base] => (base, None),
            [base, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => {
                (base, Some(stage_name(name)?))
            }
            _ => {
                let message = "FROM takes an image, and after it AS and a name or nothing";
                return Err(Fault::new(statement.position, message));
            }
        };
        if name.is_some() && self.stages.iter().any(|stage| stage.name == name) {
            let message = format!("two stages have the name `{}`", name.unwrap_or_default());
            return Err(Fault::new(statement.position, message));
        }
        Ok(Stage {
            position: statement.position,
            source: statement.original.clone(),
            base: base.clone(),
            platform: flags.take("platform"),
            name,
            instructions: Vec::new(),
        })
    }

    fn instruction(&mut self, statement: &Statement) -> Result<Instruction, Fault> {
        match support::instruction(&statement.keyword) {
            Some(Support::Works(_)) => {}
            Some(Support::Refused(way)) => {
                let way = support::remedy(way);
                let message = format!("{} is not supported{way}", statement.keyword);
                return Err(fault(statement, message));
            }
            None => return Err(unknown(statement)),
        }
        let mut flags = Flags::read(statement, &mut self.faults);
        match statement.keyword.as_str() {
            "ARG" => arguments(statement).map(Instruction::Arg),
            "ENV" => pairs(statement).map(Instruction::Env),
            "LABEL" => pairs(statement).map(Instruction::Label),
            "WORKDIR" => one(statement).map(Instruction::Workdir),
            "USER" => one(statement).map(Instruction::User),
            "STOPSIGNAL" => one(statement).map(Instruction::StopSignal),
            "EXPOSE" => some(statement).map(Instruction::Expose),
            "VOLUME" => volumes(statement).map(Instruction::Volume),
            "COPY" => transfer(statement, &mut flags).map(Instruction::Copy),
            "ADD" => transfer(statement, &mut flags).map(Instruction::Add),
            "RUN" => run(statement).map(Instruction::Run),
            "CMD" => Ok(Instruction::Cmd(command(statement, &statement.words))),
            "ENTRYPOINT" => Ok(Instruction::Entrypoint(command(statement, &statement.words))),
            "HEALTHCHECK" => check(statement, &mut flags).map(Instruction::Healthcheck),
            "SHELL" => shell(statement).map(Instruction::Shell),
            _ => Err(unknown(statement)),
        }
    }
}

fn fault(statement: &Statement, message: impl Into<String>) -> Fault {
    Fault::new(statement.position, message)
}

fn unknown(statement: &Statement) -> Fault {
    fault(statement, format!("there is no instruction `{}`", statement.keyword))
}

fn stage_name(word: &Word) -> Result<String, Fault> {
    let name = word.text.to_ascii_lowercase();
    let starts_well = name.starts_with(|c: char| c.is_ascii_lowercase());
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c);
    if starts_well && name.chars().all(known) {
        return Ok(name);
    }
    let message = format!(
        "`{}` cannot name a stage: a letter first, then letters, digits, `-`, `_` and `.`",
        word.text
    );
    Err(Fault::new(word.position, message))
}

fn some(statement: &Statement) -> Result<Vec<Word>, Fault> {
    if statement.words.is_empty() {
        return Err(fault(statement, format!("{} needs an argument", statement.keyword)));
    }
    Ok(statement.words.clone())
}

fn one(statement: &Statement) -> Result<Word, Fault> {
    some(statement)?;
    match statement.words.as_slice() {
        [word] => Ok(word.clone()),
        _ => Err(fault(statement, format!("{} takes one argument", statement.keyword))),
    }
}

fn volumes(statement: &Statement) -> Result<Vec<Word>, Fault> {
    let words = some(statement)?;
    match words.iter().find(|word| word.text.trim().is_empty()) {
        Some(word) => Err(Fault::new(word.position, "a volume of VOLUME is empty")),
        None => Ok(words),
    }
}

fn arguments(statement: &Statement) -> Result<Vec<Argument>, Fault> {
    let read = |word: &Word| {
        let (name, default) = match word.text.split_once('=') {
            Some((name, default)) => {
                (name, Some(Word { text: default.to_owned(), position: word.position }))
            }
            None => (word.text.as_str(), None),
        };
        if name.is_empty() {
            return Err(Fault::new(word.position, "a name of ARG is empty"));
        }
        Ok(Argument { name: name.to_owned(), default, position: word.position })
    };
    some(statement)?.iter().map(read).collect()
}

fn pairs(statement: &Statement) -> Result<Vec<Pair>, Fault> {
    let words = some(statement)?;
    let pair = |pair: &[Word]| match pair {
        [name, value] => Some(Pair { name: name.clone(), value: value.clone() }),
        _ => None,
    };
    Ok(words.chunks(2).filter_map(pair).collect())
}

fn command(statement: &Statement, words: &[Word]) -> Command {
    match statement.form {
        Form::Json => Command::Exec(words.iter().map(|word| word.text.clone()).collect()),
        Form::Plain if words.is_empty() => Command::Exec(Vec::new()),
        Form::Plain => {
            Command::Shell(words.iter().map(|word| word.text.as_str()).collect::<String>())
        }
    }
}

fn run(statement: &Statement) -> Result<Command, Fault> {
    some(statement)?;
    let Command::Shell(line) = command(statement, &statement.words) else {
        return Ok(command(statement, &statement.words));
    };
    let Some(first) = statement.heredocs.first() else { return Ok(Command::Shell(line)) };
    if heredoc_word(&line.replace("<< ", "<<")).is_none() {
        // The shell gets the whole of it and reads the documents itself.
        let mut script = line;
        for document in &statement.heredocs {
            script.push('\n');
            script.push_str(&document.content);
            script.push_str(&document.name);
        }
        return Ok(Command::Shell(script));
    }
    if first.content.starts_with("#!") {
        let message = "a heredoc of RUN that starts with #! is not supported; \
                       COPY it to a file and run that";
        return Err(fault(statement, message));
    }
    Ok(Command::Shell(first.content.clone()))
}

fn shell(statement: &Statement) -> Result<Vec<String>, Fault> {
    match command(statement, &statement.words) {
        Command::Exec(words) if !words.is_empty() => Ok(words),
        _ => Err(fault(statement, "SHELL takes a JSON array, such as [\"/bin/bash\", \"-c\"]")),
    }
}

fn transfer(statement: &Statement, flags: &mut Flags) -> Result<Transfer, Fault> {
    let keyword = &statement.keyword;
    let Some((destination, sources)) = statement.words.split_last() else {
        return Err(fault(statement, format!("{keyword} needs a source and a destination")));
    };
    if sources.is_empty() {
        return Err(fault(statement, format!("{keyword} needs a destination after its source")));
    }
    let plain = statement.form == Form::Plain;
    let is_document = |word: &&Word| plain && heredoc_word(&word.text).is_some();
    if is_document(&destination) {
        return Err(Fault::new(destination.position, "a heredoc cannot be a destination"));
    }
    let sources: Vec<Word> = sources.iter().filter(|word| !is_document(word)).cloned().collect();
    for source in &sources {
        check_source(keyword, source)?;
    }
    if keyword == "ADD" && !statement.heredocs.is_empty() {
        return Err(fault(statement, "a heredoc of ADD is not supported; use COPY"));
    }
    let from = flags.take("from");
    if let Some(from) = from.as_ref().filter(|from| from.text.contains('$')) {
        return Err(Fault::new(from.position, "--from takes no variables; name a stage or image"));
    }
    if from.is_some() && sources.is_empty() {
        return Err(fault(statement, "--from has no meaning for a heredoc"));
    }
    Ok(Transfer {
        from,
        chown: flags.take("chown"),
        chmod: flags.take("chmod"),
        sources,
        documents: statement.heredocs.clone(),
        destination: destination.clone(),
    })
}

/// Refuses sources that would have to be fetched.
fn check_source(keyword: &str, source: &Word) -> Result<(), Fault> {
    let text = source.text.trim_start_matches(['"', '\'']);
    let remote = ["http://", "https://", "git://", "git@", "ssh://"];
    if remote.iter().any(|scheme| text.starts_with(scheme)) {
        let message = format!("{keyword} of a remote source is not supported: `{text}`");
        return Err(Fault::new(source.position, message));
    }
    Ok(())
}

fn check(statement: &Statement, flags: &mut Flags) -> Result<Check, Fault> {
    let Some((kind, words)) = statement.words.split_first() else {
        return Err(fault(statement, "HEALTHCHECK needs CMD and a command, or NONE"));
    };
    let command = match kind.text.to_ascii_uppercase().as_str() {
        "NONE" if words.is_empty() => None,
        "NONE" => return Err(fault(statement, "HEALTHCHECK NONE takes no arguments")),
        "CMD" if words.is_empty() => {
            return Err(fault(statement, "HEALTHCHECK CMD needs a command"));
        }
        "CMD" => Some(command(statement, words)),
        other => {
            let message = format!("HEALTHCHECK takes CMD or NONE, not `{other}`");
            return Err(Fault::new(kind.position, message));
        }
    };
    let mut time = |name| flags.take(name).map_or(Ok(0), |word| duration_ns(&word, name));
    Ok(Check {
        command,
        interval_ns: time("interval")?,
        timeout_ns: time("timeout")?,
        start_period_ns: time("start-period")?,
        start_interval_ns: time("start-interval")?,
        retries: flags.take("retries").map_or(Ok(0), |word| retries(&word))?,
    })
}

fn retries(word: &Word) -> Result<u64, Fault> {
    let message = || format!("--retries takes a whole number from 0 up, not `{}`", word.text);
    let count: u32 = word.text.parse().map_err(|_| Fault::new(word.position, message()))?;
    Ok(u64::from(count))
}

/// A duration as Go writes it: `1m30s`, `500ms`, `1.5h`. Zero, or at least a millisecond.
fn duration_ns(word: &Word, name: &str) -> Result<u64, Fault> {
    let nanoseconds = parse_duration(&word.text).ok_or_else(|| {
        let message =
            format!("--{name} takes a duration such as 30s or 1m30s, not `{}`", word.text);
        Fault::new(word.position, message)
    })?;
    if nanoseconds != 0 && nanoseconds < 1_000_000 {
        let message = format!("--{name} is shorter than a millisecond: `{}`", word.text);
        return Err(Fault::new(word.position, message));
    }
    Ok(nanoseconds)
}

fn parse_duration(text: &str) -> Option<u64> {
    if text == "0" {
        return Some(0);
    }
    let mut rest = text;
    let mut total: u64 = 0;
    while !rest.is_empty() {
        let number_end = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_end);
        let unit_end = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        total = total.checked_add(span_ns(number, unit)?)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

fn span_ns(number: &str, unit: &str) -> Option<u64> {
    let unit: u64 = match unit {
        "ns" => 1,
        "us" | "µs" | "μs" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60 * 1_000_000_000,
        "h" => 3600 * 1_000_000_000,
        _ => return None,
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    let digits = |text: &str| if text.is_empty() { Some(0) } else { text.parse::<u64>().ok() };
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let scale = 10_u64.pow(u32::try_from(fraction.len()).ok()?);
    let fraction = u128::from(digits(fraction)?) * u128::from(unit) / u128::from(scale);
    digits(whole)?.checked_mul(unit)?.checked_add(u64::try_from(fraction).ok()?)
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
