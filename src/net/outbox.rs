//! Writes that the system did not take at once, in the order in which they were called.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::IoSlice;
use std::rc::Rc;
use std::time::Duration;

use crate::net::transfer::Part;
use crate::net::transfer::Pipe;
use crate::sys::socket::MAX_SLICES;
use crate::tls::session::RECORD;

/// Bytes that stay where they are, so that a large string of the script is sent without being copied.
pub type Piece = Box<dyn AsRef<[u8]>>;

/// What happens when a write is given up after its first byte.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cut {
    /// The caller is told how far it got and may go on from there.
    MayContinue,
    /// Half of a line, of JSON or of a packet is there: nothing may follow it.
    EndsOutput,
    /// It is never given up half-way: it is done as soon as some of it has left.
    Some,
}

impl Cut {
    /// Bytes that TLS may seal of it at once.
    pub fn most(self) -> usize {
        if self == Cut::Some { RECORD } else { usize::MAX }
    }
}

/// Names a queued write to whoever waits for it.
pub type Ticket = u64;

pub struct Write {
    ticket: Ticket,
    pub cut: Cut,
    /// What it may take, from its call on or from when bytes moved last.
    limit: Option<Duration>,
    pub body: Body,
    sent: usize,
}

/// Where the bytes of a write come from.
pub enum Body {
    Pieces(Pieces),
    Part(Box<Part>),
    /// Shared with the copy, which takes back what is not sent.
    Piped(Rc<RefCell<Pipe>>),
}

pub struct Pieces {
    pieces: Vec<Piece>,
    /// The first piece that is not sent whole, and how much of it is sent.
    piece: usize,
    offset: usize,
    left: usize,
}

impl Body {
    pub fn nothing() -> Self {
        Body::of(Vec::new())
    }

    pub fn of(pieces: Vec<Piece>) -> Self {
        Body::Pieces(Pieces::new(pieces))
    }
}

impl Pieces {
    fn new(pieces: Vec<Piece>) -> Self {
        let left = pieces.iter().map(|piece| (**piece).as_ref().len()).sum();
        Self { pieces, piece: 0, offset: 0, left }
    }

    /// The next slices to send.
    pub fn slices(&self) -> Vec<IoSlice<'_>> {
        let rest = self.pieces[self.piece..].iter().map(|piece| (**piece).as_ref());
        let skips = std::iter::once(self.offset).chain(std::iter::repeat(0));
        rest.zip(skips).take(MAX_SLICES).map(|(bytes, skip)| IoSlice::new(&bytes[skip..])).collect()
    }

    fn advance(&mut self, mut count: usize) {
        debug_assert!(count <= self.left);
        self.left -= count;
        while self.piece < self.pieces.len() {
            let left = (*self.pieces[self.piece]).as_ref().len() - self.offset;
            if count < left {
                self.offset += count;
                return;
            }
            count -= left;
            self.piece += 1;
            self.offset = 0;
        }
    }
}

impl Write {
    /// So many bytes have left.
    pub fn advance(&mut self, count: usize) {
        self.sent += count;
        match &mut self.body {
            Body::Pieces(pieces) => pieces.advance(count),
            // They have taken note.
            Body::Part(_) | Body::Piped(_) => {}
        }
    }

    pub fn sent(&self) -> usize {
        self.sent
    }

    pub fn is_done(&self) -> bool {
        let is_empty = match &self.body {
            Body::Pieces(pieces) => pieces.left == 0,
            Body::Part(part) => part.is_done(),
            Body::Piped(pipe) => pipe.borrow().left() == 0,
        };
        is_empty || self.cut == Cut::Some && self.sent > 0
    }
}

#[derive(Default)]
pub struct Outbox {
    writes: VecDeque<Write>,
    last: Ticket,
}

impl Outbox {
    /// Queues a write of which `sent` bytes have left already.
    pub fn push(&mut self, body: Body, sent: usize, cut: Cut, limit: Option<Duration>) -> Ticket {
        self.last += 1;
        let mut write = Write { ticket: self.last, cut, limit, body, sent: 0 };
        write.advance(sent);
        self.writes.push_back(write);
        self.last
    }

    /// Queues a write of nothing before all others, none of which has begun.
    pub fn push_first(&mut self) -> Ticket {
        debug_assert!(self.writes.front().is_none_or(|write| write.sent == 0));
        let ticket = self.push(Body::nothing(), 0, Cut::EndsOutput, None);
        self.writes.rotate_right(1);
        ticket
    }

    pub fn is_empty(&self) -> bool {
        self.writes.is_empty()
    }

    /// Whether the write whose turn it is has begun and is not done.
    pub fn is_in_the_middle(&self) -> bool {
        self.writes.front().is_some_and(|write| write.sent > 0 && !write.is_done())
    }

    /// The write whose turn it is, if it is this one.
    pub fn turn(&mut self, ticket: Ticket) -> Option<&mut Write> {
        self.writes.front_mut().filter(|write| write.ticket == ticket)
    }

    pub fn contains(&self, ticket: Ticket) -> bool {
        self.writes.iter().any(|write| write.ticket == ticket)
    }

    /// How much of a write of which some is enough has left.
    pub fn has_some(&self, ticket: Ticket) -> Option<usize> {
        let write = self.writes.iter().find(|write| write.ticket == ticket)?;
        (write.cut == Cut::Some && write.sent > 0).then_some(write.sent)
    }

    pub fn limit(&self, ticket: Ticket) -> Option<Duration> {
        self.writes.iter().find(|write| write.ticket == ticket).and_then(|write| write.limit)
    }

    /// The ticket of the write whose turn it is.
    pub fn front(&self) -> Option<Ticket> {
        self.writes.front().map(|write| write.ticket)
    }

    pub fn remove(&mut self, ticket: Ticket) -> Option<Write> {
        let at = self.writes.iter().position(|write| write.ticket == ticket)?;
        self.writes.remove(at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(texts: &[&'static str]) -> Body {
        Body::of(texts.iter().map(|text| Box::new(*text) as Piece).collect())
    }

    fn rest(write: &Write) -> Vec<u8> {
        let Body::Pieces(pieces) = &write.body else { panic!("no pieces") };
        pieces.slices().iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn every_cut_leaves_exactly_the_rest() {
        let whole = b"abcdefg";
        for cut in 0..=whole.len() {
            let mut outbox = Outbox::default();
            let ticket = outbox.push(pieces(&["ab", "", "cde", "fg"]), cut, Cut::MayContinue, None);
            let write = outbox.turn(ticket).unwrap();
            assert_eq!(rest(write), &whole[cut..], "cut at {cut}");
            assert_eq!((write.sent(), write.is_done()), (cut, cut == whole.len()));
        }
    }

    #[test]
    fn it_is_the_oldest_writes_turn() {
        let mut outbox = Outbox::default();
        let first = outbox.push(pieces(&["a"]), 0, Cut::EndsOutput, None);
        let second = outbox.push(pieces(&["b"]), 0, Cut::EndsOutput, None);
        assert!(outbox.turn(second).is_none());
        assert!(outbox.remove(first).is_some());
        assert!(outbox.turn(second).is_some());
        assert!(outbox.remove(first).is_none());
    }

    #[test]
    fn what_is_pushed_first_comes_first() {
        let mut outbox = Outbox::default();
        let second = outbox.push(pieces(&["a"]), 0, Cut::EndsOutput, None);
        let first = outbox.push_first();
        assert_eq!(outbox.front(), Some(first));
        outbox.remove(first);
        assert_eq!(outbox.front(), Some(second));
    }
}
