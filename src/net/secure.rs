//! A stream's TLS: the handshake, records in and out, and how both directions end.
//!
//! ```text
//! Handshaking ── shake ──> Open ── the peer's close_notify ──> its input has ended
//!      │                    ├───── say_goodbye ──────────────> its output has ended
//!      └──── any failure ───┴──> both have failed, with TLS's alert sent if that can be done at once
//! ```
//!
//! Sealed bytes that the system did not take stay here, and leave before anything else.

use std::io;
use std::io::IoSlice;
use std::time::Duration;
use std::time::Instant;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::error::Kind;
use crate::error::Stage;
use crate::frame::buffer::Buffer;
use crate::frame::buffer::LARGE_ROOM;
use crate::net::fragments::Fragments;
use crate::net::stream::BYTES;
use crate::net::stream::CALL;
use crate::net::stream::Direction;
use crate::net::stream::Fill;
use crate::net::stream::SHARE;
use crate::net::stream::Stream;
use crate::step::Interest;
use crate::step::Step;
use crate::tls::session::Session;

pub struct Secure {
    pub(super) session: Session,
    handshake: Handshake,
    /// The connection was in the clear before.
    is_upgrade: bool,
    /// Nothing is sent any more: part of a record may have left.
    is_cut: bool,
    /// Part of a write was sealed, and the rest is the caller's to send.
    is_unfinished: bool,
}

enum Handshake {
    /// It begins with the first use, and may take so long from then on.
    Ahead(Option<Duration>),
    UnderWay(Deadline),
    Done,
    /// With the moment that it has missed, if that was why.
    Failed(Option<Deadline>),
}

const OVERDUE: &str = "the TLS handshake took too long";

/// Answers that a peer demands and does not take are kept up to this many bytes, beside what one write seals;
/// then reading waits, too.
const UNTAKEN: usize = LARGE_ROOM + 64 * 1024;

impl Stream {
    /// From now on everything goes through TLS. The handshake begins with the first use.
    pub fn secure(&mut self, session: Session, handshake_timeout: Option<Duration>) {
        self.set_secure(session, Handshake::Ahead(handshake_timeout), false);
    }

    /// The same for a connection that was in the clear until now, and for a handshake that begins now.
    pub fn upgrade(&mut self, session: Session, deadline: Deadline) {
        self.set_secure(session, Handshake::UnderWay(deadline), true);
        if let Some(registration) = &self.registration {
            registration.set_any(true);
        }
    }

    fn set_secure(&mut self, session: Session, handshake: Handshake, is_upgrade: bool) {
        let secure = Secure { session, handshake, is_upgrade, is_cut: false, is_unfinished: false };
        self.secure = Some(Box::new(secure));
    }

    pub fn is_handshaking(&self) -> bool {
        let handshake = self.handshake();
        matches!(handshake, Some(Handshake::Ahead(_) | Handshake::UnderWay(_)))
    }

    /// Whether it is under way on a connection that was in the clear before.
    pub fn is_upgrading(&self) -> bool {
        self.is_handshaking() && self.secure.as_ref().is_some_and(|secure| secure.is_upgrade)
    }

    pub fn session(&self) -> Option<&Session> {
        self.secure.as_ref().map(|secure| &secure.session)
    }

    fn handshake(&self) -> Option<&Handshake> {
        self.secure.as_ref().map(|secure| &secure.handshake)
    }

    fn set_handshake(&mut self, handshake: Handshake) {
        if let Some(secure) = &mut self.secure {
            secure.handshake = handshake;
        }
    }

    /// When the handshake has to be done; never, if none is under way.
    pub fn handshake_deadline(&self) -> Deadline {
        match self.handshake() {
            Some(Handshake::UnderWay(deadline)) => *deadline,
            _ => Deadline::NEVER,
        }
    }

    /// The same, also of a handshake that was not done by then.
    pub fn handshake_expiry(&self) -> Deadline {
        match self.handshake() {
            Some(Handshake::UnderWay(deadline) | Handshake::Failed(Some(deadline))) => *deadline,
            _ => Deadline::NEVER,
        }
    }

    /// Why the handshake has failed, if that was for want of time.
    pub fn overdue(&self) -> Option<&'static str> {
        matches!(self.handshake(), Some(Handshake::Failed(Some(_)))).then_some(OVERDUE)
    }

    /// Whether nothing has to happen before the next byte can be written.
    pub fn is_settled(&self) -> bool {
        !self.is_handshaking() && !self.has_unsent()
    }

    /// Whether bytes that were sealed have still to leave: whoever waits for anything waits for room, too.
    pub fn has_unsent(&self) -> bool {
        self.unsent() > 0
    }

    /// How many there are.
    pub fn unsent(&self) -> usize {
        self.secure.as_ref().map_or(0, |secure| secure.session.outgoing().len())
    }

    /// Completes the handshake, and sends what is sealed.
    pub fn settle(&mut self, buffer: &mut Buffer) -> Result<Step<()>, Error> {
        self.check_handshake()?;
        if self.is_handshaking()
            && let Step::Wait(interest) = self.shake(buffer)?
        {
            return Ok(self.wait(interest));
        }
        Ok(match self.flush(buffer)? {
            Step::Ready(()) => Step::Ready(()),
            Step::Wait(interest) => self.wait(interest),
        })
    }

    /// Whether the handshake has not failed.
    pub fn check_handshake(&self) -> Result<(), Error> {
        match (self.handshake(), &self.output) {
            (Some(Handshake::Failed(_)), Direction::Failed(error)) => Err(error.clone()),
            _ => Ok(()),
        }
    }

    fn shake(&mut self, buffer: &mut Buffer) -> Result<Step<()>, Error> {
        if let Direction::Failed(error) = &self.input {
            return Err(error.clone());
        }
        if let Some(Handshake::Ahead(timeout)) = self.handshake() {
            self.set_handshake(Handshake::UnderWay(Deadline::after(Instant::now(), *timeout)));
        }
        // A client speaks first.
        self.advance(buffer)?;
        loop {
            if let Step::Wait(interest) = self.flush(buffer)? {
                return self.wait_in_time(interest);
            }
            if !self.is_handshaking() {
                return Ok(Step::Ready(()));
            }
            match self.receive()? {
                Step::Ready(()) => self.advance(buffer)?,
                Step::Wait(interest) => return self.wait_in_time(interest),
            }
        }
    }

    fn wait_in_time(&mut self, interest: Interest) -> Result<Step<()>, Error> {
        let deadline = self.handshake_deadline();
        if deadline.passed(Instant::now()) {
            let error = |kind| Error::new(kind, OVERDUE).with_stage(Stage::Handshake);
            self.fail(error(Kind::Closed));
            self.set_handshake(Handshake::Failed(Some(deadline)));
            return Err(error(Kind::Timeout));
        }
        Ok(Step::Wait(interest))
    }

    /// One read of records into `buffer`, which has grown if the answer is `Bytes`.
    pub(super) fn fill_secure(&mut self, buffer: &mut Buffer) -> Result<Step<Fill>, Error> {
        let before = buffer.len();
        if self.is_handshaking() {
            match self.settle(buffer) {
                Ok(Step::Ready(())) => {}
                Ok(Step::Wait(interest)) => return Ok(Step::Wait(interest)),
                // It is told after what came before it.
                Err(_) if buffer.len() > before => {}
                Err(error) => return Err(error),
            }
        }
        while buffer.len() == before {
            if self.secure.as_ref().is_some_and(|secure| secure.session.peer_has_closed()) {
                self.input = Direction::Ended;
                return Ok(Step::Ready(Fill::End));
            }
            match self.flush(buffer) {
                Ok(Step::Wait(interest)) if self.unsent() > UNTAKEN => {
                    return Ok(self.wait_for_all(interest));
                }
                // What the peer had still said has been read.
                Err(_) if buffer.len() > before => break,
                _ => {}
            }
            if let Direction::Failed(error) = &self.input {
                return Err(error.clone());
            }
            // A peer may send records without end that bring nothing.
            if self.has_had_its_share() {
                return Ok(Step::Wait(Interest::Pass));
            }
            if let Step::Wait(interest) = self.receive()? {
                return Ok(self.wait_for_all(interest));
            }
            match self.advance(buffer) {
                // It is told after what came before it.
                Err(_) if buffer.len() > before => {}
                other => other?,
            }
        }
        Ok(Step::Ready(Fill::Bytes))
    }

    /// Waits for something to read, and as long as something has to leave for room as well.
    fn wait_for_all<T>(&mut self, interest: Interest) -> Step<T> {
        if let Some(registration) = &self.registration {
            registration.set_any(self.has_unsent());
        }
        self.wait(interest)
    }

    /// One read from the system. The end of the stream is an error: TLS has an end of its own.
    fn receive(&mut self) -> Result<Step<()>, Error> {
        let is_handshaking = self.is_handshaking();
        let (Some(secure), Some(socket)) = (&mut self.secure, self.source.socket()) else {
            return Err(Error::closed_here());
        };
        let room = secure.session.room()?;
        let length = room.len();
        match socket.recv(room) {
            Ok(Step::Ready(0)) => Err(self.end_of_wire()),
            Ok(Step::Ready(count)) => {
                secure.session.arrived(count, count == length);
                if count < length && !is_handshaking {
                    self.note_drained();
                }
                self.spent += CALL * (1 + count / BYTES);
                Ok(Step::Ready(()))
            }
            Ok(Step::Wait(interest)) => Ok(Step::Wait(interest)),
            Err(error) if is_handshaking => {
                Err(self.fail(Error::from_io(&error).with_stage(Stage::Handshake)))
            }
            Err(error) => {
                let error = Error::from_io(&error);
                self.input = Direction::Failed(error.clone());
                Err(error)
            }
        }
    }

    fn end_of_wire(&mut self) -> Error {
        if let Some(secure) = self.secure.as_ref().filter(|_| self.is_handshaking()) {
            let peer = secure.session.peer();
            let message = format!("the {peer} closed the connection during the TLS handshake");
            return self.fail(Error::new(Kind::Closed, message).with_stage(Stage::Handshake));
        }
        let error =
            Error::new(Kind::Truncated, "the stream ended without TLS's closing alert: it may be cut off");
        self.input = Direction::Failed(error.clone());
        error
    }

    /// Works on the records that have arrived.
    fn advance(&mut self, buffer: &mut Buffer) -> Result<(), Error> {
        let is_handshaking = self.is_handshaking();
        let Some(secure) = &mut self.secure else { return Ok(()) };
        match secure.session.advance(buffer) {
            Ok(()) => {
                if is_handshaking && !secure.session.is_handshaking() {
                    secure.handshake = Handshake::Done;
                    self.rouse();
                }
                Ok(())
            }
            // An error in the last step of it belongs to it.
            Err(error) if secure.session.is_handshaking() => {
                Err(self.fail(error.with_stage(Stage::Handshake)))
            }
            Err(error) => Err(self.fail(error)),
        }
    }

    /// Seals and sends as much as the system takes, or as is its share, or `most`: so many bytes of `slices`
    /// are sealed. An error that comes after sealed bytes tells how many.
    pub(super) fn send_secure(
        &mut self,
        slices: &[IoSlice<'_>],
        most: usize,
        buffer: &mut Buffer,
    ) -> Result<Step<usize>, Error> {
        if let Step::Wait(interest) = self.settle(buffer)? {
            return Ok(Step::Wait(interest));
        }
        let (mut fragments, mut sent) = (Fragments::of(slices), 0);
        while let Some(fragment) = fragments.next() {
            let fragment = &fragment[..fragment.len().min(most - sent)];
            let Some(secure) = &mut self.secure else { return Err(Error::closed_here()) };
            if let Err(error) = secure.session.encrypt(fragment, buffer) {
                return Err(self.fail(error));
            }
            sent += fragment.len();
            self.spent += CALL * (1 + fragment.len() / BYTES);
            let flushed = self.flush(buffer).map_err(|error| error.with_written(sent))?;
            if flushed != Step::Ready(()) || self.spent >= SHARE || sent >= most {
                break;
            }
        }
        Ok(Step::Ready(sent))
    }

    fn flush(&mut self, buffer: &mut Buffer) -> Result<Step<()>, Error> {
        self.try_flush().map_err(|error| {
            self.stop_sending();
            let was_handshaking = self.is_handshaking();
            let error = self.broken(&error, buffer);
            if !was_handshaking {
                return error;
            }
            let error = error.with_stage(Stage::Handshake);
            (self.input, self.output) = (Direction::Failed(error.clone()), Direction::Failed(error.clone()));
            self.fail(error)
        })
    }

    fn try_flush(&mut self) -> io::Result<Step<()>> {
        let (Some(secure), Some(socket)) = (&mut self.secure, self.source.socket()) else {
            return Ok(Step::Ready(()));
        };
        if secure.is_cut {
            secure.session.forget_outgoing();
        }
        while !secure.session.outgoing().is_empty() {
            match socket.send(&[IoSlice::new(secure.session.outgoing())])? {
                Step::Ready(count) => secure.session.sent(count),
                Step::Wait(interest) => {
                    // Whoever waits for anything sees to it once there is room.
                    if let Some(registration) = &self.registration {
                        registration.set_any(true);
                    }
                    return Ok(Step::Wait(interest));
                }
            }
        }
        Ok(Step::Ready(()))
    }

    /// What is sealed, or will be in answer to the peer, stays here.
    pub(super) fn stop_sending(&mut self) {
        if let Some(secure) = &mut self.secure {
            secure.is_cut = true;
            secure.session.forget_outgoing();
        }
    }

    /// Nothing can be read or written after `error`. The peer is told if that can be done at once.
    fn fail(&mut self, error: Error) -> Error {
        let _ = self.try_flush();
        self.stop_sending();
        if self.is_handshaking() {
            self.set_handshake(Handshake::Failed(None));
        }
        for direction in [&mut self.input, &mut self.output] {
            if let Direction::Open = direction {
                *direction = Direction::Failed(error.clone());
            }
        }
        self.rouse();
        error
    }

    /// What the other direction waits for may have gone by.
    fn rouse(&self) {
        if let Some(registration) = &self.registration {
            registration.set_any(false);
            registration.rouse();
        }
    }

    /// Tells the peer that nothing more will be sent, if that can be done at once; otherwise `settle` goes on.
    pub(super) fn say_goodbye(&mut self) {
        if matches!(self.output, Direction::Open)
            && !self.is_handshaking()
            && let Some(secure) = &mut self.secure
            && secure.session.close(&mut Buffer::default()).is_ok()
        {
            let _ = self.try_flush();
        }
    }

    /// Whether a write was cut whose rest the caller may still send.
    pub fn set_unfinished(&mut self, is_unfinished: bool) {
        if let Some(secure) = &mut self.secure {
            secure.is_unfinished = is_unfinished;
        }
    }

    /// Who ends without having sent the rest must not say that this was all.
    pub(super) fn cut_if_unfinished(&mut self) {
        if self.secure.as_ref().is_some_and(|secure| secure.is_unfinished) {
            self.cut_output();
        }
    }

    /// Whether TLS never began.
    pub(super) fn is_unshaken(&self) -> bool {
        !matches!(self.handshake(), None | Some(Handshake::Done))
    }

    /// Gives TLS up: what comes is not to be understood any more.
    pub(super) fn unsecure(&mut self) {
        self.secure = None;
    }

    /// Whether records have arrived that were not worked on.
    pub(super) fn has_records(&self) -> bool {
        self.secure.as_ref().is_some_and(|secure| secure.session.has_unread())
    }

    /// See `Session::awaits_tickets`.
    pub(super) fn awaits_tickets(&self) -> bool {
        let is_open = matches!(self.input, Direction::Open);
        is_open && self.secure.as_ref().is_some_and(|secure| secure.session.awaits_tickets())
    }
}
