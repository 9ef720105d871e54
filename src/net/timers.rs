//! Moments at which somebody wants to be woken, the next one first.

use std::collections::BTreeSet;
use std::time::Instant;

use crate::deadline::Deadline;

/// Who is to be woken.
pub type Id = u64;

#[derive(Default)]
pub struct Timers(BTreeSet<(Instant, Id)>);

impl Timers {
    pub fn arm(&mut self, id: Id, at: Instant) {
        self.0.insert((at, id));
    }

    /// Undoes `arm` with the same moment.
    pub fn disarm(&mut self, id: Id, at: Instant) {
        self.0.remove(&(at, id));
    }

    pub fn next(&self) -> Deadline {
        self.0.first().map_or(Deadline::NEVER, |(at, _)| Deadline::at(*at))
    }

    /// Takes one whose moment has come.
    pub fn take_due(&mut self, now: Instant) -> Option<Id> {
        let (at, id) = *self.0.first()?;
        (at <= now).then(|| {
            self.0.pop_first();
            id
        })
    }

    pub fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn they_come_due_in_order_and_not_before_their_time() {
        let mut timers = Timers::default();
        let now = Instant::now();
        let at = |seconds| now + Duration::from_secs(seconds);
        timers.arm(1, at(2));
        timers.arm(2, at(1));
        timers.arm(3, at(1));
        assert_eq!(timers.next(), Deadline::at(at(1)));
        assert_eq!(timers.take_due(now), None);
        assert_eq!(
            (timers.take_due(at(1)), timers.take_due(at(1)), timers.take_due(at(1))),
            (Some(2), Some(3), None)
        );
        timers.disarm(1, at(2));
        assert_eq!((timers.len(), timers.next()), (0, Deadline::NEVER));
    }
}
