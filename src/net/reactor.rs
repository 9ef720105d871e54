//! Who is told when a descriptor is ready: registrations, each with a slot, and what has become ready of them.
//!
//! One reactor serves one Lua state. It knows slots, never tasks: the embedded Lua knows who waits on which. A
//! slot is used again after its registration has gone, so events carry the slot's generation.

use std::cell::Cell;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::os::fd::RawFd;
use std::rc::Rc;
use std::time::Instant;

use crate::deadline::Deadline;
use crate::sys::memory;
use crate::sys::poller;
use crate::sys::poller::Woken;
use crate::sys::selector::Change;
use crate::sys::selector::Selector;

#[derive(Default)]
pub struct Reactor {
    /// Made when the first descriptor is to be watched.
    selector: RefCell<Option<Selector>>,
    slots: RefCell<Slots>,
    /// What the last `wait` brought and nobody has taken yet.
    changes: RefCell<VecDeque<Change>>,
    /// The next `wait` has nothing to wait for.
    is_roused: Cell<bool>,
}

/// Watches the descriptors of one connection, listener or dial.
pub struct Registration {
    reactor: Rc<Reactor>,
    slot: usize,
    token: usize,
    state: Rc<State>,
}

/// What a registration and its slot both hold.
#[derive(Default)]
struct State {
    /// All that had arrived was read, and nothing has changed since: another read would find nothing.
    is_drained: Cell<bool>,
    /// See `Change::last`.
    has_ended: Cell<bool>,
    /// Whoever waits wants to know of any change.
    is_any: Cell<bool>,
}

/// A change that belongs to a registration that is there.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ready {
    pub slot: usize,
    pub readable: bool,
    pub writable: bool,
}

/// Half of a token's bits are the slot, half its generation.
const HALF: u32 = usize::BITS / 2;
const SLOT: usize = (1 << HALF) - 1;

#[derive(Default)]
struct Slots {
    slots: Vec<Slot>,
    free: Vec<usize>,
}

#[derive(Default)]
struct Slot {
    generation: usize,
    state: Option<Rc<State>>,
}

impl Reactor {
    /// Blocks until something changes or `deadline` passes. The changes are then there to take.
    pub fn wait(&self, deadline: Deadline) -> io::Result<Woken> {
        memory::give_back();
        let deadline = if self.is_roused.take() { Deadline::at(Instant::now()) } else { deadline };
        let mut changes = self.changes.borrow_mut();
        match &mut *self.selector.borrow_mut() {
            _ if !changes.is_empty() => Ok(Woken::Ready),
            Some(selector) => {
                let slots = self.slots.borrow();
                selector.select(deadline, |change| {
                    slots.note(change);
                    changes.push_back(change);
                })
            }
            None if deadline.passed(Instant::now()) => Ok(Woken::TimedOut),
            None => poller::wait(&[], deadline),
        }
    }

    /// Somebody has something to do: the next `wait` ends at once.
    pub fn rouse(&self) {
        self.is_roused.set(true);
    }

    pub fn take(&self) -> Option<Ready> {
        let mut changes = self.changes.borrow_mut();
        let slots = self.slots.borrow();
        while let Some(change) = changes.pop_front() {
            if let Some(ready) = slots.ready(change) {
                return Some(ready);
            }
        }
        None
    }

    /// How many registrations there are.
    pub fn len(&self) -> usize {
        let slots = self.slots.borrow();
        slots.slots.len() - slots.free.len()
    }

    /// The descriptor for loops of others: readable when something has changed, or at the alarm.
    pub fn descriptor(&self) -> io::Result<RawFd> {
        self.with_selector(|selector| Ok(selector.raw()))
    }

    pub fn set_alarm(&self, at: Deadline) -> io::Result<()> {
        self.with_selector(|selector| selector.set_alarm(at))
    }

    fn with_selector<T>(&self, use_it: impl FnOnce(&mut Selector) -> io::Result<T>) -> io::Result<T> {
        let mut selector = self.selector.borrow_mut();
        match &mut *selector {
            Some(selector) => use_it(selector),
            none => use_it(none.insert(Selector::new()?)),
        }
    }
}

impl Registration {
    pub fn new(reactor: &Rc<Reactor>) -> Self {
        let state = Rc::new(State::default());
        let (slot, token) = reactor.slots.borrow_mut().take(Rc::clone(&state));
        Self { reactor: Rc::clone(reactor), slot, token, state }
    }

    /// Of several descriptors one after the other: any change of any of them wakes.
    pub fn of_any(reactor: &Rc<Reactor>) -> Self {
        let it = Self::new(reactor);
        it.state.is_any.set(true);
        it
    }

    /// Whether any change wakes whoever waits, or only the kind that is waited for.
    pub fn set_any(&self, any: bool) {
        self.state.is_any.set(any);
    }

    /// Wakes everybody who waits: what they waited for may have gone by.
    pub fn rouse(&self) {
        let change = Change { token: self.token, readable: true, writable: true, last: false };
        self.reactor.changes.borrow_mut().push_back(change);
    }

    pub fn add(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.reactor.with_selector(|selector| selector.add(fd, self.token))
    }

    /// To be called before the descriptor is closed: a process that was forked may keep it open.
    pub fn remove(&self, fd: BorrowedFd<'_>) {
        // It fails for descriptors that are always ready only, which are not watched.
        let _ = self.reactor.with_selector(|selector| selector.remove(fd));
    }

    pub fn slot(&self) -> usize {
        self.slot
    }

    /// A read has taken all there was. If what comes next will be a change, another read need not be tried before.
    pub fn set_drained(&self) {
        self.state.is_drained.set(!self.state.has_ended.get());
    }

    /// Whether a read would find nothing. It says so once: a wait has to follow.
    pub fn take_drained(&self) -> bool {
        self.state.is_drained.replace(false)
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        self.reactor.slots.borrow_mut().give_back(self.slot);
    }
}

impl Slots {
    fn take(&mut self, state: Rc<State>) -> (usize, usize) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot::default());
            self.slots.len() - 1
        });
        debug_assert!(slot <= SLOT);
        self.slots[slot].state = Some(state);
        (slot, self.slots[slot].generation << HALF | slot)
    }

    fn give_back(&mut self, slot: usize) {
        let it = &mut self.slots[slot];
        it.state = None;
        it.generation = (it.generation + 1) & SLOT;
        self.free.push(slot);
    }

    fn note(&self, change: Change) {
        if let Some(state) = self.state(change.token) {
            state.is_drained.set(state.is_drained.get() && !change.readable);
            state.has_ended.set(state.has_ended.get() || change.last);
        }
    }

    fn ready(&self, change: Change) -> Option<Ready> {
        let any = self.state(change.token)?.is_any.get();
        let slot = change.token & SLOT;
        Some(Ready { slot, readable: change.readable || any, writable: change.writable || any })
    }

    /// `None` if the token's registration has gone.
    fn state(&self, token: usize) -> Option<&State> {
        let slot = self.slots.get(token & SLOT).filter(|slot| slot.generation == token >> HALF)?;
        slot.state.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::os::fd::AsFd;

    use super::*;

    fn now() -> Deadline {
        Deadline::at(Instant::now())
    }

    #[test]
    fn a_change_reaches_its_registration() {
        let reactor = Rc::new(Reactor::default());
        let (reader, mut writer) = io::pipe().unwrap();
        let registration = Registration::new(&reactor);
        registration.add(reader.as_fd()).unwrap();
        registration.set_drained();
        writer.write_all(b"x").unwrap();
        assert_eq!(reactor.wait(Deadline::NEVER).unwrap(), Woken::Ready);
        let ready = Ready { slot: registration.slot(), readable: true, writable: false };
        assert_eq!((reactor.take(), reactor.take()), (Some(ready), None));
        assert!(!registration.take_drained(), "a change ends that");
    }

    #[test]
    fn a_change_of_a_registration_that_has_gone_reaches_nobody() {
        let reactor = Rc::new(Reactor::default());
        let (reader, mut writer) = io::pipe().unwrap();
        let old = Registration::new(&reactor);
        old.add(reader.as_fd()).unwrap();
        writer.write_all(b"x").unwrap();
        reactor.wait(Deadline::NEVER).unwrap();
        let slot = old.slot();
        drop(old);
        let new = Registration::new(&reactor);
        assert_eq!(new.slot(), slot, "slots are used again");
        assert_eq!(reactor.take(), None);
        drop(new);
        assert_eq!(reactor.len(), 0);
    }

    #[test]
    fn after_the_end_of_a_stream_nothing_counts_as_drained() {
        let reactor = Rc::new(Reactor::default());
        let (reader, writer) = io::pipe().unwrap();
        let registration = Registration::new(&reactor);
        registration.add(reader.as_fd()).unwrap();
        registration.set_drained();
        assert!(registration.take_drained() && !registration.take_drained());
        drop(writer);
        reactor.wait(Deadline::NEVER).unwrap();
        assert!(reactor.take().is_some());
        registration.set_drained();
        assert!(!registration.take_drained());
    }

    #[test]
    fn without_a_descriptor_to_watch_there_is_still_time() {
        assert_eq!(Reactor::default().wait(now()).unwrap(), Woken::TimedOut);
    }
}
