//! Interleaved measurement: one call of each contender in turn, many rounds,
//! so that whatever the machine does meanwhile it does to all of them.

use std::time::{Duration, Instant};

/// Something measured, by name.
pub(crate) struct Contender<'a> {
    pub(crate) name: &'static str,
    pub(crate) work: Box<dyn FnMut() -> anyhow::Result<()> + 'a>,
}

/// The figures of one contender.
pub(crate) struct Figures {
    pub(crate) name: &'static str,
    pub(crate) median: Duration,
    pub(crate) p99: Duration,
}

/// Runs every contender once per round, after a few rounds that do not count.
pub(crate) fn interleaved(
    rounds: usize,
    mut contenders: Vec<Contender<'_>>,
) -> anyhow::Result<Vec<Figures>> {
    let mut times: Vec<Vec<Duration>> = contenders.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds + 3 {
        for (contender, times) in contenders.iter_mut().zip(&mut times) {
            let started = Instant::now();
            (contender.work)()?;
            if round >= 3 {
                times.push(started.elapsed());
            }
        }
    }
    let figures = contenders.iter().zip(times).map(|(contender, mut times)| {
        times.sort_unstable();
        Figures { name: contender.name, median: quantile(&times, 50), p99: quantile(&times, 99) }
    });
    Ok(figures.collect())
}

fn quantile(sorted: &[Duration], percent: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * percent / 100).copied().unwrap_or_default()
}

/// Prints each contender and, for all but the first, the first's ratio to it.
pub(crate) fn print(what: &str, figures: &[Figures]) {
    println!("{what}");
    let Some(ours) = figures.first() else { return };
    for figure in figures {
        let ratio = ours.median.as_secs_f64() / figure.median.as_secs_f64();
        println!(
            "  {:<22} median {:>9.3} ms   p99 {:>9.3} ms   {} / this = {ratio:.2}",
            figure.name,
            figure.median.as_secs_f64() * 1e3,
            figure.p99.as_secs_f64() * 1e3,
            ours.name,
        );
    }
}
