//! Waking one task for several things that it drives together.
//!
//! A connection and the request on it tell each other, by waking, that there is something to do.
//! When one task polls both, such a wake says only what the next poll within the same turn finds
//! out anyway. To the runtime it would look like a task that yields: it would be queued again, and
//! another thread be woken for it, several times for each request.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use futures_util::task::AtomicWaker;

/// Polls in one turn at most; what still asks for more then waits for its next turn.
const ROUNDS: usize = 8;

const RESTING: u8 = 0;
const POLLING: u8 = 1;
const AGAIN: u8 = 2;

/// Takes the wakes of what is polled with it: during a poll they lead to another round, otherwise
/// they wake the task.
#[derive(Default)]
pub(super) struct Nudge {
    state: AtomicU8,
    task: AtomicWaker,
}

impl Nudge {
    /// Polls until it is ready, or nothing asked for more while it was polled.
    pub(super) fn poll<T>(
        self: &Arc<Self>,
        context: &Context<'_>,
        mut poll: impl FnMut(&mut Context<'_>) -> Poll<T>,
    ) -> Poll<T> {
        self.task.register(context.waker());
        let waker = Waker::from(Arc::clone(self));
        for _ in 0..ROUNDS {
            self.state.store(POLLING, Ordering::Release);
            let polled = poll(&mut Context::from_waker(&waker));
            let again = self.state.swap(RESTING, Ordering::AcqRel) == AGAIN;
            if polled.is_ready() || !again {
                return polled;
            }
        }
        context.waker().wake_by_ref();
        Poll::Pending
    }

    /// Does what may wake us, when all of it is polled next in any case.
    pub(super) fn before_poll<T>(&self, act: impl FnOnce() -> T) -> T {
        self.state.store(POLLING, Ordering::Release);
        let done = act();
        self.state.store(RESTING, Ordering::Release);
        done
    }
}

impl Wake for Nudge {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let noted =
            self.state.compare_exchange(POLLING, AGAIN, Ordering::AcqRel, Ordering::Acquire);
        if noted == Err(RESTING) {
            self.task.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;

    #[derive(Default)]
    struct Wakes(AtomicUsize);

    impl Wake for Wakes {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn task() -> (Arc<Wakes>, Waker) {
        let wakes = Arc::new(Wakes::default());
        (Arc::clone(&wakes), Waker::from(wakes))
    }

    #[test]
    fn a_wake_during_the_poll_leads_to_another_round_and_wakes_nobody() {
        let (wakes, waker) = task();
        let nudge = Arc::new(Nudge::default());
        let mut rounds = 0;
        let polled = nudge.poll(&Context::from_waker(&waker), |context| {
            rounds += 1;
            if rounds < 3 {
                context.waker().wake_by_ref();
            }
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((rounds, wakes.0.load(Ordering::Relaxed)), (3, 0));
    }

    #[test]
    fn a_wake_after_the_poll_wakes_the_task() {
        let (wakes, waker) = task();
        let nudge = Arc::new(Nudge::default());
        let mut kept = None;
        let polled = nudge.poll(&Context::from_waker(&waker), |context| {
            kept = Some(context.waker().clone());
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        kept.expect("polled").wake();
        assert_eq!(wakes.0.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_wake_just_before_the_poll_wakes_nobody() {
        let (wakes, waker) = task();
        let nudge = Arc::new(Nudge::default());
        nudge.task.register(&waker);
        nudge.before_poll(|| Waker::from(Arc::clone(&nudge)).wake());
        assert_eq!(wakes.0.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn what_never_has_enough_gets_its_next_turn_from_the_runtime() {
        let (wakes, waker) = task();
        let nudge = Arc::new(Nudge::default());
        let mut rounds = 0;
        let polled = nudge.poll(&Context::from_waker(&waker), |context| {
            rounds += 1;
            context.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        assert!(polled.is_pending());
        assert_eq!((rounds, wakes.0.load(Ordering::Relaxed)), (ROUNDS, 1));
    }
}
