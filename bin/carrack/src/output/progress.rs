//! Progress on stderr: bars on a terminal, plain lines otherwise.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use indicatif::{MultiProgress, ProgressBar, ProgressStyle};

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Mode {
    /// Bars on a terminal, lines otherwise.
    #[default]
    Auto,
    /// One line for each thing that happened.
    Plain,
    /// Bars, wherever stderr goes.
    Tty,
    /// Nothing.
    Quiet,
}

const SPINNING: &str = "{prefix:<24} {spinner} {wide_msg}";
const MOVING: &str = "{prefix:<24} [{bar:24}] {bytes:>10} of {total_bytes:<10} {wide_msg}";
const DONE: &str = "{prefix:<24} {wide_msg}";

/// Shows named tasks, each with a state, on stderr.
pub(crate) struct Display {
    bars: Option<MultiProgress>,
    quiet: bool,
    tasks: Mutex<HashMap<String, ProgressBar>>,
}

impl Display {
    pub(crate) fn new(mode: Mode) -> Self {
        let bars = match mode {
            Mode::Auto => super::is_interactive(),
            Mode::Tty => true,
            Mode::Plain | Mode::Quiet => false,
        };
        Self {
            bars: bars.then(MultiProgress::new),
            quiet: mode == Mode::Quiet,
            tasks: Mutex::default(),
        }
    }

    /// `task` is under way and doing `what`.
    pub(crate) fn doing(&self, task: &str, what: &str) {
        match &self.bars {
            Some(_) => {
                let bar = self.bar(task);
                bar.set_style(style(SPINNING));
                bar.set_message(what.to_owned());
            }
            None => self.line(task, what),
        }
    }

    /// `task` is moving bytes, `what` of them now. Not shown as lines.
    pub(crate) fn moved(&self, task: &str, what: &str, done: u64, total: u64) {
        if self.bars.is_some() {
            let bar = self.bar(task);
            bar.set_style(style(MOVING));
            bar.set_length(total);
            bar.set_position(done);
            bar.set_message(what.to_owned());
        }
    }

    /// `task` has ended with `what`.
    pub(crate) fn done(&self, task: &str, what: &str) {
        match &self.bars {
            Some(_) => {
                let bar = self.bar(task);
                bar.set_style(style(DONE));
                bar.finish_with_message(what.to_owned());
            }
            None => self.line(task, what),
        }
    }

    /// Says something that belongs to no task.
    pub(crate) fn say(&self, text: &str) {
        match &self.bars {
            Some(bars) => bars.println(text).ok().unwrap_or_default(),
            None if self.quiet => {}
            None => super::message(text),
        }
    }

    /// Whether what is shown moves: bars on a terminal.
    pub(crate) fn is_live(&self) -> bool {
        self.bars.is_some()
    }

    /// Whether the output of build steps is shown as it comes.
    pub(crate) fn shows_output(&self) -> bool {
        self.bars.is_none() && !self.quiet
    }

    fn line(&self, task: &str, what: &str) {
        if !self.quiet {
            super::message(format_args!("{task}: {what}"));
        }
    }

    fn bar(&self, task: &str) -> ProgressBar {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let bar = tasks.entry(task.to_owned()).or_insert_with(|| {
            let bar =
                ProgressBar::new_spinner().with_style(style(SPINNING)).with_prefix(task.to_owned());
            bar.enable_steady_tick(Duration::from_millis(120));
            match &self.bars {
                Some(bars) => bars.add(bar),
                None => bar,
            }
        });
        bar.clone()
    }
}

fn style(template: &str) -> ProgressStyle {
    let style = ProgressStyle::with_template(template);
    style.unwrap_or_else(|_| ProgressStyle::default_spinner()).progress_chars("=> ")
}
