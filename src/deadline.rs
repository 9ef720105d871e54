//! A moment on the monotonic clock after which waiting ends, or never.

use std::time::Duration;
use std::time::Instant;

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Deadline(Option<Instant>);

impl Deadline {
    pub const NEVER: Self = Self(None);

    /// `None` is no limit; so is a time too far away for the clock.
    pub fn after(now: Instant, limit: Option<Duration>) -> Self {
        Self(limit.and_then(|limit| now.checked_add(limit)))
    }

    pub fn at(moment: Instant) -> Self {
        Self(Some(moment))
    }

    /// Whichever comes first.
    pub fn earliest(self, other: Self) -> Self {
        match (self.0, other.0) {
            (Some(a), Some(b)) => Self(Some(a.min(b))),
            (a, b) => Self(a.or(b)),
        }
    }

    /// The time left: zero once passed, `None` if it never comes.
    pub fn remaining(self, now: Instant) -> Option<Duration> {
        self.0.map(|at| at.saturating_duration_since(now))
    }

    pub fn passed(self, now: Instant) -> bool {
        self.0.is_some_and(|at| at <= now)
    }

    pub fn passed_by_now(self) -> bool {
        self != Self::NEVER && self.passed(Instant::now())
    }

    pub fn moment(self) -> Option<Instant> {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_does_not_pass_and_has_no_remaining_time() {
        let now = Instant::now();
        assert!(!Deadline::NEVER.passed(now));
        assert_eq!(Deadline::NEVER.remaining(now), None);
        assert_eq!(Deadline::after(now, Some(Duration::MAX)), Deadline::NEVER);
    }

    #[test]
    fn the_earliest_of_two_wins() {
        let now = Instant::now();
        let soon = Deadline::after(now, Some(Duration::from_secs(1)));
        let late = Deadline::after(now, Some(Duration::from_secs(2)));
        assert_eq!(soon.earliest(late), soon);
        assert_eq!(late.earliest(soon), soon);
        assert_eq!(Deadline::NEVER.earliest(late), late);
    }

    #[test]
    fn zero_has_passed_at_once() {
        let now = Instant::now();
        assert!(Deadline::after(now, Some(Duration::ZERO)).passed(now));
        assert_eq!(Deadline::after(now, Some(Duration::ZERO)).remaining(now), Some(Duration::ZERO));
    }
}
