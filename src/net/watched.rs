//! A descriptor that the loop can watch.

use std::io;
use std::ops::Deref;
use std::ops::DerefMut;
use std::os::fd::AsFd;
use std::rc::Rc;

use crate::net::reactor::Reactor;
use crate::net::reactor::Registration;

/// Once the loop watches it, it does so until this is dropped.
pub struct Watched<T: AsFd> {
    it: T,
    registration: Option<Registration>,
}

impl<T: AsFd> Watched<T> {
    pub fn new(it: T) -> Self {
        Self { it, registration: None }
    }

    /// Has the loop watch it; the slot is where it is told.
    pub fn watch(&mut self, reactor: &Rc<Reactor>) -> io::Result<usize> {
        if let Some(registration) = &self.registration {
            return Ok(registration.slot());
        }
        let registration = Registration::new(reactor);
        registration.add(self.it.as_fd())?;
        Ok(self.registration.insert(registration).slot())
    }
}

impl<T: AsFd> Deref for Watched<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.it
    }
}

impl<T: AsFd> DerefMut for Watched<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.it
    }
}

impl<T: AsFd> Drop for Watched<T> {
    fn drop(&mut self) {
        if let Some(registration) = &self.registration {
            registration.remove(self.it.as_fd());
        }
    }
}
