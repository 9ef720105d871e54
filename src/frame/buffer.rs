//! Bytes that have arrived and were not read yet.
//!
//! Two offsets into one allocation: consuming moves the first, arriving moves the second, and what is left
//! moves to the front only when room at the back has run out. It grows as bytes arrive, never because
//! somebody claimed that they will.

use std::cell::Cell;
use std::hint::black_box;
use std::sync::Once;

use crate::error::Error;

#[derive(Default)]
pub struct Buffer {
    /// Always initialised up to its length; `start..end` is what has arrived.
    bytes: Vec<u8>,
    /// `start <= end <= bytes.len()`
    start: usize,
    end: usize,
}

/// Room made for the first read into an empty buffer.
const FIRST_ROOM: usize = 8 * 1024;

/// Room for a TLS record of the largest size (RFC 8446, section 5.2).
pub const RECORD_ROOM: usize = 5 + 16 * 1024 + 256;

/// Room for whoever moves much at once: four records.
pub const LARGE_ROOM: usize = 4 * RECORD_ROOM;

/// A buffer larger than this is given back as soon as it is empty.
const KEPT: usize = LARGE_ROOM;

/// The sizes of which a buffer that was given back is kept for the next connection: memory fresh from the system would
/// have to be touched page by page.
const SIZES: [usize; 3] = [FIRST_ROOM, RECORD_ROOM, LARGE_ROOM];

thread_local! {
    static SPARES: [Cell<Vec<u8>>; SIZES.len()] = const { [const { Cell::new(Vec::new()) }; SIZES.len()] };
}

/// Has glibc keep the memory of large strings that Lua's collector frees, instead of giving it to the system and fetching it
/// anew page by page: it keeps more once a block has been freed that is larger still (mallopt(3), M_MMAP_THRESHOLD). That
/// is 15 % of the time of receiving much over TLS.
pub fn keep_freed_memory() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| drop(black_box(Vec::<u8>::with_capacity(1 << 20))));
}

fn take_spare(wanted: usize) -> Vec<u8> {
    let wanted = wanted.max(FIRST_ROOM);
    let size = SIZES.iter().position(|size| *size == wanted);
    size.map_or_else(Vec::new, |size| SPARES.with(|spares| spares[size].take()))
}

impl Buffer {
    /// Room for at least `wanted` bytes behind what is there. Grows by doubling, so that the cost of a long
    /// read stays linear. What a peer sends must not end the process: want of memory is an error.
    pub fn room(&mut self, wanted: usize) -> Result<&mut [u8], Error> {
        let wanted = wanted.max(1);
        if self.bytes.len() - self.end < wanted && self.start > 0 && self.start >= self.len() {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        if self.bytes.is_empty() {
            self.bytes = take_spare(wanted);
        }
        if self.bytes.len() - self.end < wanted {
            let doubled = (self.bytes.len() * 2).max(FIRST_ROOM);
            let length = doubled.max(self.end + wanted);
            let missing = length - self.bytes.len();
            self.bytes.try_reserve_exact(missing).map_err(|_| Error::out_of_memory())?;
            self.bytes.resize(length, 0);
        }
        Ok(&mut self.bytes[self.end..])
    }

    /// The first `count` bytes of the last `room` have arrived.
    pub fn arrived(&mut self, count: usize) {
        self.end += count;
        debug_assert!(self.end <= self.bytes.len());
    }

    pub fn consume(&mut self, count: usize) {
        self.start += count;
        debug_assert!(self.start <= self.end);
        if self.start == self.end {
            self.start = 0;
            self.end = 0;
            if SIZES.contains(&self.bytes.len()) {
                // The next read of any connection takes it: whoever waits for something else costs no buffer.
                self.release_if_empty();
            } else if self.bytes.len() > KEPT {
                self.bytes = Vec::new();
            }
        }
    }

    /// Gives the memory back while nothing is in it.
    pub fn release_if_empty(&mut self) {
        if self.len() == 0 {
            let bytes = std::mem::take(&mut self.bytes);
            if let Some(size) = SIZES.iter().position(|size| *size == bytes.len()) {
                SPARES.with(|spares| spares[size].set(bytes));
            }
        }
    }

    /// Adds a copy of `bytes`.
    pub fn append(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.room(bytes.len())?[..bytes.len()].copy_from_slice(bytes);
        self.arrived(bytes.len());
        Ok(())
    }

    /// Puts bytes back that were consumed, before all others.
    pub fn put_back(&mut self, bytes: &[u8]) -> Result<(), Error> {
        let rest = self.bytes().to_vec();
        self.consume(rest.len());
        self.append(bytes)?;
        self.append(&rest)
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..self.end]
    }

    pub fn len(&self) -> usize {
        self.end - self.start
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(buffer: &mut Buffer, bytes: &[u8]) {
        buffer.room(bytes.len()).unwrap()[..bytes.len()].copy_from_slice(bytes);
        buffer.arrived(bytes.len());
    }

    #[test]
    fn bytes_leave_in_the_order_they_came() {
        let mut buffer = Buffer::default();
        push(&mut buffer, b"hello ");
        push(&mut buffer, b"world");
        buffer.consume(6);
        assert_eq!(buffer.bytes(), b"world");
        push(&mut buffer, b"!");
        assert_eq!(buffer.bytes(), b"world!");
    }

    #[test]
    fn a_long_stream_through_a_small_window_does_not_grow() {
        let mut buffer = Buffer::default();
        for round in 0..10_000_u32 {
            push(&mut buffer, &round.to_be_bytes());
            push(&mut buffer, &round.to_be_bytes());
            buffer.consume(if buffer.len() > 1000 { 12 } else { 4 });
        }
        assert!(buffer.bytes.len() <= 2 * FIRST_ROOM, "{}", buffer.bytes.len());
    }

    #[test]
    fn a_large_buffer_is_given_back_when_empty() {
        let mut buffer = Buffer::default();
        push(&mut buffer, &vec![7; KEPT + 1]);
        buffer.consume(KEPT + 1);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn a_buffer_of_a_usual_size_is_given_back_when_empty() {
        let mut buffer = Buffer::default();
        push(&mut buffer, b"x");
        buffer.release_if_empty();
        assert_eq!(buffer.bytes(), b"x");
        buffer.consume(1);
        assert_eq!(buffer.bytes.capacity(), 0);
    }

    #[test]
    fn one_of_another_size_is_given_back_on_request_only() {
        let mut buffer = Buffer::default();
        push(&mut buffer, &[7; KEPT - 1]);
        buffer.consume(KEPT - 1);
        assert!(buffer.bytes.capacity() > 0);
        buffer.release_if_empty();
        assert_eq!(buffer.bytes.capacity(), 0);
    }
}
