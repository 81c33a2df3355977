//! Interleaved measurement: one call of each contender in turn, many rounds,
//! so that whatever the machine does meanwhile it does to all of them. The turn
//! is another one each round: what one contender leaves behind in the kernel
//! must not always meet the same next one.

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
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    let mut turns = Turns(0x9e37_79b9_7f4a_7c15);
    for round in 0..rounds + 3 {
        turns.shuffle(&mut order);
        for &index in &order {
            let (Some(contender), Some(times)) = (contenders.get_mut(index), times.get_mut(index))
            else {
                continue;
            };
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

/// The same order of turns in every run.
struct Turns(u64);

impl Turns {
    fn next(&mut self) -> u64 {
        // Marsaglia's xorshift.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn shuffle(&mut self, order: &mut [usize]) {
        for last in (1..order.len()).rev() {
            let bound = u64::try_from(last + 1).unwrap_or(1);
            order.swap(last, usize::try_from(self.next() % bound).unwrap_or(0));
        }
    }
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
        let ratio = |ours: Duration, theirs: Duration| ours.as_secs_f64() / theirs.as_secs_f64();
        println!(
            "  {:<22} median {:>9.3} ms   p99 {:>9.3} ms   {} / this = {:.2}, p99 {:.2}",
            figure.name,
            figure.median.as_secs_f64() * 1e3,
            figure.p99.as_secs_f64() * 1e3,
            ours.name,
            ratio(ours.median, figure.median),
            ratio(ours.p99, figure.p99),
        );
    }
}
