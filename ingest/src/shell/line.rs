//! Work that all cores do in parts, concluded in the order of the parts by whoever has the next one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Parts that wait until all in front of them are concluded.
pub(super) struct Line<T, E>(Mutex<Waiting<T, E>>);

struct Waiting<T, E> {
    early: BTreeMap<usize, Result<T, E>>,
    next: usize,
    /// Somebody concludes parts, and will look for more.
    busy: bool,
    failed: Option<E>,
}

impl<T, E> Default for Line<T, E> {
    fn default() -> Self {
        Line(Mutex::new(Waiting { early: BTreeMap::new(), next: 0, busy: false, failed: None }))
    }
}

impl<T, E> Line<T, E> {
    /// Takes in a part, and concludes all that are next, unless another does. After an error nothing more is
    /// concluded.
    pub(super) fn come(
        &self,
        number: usize,
        part: Result<T, E>,
        mut conclude: impl FnMut(usize, T) -> Result<(), E>,
    ) {
        let mut waiting = self.waiting();
        waiting.early.insert(number, part);
        if waiting.busy || waiting.failed.is_some() {
            return;
        }
        waiting.busy = true;
        loop {
            let next = waiting.next;
            let Some(part) = waiting.early.remove(&next) else { break };
            drop(waiting);
            let concluded = part.and_then(|part| conclude(next, part));
            waiting = self.waiting();
            waiting.next += 1;
            if let Err(error) = concluded {
                waiting.failed = Some(error);
                break;
            }
        }
        waiting.busy = false;
    }

    /// What became of the parts, when all have come.
    pub(super) fn ended(self) -> Result<(), E> {
        let waiting = self.0.into_inner().unwrap_or_else(PoisonError::into_inner);
        waiting.failed.map_or(Ok(()), Err)
    }

    fn waiting(&self) -> MutexGuard<'_, Waiting<T, E>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Whatever the order in which they come, and on however many threads, parts are concluded in theirs; and
        /// after the first that fails, none.
        #[test]
        fn parts_are_concluded_in_their_order(
            order in Just((0..40usize).collect::<Vec<_>>()).prop_shuffle(),
            fails in prop::option::of(0..40usize),
            fails_early in any::<bool>(),
        ) {
            let line = Line::default();
            let concluded = Mutex::new(Vec::new());
            let next = AtomicUsize::new(0);
                        std::thread::scope(|scope| {
                for _ in 0..3 {
                    scope.spawn(|| {
                        while let Some(&number) = order.get(next.fetch_add(1, Ordering::Relaxed)) {
                            let is_bad = fails == Some(number);
                            let part = if is_bad && fails_early { Err("a test") } else { Ok(2 * number) };
                            line.come(number, part, |number, part| {
                                assert_eq!(part, 2 * number);
                                if fails == Some(number) {
                                    return Err("a test");
                                }
                                concluded.lock().unwrap().push(number);
                                Ok(())
                            });
                        }
                    });
                }
            });
            prop_assert_eq!(line.ended().is_err(), fails.is_some());
            let expected: Vec<usize> = (0..fails.unwrap_or(order.len())).collect();
            prop_assert_eq!(concluded.into_inner().unwrap(), expected);
        }
    }
}
