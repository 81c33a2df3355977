use std::process::ExitCode;
use std::time::{Duration, Instant};

use carrack_container_runtime::{ContainerId, Status};
use carrack_linux::process;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use serde::Serialize;

use super::{Command, Context, Failed};
use crate::options::{Arguments, Count, Flag, Usage};
use crate::output;
use crate::stats::Counters;

pub(super) const EVENTS: Command = Command {
    name: "events",
    arguments: "ID",
    about: "show what a container uses, and when it runs out of memory",
    details: "One JSON object a line, until the container ends.",
    flags: &[
        Flag::valued("interval", "TIME", "time between two lines, such as 1m30s [default: 5s]"),
        Flag::switch("stats", "show one line and end"),
    ],
    words: Count::Exactly(1),
    run: events,
};

/// A line, under runc's keys and in its order.
#[derive(Debug, Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Counters>,
}

fn events(context: &Context, arguments: &mut Arguments) -> Result<ExitCode, Failed> {
    let id = arguments.id()?;
    let interval = match arguments.text("interval")? {
        None => Duration::from_secs(5),
        Some(text) => duration(text).ok_or_else(|| {
            Usage(format!("--interval: {text:?} is not a time such as 500ms or 5s"))
        })?,
    };
    if interval.is_zero() {
        return Err(Usage("duration interval must be greater than 0".into()).into());
    }
    if context.runtime.state(&id)?.status == Status::Stopped {
        return Err(Usage(format!("container with id {id} is not running")).into());
    }
    if arguments.is_on("stats") {
        tell_stats(context, &id)?;
    } else {
        follow(context, &id, interval)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn tell(event: &Event<'_>) -> Result<(), Failed> {
    output::print(&format!("{}\n", serde_json::to_string(event)?))?;
    Ok(())
}

fn tell_stats(context: &Context, id: &ContainerId) -> Result<(), Failed> {
    let data = Some(Counters::from(context.runtime.stats(id)?));
    tell(&Event { kind: "stats", id: id.as_str(), data })
}

/// Tells until the first process is gone.
fn follow(context: &Context, id: &ContainerId, interval: Duration) -> Result<(), Failed> {
    let Some(pid) = context.runtime.state(id)?.pid else { return Ok(()) };
    let pidfd = process::open(pid)?;
    let mut memory = context.runtime.watch_oom(id)?;
    let mut next = Instant::now() + interval;
    loop {
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec::try_from(left).unwrap_or_default();
        let mut watched = [PollFd::new(&pidfd, PollFlags::IN), PollFd::new(&memory, PollFlags::IN)];
        let told = match rustix::event::poll(&mut watched, Some(&left)) {
            Ok(told) => told,
            Err(Errno::INTR) => continue,
            Err(error) => return Err(std::io::Error::from(error).into()),
        };
        let [ended, short] = watched.map(|watched| !watched.revents().is_empty());
        // Version 1 tells before it counts, so the last is looked for at the end.
        if short || ended {
            for _ in 0..memory.take()?.count {
                tell(&Event { kind: "oom", id: id.as_str(), data: None })?;
            }
        }
        if ended {
            return Ok(());
        }
        if told == 0 {
            next += interval;
            if let Err(Failed::Error(error, _)) = tell_stats(context, id) {
                // Gone between the two looks, or a counter that may be there next time;
                // an output that nobody reads any more ends us.
                if error.downcast_ref::<std::io::Error>().is_some() {
                    return Err(Failed::Error(error, 1));
                }
                context.log().warn(&output::chain(error.as_ref()));
            }
        }
    }
}

/// A time as Go writes it: numbers with units, such as `1m30s`, `1.5s` and `500ms`.
fn duration(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut nanos = 0_f64;
    while !rest.is_empty() {
        let end = rest.find(|letter: char| !letter.is_ascii_digit() && letter != '.')?;
        let (number, after) = rest.split_at(end);
        let number: f64 = number.parse().ok()?;
        let units = [
            ("ns", 1.0),
            ("us", 1e3),
            ("µs", 1e3),
            ("ms", 1e6),
            ("s", 1e9),
            ("m", 60e9),
            ("h", 3600e9),
        ];
        let (unit, factor) = units.iter().find(|(unit, _)| {
            after.strip_prefix(unit).is_some_and(|left| {
                left.is_empty() || left.starts_with(|letter: char| letter.is_ascii_digit())
            })
        })?;
        nanos += number * factor;
        rest = after.strip_prefix(unit)?;
    }
    (!text.is_empty()).then(|| Duration::try_from_secs_f64(nanos / 1e9).ok()).flatten()
}
