//! The ways to read: each asks the buffer, then the stream, then the buffer again, and consumes only what it
//! hands over. A read that fails or waits leaves everything that has arrived for the next one.

use std::ops::Range;

use crate::address::Address;
use crate::error::Error;
use crate::error::Kind;
use crate::frame::json_scan;
use crate::frame::json_scan::Scan;
use crate::frame::line;
use crate::frame::packet;
use crate::net::connection::Connection;
use crate::net::stream::Fill;
use crate::net::stream::Stream;
use crate::step::Interest;
use crate::step::Step;

/// How far the search for the end of a frame has come. Any consumed byte puts it back to `None`.
pub enum Search {
    None,
    Line { searched: usize },
    Delimiter { delimiter: Vec<u8>, searched: usize },
    Json(Scan),
}

/// A frame at the front of the buffer: the part to hand over, and how much goes with it.
struct Found {
    part: Range<usize>,
    whole: usize,
}

impl Found {
    fn bytes(count: usize) -> Option<Self> {
        Some(Self { part: 0..count, whole: count })
    }
}

/// Room asked for at once, at most: a claimed length is not a reason to reserve.
const STRIDE: usize = 256 * 1024;

/// White space before a JSON document is kept for other reads up to this much; more of it is skipped at once.
const BLANKS: usize = 64 * 1024;

/// What the end of the stream means to a read.
enum AtEnd {
    Found(Found),
    /// The stream ended where more was needed.
    Closed,
    /// There is nothing more, and that is an answer.
    Nothing,
}

/// `take` sees the bytes once; its answer is the read's. If it fails, for want of memory, nothing is consumed.
impl Connection {
    /// Exactly `count` bytes.
    pub fn read<R, E>(
        &mut self,
        count: usize,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<R, E>>, Error> {
        let found = |input: &[u8]| if input.len() >= count { Found::bytes(count) } else { None };
        let step = self.until(count, |it| Ok(found(it.buffer.bytes())), |_| Ok(AtEnd::Closed))?;
        Ok(step.map(|found| self.take_required(found, take)))
    }

    /// Between 1 and `max` bytes, what there is; `None` at the end of the stream.
    pub fn recv<R, E>(
        &mut self,
        max: usize,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<Option<R>, E>>, Error> {
        let found = |it: &mut Self| match it.buffer.len() {
            0 => Ok(None),
            len => Ok(Found::bytes(len.min(max))),
        };
        let step = self.until(max, found, |_| Ok(AtEnd::Nothing))?;
        Ok(step.map(|found| self.take(found, take)))
    }

    /// The next line, with its newline if `whole`. With `last`, a line that the end of the stream cuts off is
    /// a line too, and `None` is the end.
    pub fn read_line<R, E>(
        &mut self,
        whole: bool,
        last: bool,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<Option<R>, E>>, Error> {
        let max = self.format.max_line;
        let find = |it: &mut Self| {
            if !matches!(it.search, Search::Line { .. }) {
                it.search = Search::Line { searched: 0 };
            }
            let Search::Line { searched } = &mut it.search else { return Ok(None) };
            let input = it.buffer.bytes();
            let (length, found) = match line::find_line(input, searched) {
                Some(line) => (line.content, Some(line)),
                // The last byte may be the CR of a newline whose LF has not arrived.
                None => (input.len().saturating_sub(usize::from(input.last() == Some(&b'\r'))), None),
            };
            if length > max {
                return Err(too_long(max));
            }
            let part = |line: line::Line| 0..if whole { line.whole } else { line.content };
            Ok(found.map(|line| Found { part: part(line), whole: line.whole }))
        };
        let at_end = |it: &mut Self| match it.buffer.len() {
            0 if last => Ok(AtEnd::Nothing),
            len if last && len > max => Err(too_long(max)),
            len if last => Ok(AtEnd::Found(Found { part: 0..len, whole: len })),
            _ => Ok(AtEnd::Closed),
        };
        let step = self.until(1, find, at_end)?;
        Ok(step.map(|found| self.take(found, take)))
    }

    /// The bytes before `delimiter`, which is consumed too. `max` does not count it.
    pub fn read_until<R, E>(
        &mut self,
        delimiter: &[u8],
        max: Option<usize>,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<R, E>>, Error> {
        let max = max.unwrap_or(self.format.max_line);
        let find = |it: &mut Self| {
            if !matches!(&it.search, Search::Delimiter { delimiter: last, .. } if last == delimiter) {
                it.search = Search::Delimiter { delimiter: delimiter.to_vec(), searched: 0 };
            }
            let Search::Delimiter { searched, .. } = &mut it.search else { return Ok(None) };
            let found = line::find_delimiter(it.buffer.bytes(), delimiter, searched);
            // Without the delimiter, `searched` bytes are known to come before it.
            if found.unwrap_or(*searched) > max {
                return Err(Error::new(Kind::TooLarge, format!("no delimiter within {max} bytes")));
            }
            Ok(found.map(|at| Found { part: 0..at, whole: at + delimiter.len() }))
        };
        let step = self.until(1, find, |_| Ok(AtEnd::Closed))?;
        Ok(step.map(|found| self.take_required(found, take)))
    }

    /// Everything up to the end of the stream. `moved` becomes true if bytes arrived in this step.
    pub fn read_str<R, E>(
        &mut self,
        max: Option<usize>,
        moved: &mut bool,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<R, E>>, Error> {
        let before = self.buffer.len();
        let find = |it: &mut Self| match max {
            Some(max) if it.buffer.len() > max => {
                Err(Error::new(Kind::TooLarge, format!("stream is over {max} bytes")))
            }
            _ => Ok(None),
        };
        let at_end =
            |it: &mut Self| Ok(AtEnd::Found(Found { part: 0..it.buffer.len(), whole: it.buffer.len() }));
        let step = self.until(1, find, at_end);
        *moved = self.buffer.len() > before;
        Ok(step?.map(|found| self.take_required(found, take)))
    }

    /// The extent of the next JSON document. With `last`, the end of the stream before it is `None`.
    pub fn read_json<R, E>(
        &mut self,
        last: bool,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<Option<R>, E>>, Error> {
        let find = |it: &mut Self| it.find_json(false);
        let at_end = |it: &mut Self| match it.find_json(true)? {
            Some(found) => Ok(AtEnd::Found(found)),
            None if !it.buffer.bytes().iter().all(u8::is_ascii_whitespace) => Ok(AtEnd::Closed),
            None => {
                // White space after the last document belongs to nothing.
                it.consume(it.buffer.len());
                Ok(if last { AtEnd::Nothing } else { AtEnd::Closed })
            }
        };
        let step = self.until(1, find, at_end)?;
        Ok(step.map(|found| self.take(found, take)))
    }

    fn find_json(&mut self, ended: bool) -> Result<Option<Found>, Error> {
        if !matches!(self.search, Search::Json(_)) {
            self.search = Search::Json(Scan::default());
        }
        let Search::Json(scan) = &mut self.search else { return Ok(None) };
        let input = self.buffer.bytes();
        let found = scan.advance(input, ended);
        if found.is_none() && scan.is_blank() {
            if input.len() > BLANKS {
                self.consume(self.buffer.len());
            }
            return Ok(None);
        }
        let max = self.format.max_json;
        if found.map_or_else(|| scan.length(), |extent| extent.end - extent.start) > max {
            return Err(Error::new(Kind::TooLarge, format!("JSON document is over max_json ({max} bytes)")));
        }
        Ok(found.map(|extent| Found {
            part: extent.start..extent.end,
            whole: extent.end + json_scan::newline_after(&input[extent.end..]),
        }))
    }

    /// The payload of the next packet. With `last`, the end of the stream before it is `None`.
    pub fn read_packet<R, E>(
        &mut self,
        last: bool,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<Option<R>, E>>, Error> {
        let (endian, max) = (self.format.packet_endian, self.format.max_packet);
        let find = |it: &mut Self| {
            let input = it.buffer.bytes();
            let Some(length) = packet::payload_length(input, endian, max)? else { return Ok(None) };
            let whole = packet::HEADER + length;
            Ok((input.len() >= whole).then_some(Found { part: packet::HEADER..whole, whole }))
        };
        let at_end = |it: &mut Self| match it.buffer.len() {
            0 if last => Ok(AtEnd::Nothing),
            _ => Ok(AtEnd::Closed),
        };
        let step = self.until(1, find, at_end)?;
        Ok(step.map(|found| self.take(found, take)))
    }

    /// Up to `count` bytes that stay; waits for one at most. `None` at the end of the stream.
    pub fn peek<R, E>(
        &mut self,
        count: usize,
        look: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Step<Result<Option<R>, E>>, Error> {
        let has_waited = self.reading.waits_for.take().is_some();
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        if self.buffer.len() < count {
            match stream.fill(&mut self.buffer, count.min(STRIDE)) {
                Ok(Step::Wait(interest)) if self.buffer.len() == 0 => {
                    return Ok(self.wait(interest));
                }
                Ok(Step::Ready(Fill::End)) if self.buffer.len() == 0 => return Ok(Step::Ready(Ok(None))),
                Err(error) if self.buffer.len() == 0 && has_waited => return Err(self.overdue(error)),
                Err(error) if self.buffer.len() == 0 => return Err(error),
                _ => {}
            }
        }
        let input = self.buffer.bytes();
        Ok(Step::Ready(look(&input[..input.len().min(count)]).map(Some)))
    }

    /// Completes TLS's handshake.
    pub fn handshake(&mut self) -> Result<Step<()>, Error> {
        let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
        match stream.settle(&mut self.buffer)? {
            Step::Ready(()) => {
                self.reading.waits_for = None;
                Ok(Step::Ready(()))
            }
            Step::Wait(interest) => Ok(self.wait(interest)),
        }
    }

    /// Bytes that can be read without waiting.
    pub fn buffered(&self) -> usize {
        self.buffer.len()
    }

    /// Fills the buffer until `find` is content, the stream ends, or it would block. `None` is the answer
    /// `AtEnd::Nothing`.
    fn until(
        &mut self,
        wanted: usize,
        mut find: impl FnMut(&mut Self) -> Result<Option<Found>, Error>,
        at_end: impl FnOnce(&mut Self) -> Result<AtEnd, Error>,
    ) -> Result<Step<Option<Found>>, Error> {
        if self.stream.is_none() {
            return Err(Error::closed_here());
        }
        let has_waited = self.reading.waits_for.take().is_some();
        loop {
            if let Some(found) = find(self)? {
                // What has arrived lasts long, if it is in small pieces.
                return match self.stream.as_mut().is_some_and(Stream::has_had_its_share) {
                    true => Ok(self.wait(Interest::Pass)),
                    false => Ok(Step::Ready(Some(found))),
                };
            }
            let missing = wanted.saturating_sub(self.buffer.len()).min(STRIDE);
            let stream = self.stream.as_mut().ok_or_else(Error::closed_here)?;
            match stream.fill(&mut self.buffer, missing) {
                Ok(Step::Ready(Fill::Bytes)) => {}
                Ok(Step::Ready(Fill::End)) => break,
                Ok(Step::Wait(interest)) => return Ok(self.wait(interest)),
                Err(error) if has_waited => return Err(self.overdue(error)),
                Err(error) => return Err(error),
            }
        }
        match at_end(self)? {
            AtEnd::Found(found) => Ok(Step::Ready(Some(found))),
            AtEnd::Nothing => Ok(Step::Ready(None)),
            AtEnd::Closed => Err(self.cut_off()),
        }
    }

    fn wait<T>(&mut self, interest: Interest) -> Step<T> {
        // An idle connection costs no buffer.
        self.buffer.release_if_empty();
        self.reading.waits_for = Some(if interest == Interest::Write { interest } else { Interest::Read });
        Step::Wait(interest)
    }

    fn cut_off(&self) -> Error {
        let end = match self.ends().remote {
            Address::Stdin => "the input has ended",
            _ => "closed by the peer",
        };
        let message = match self.buffer.len() {
            0 => end.into(),
            1 => format!("{end}, 1 byte was left over"),
            len => format!("{end}, {len} bytes were left over"),
        };
        Error::new(Kind::Closed, message)
    }

    fn take<R, E>(
        &mut self,
        found: Option<Found>,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<Option<R>, E> {
        found.map(|found| self.take_found(found, take)).transpose()
    }

    fn take_found<R, E>(
        &mut self,
        Found { part, whole }: Found,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<R, E> {
        let value = take(&self.buffer.bytes()[part])?;
        self.consume(whole);
        Ok(value)
    }

    /// For reads whose `AtEnd` never is `Nothing`.
    fn take_required<R, E>(
        &mut self,
        found: Option<Found>,
        take: impl FnOnce(&[u8]) -> Result<R, E>,
    ) -> Result<R, E> {
        self.take_found(found.unwrap_or(Found { part: 0..0, whole: 0 }), take)
    }

    fn consume(&mut self, count: usize) {
        if let Some(stream) = &mut self.stream {
            stream.note_operation();
        }
        self.search = Search::None;
        self.buffer.consume(count);
    }
}

fn too_long(max: usize) -> Error {
    Error::new(Kind::TooLarge, format!("line is over max_line ({max} bytes)"))
}
