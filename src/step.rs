//! The two ways a step of work can end: with its result, or with what it has to wait for.

/// Would-block is a value here, not an error.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[must_use]
pub enum Step<T> {
    Ready(T),
    Wait(Interest),
}

impl<T> Step<T> {
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Step<U> {
        match self {
            Step::Ready(value) => Step::Ready(f(value)),
            Step::Wait(interest) => Step::Wait(interest),
        }
    }
}

/// What has to happen before the step is worth trying again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Interest {
    /// The descriptor can be read.
    Read,
    /// The descriptor can be written, or its connect has ended.
    Write,
    /// Nothing: it has done enough at a stretch, others come first.
    Pass,
    /// The writes that were called before this one have ended.
    Turn,
}
