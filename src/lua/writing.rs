//! The writing methods: arguments in, and on the way as few copies as can be.
//!
//! A write that the system takes at once is done in its first step. Otherwise it is queued, and `more` is the
//! ticket with which the embedded Lua goes on, or gives it up.

use std::io::IoSlice;

use mlua::AnyUserData;
use mlua::BorrowedBytes;
use mlua::Integer;
use mlua::Lua;
use mlua::LuaString;
use mlua::MultiValue;
use mlua::Table;
use mlua::Value;

use crate::deadline::Deadline;
use crate::error::Error;
use crate::frame::packet;
use crate::json;
use crate::json::Marks;
use crate::lua::args::Place;
use crate::lua::connection::Connection;
use crate::lua::connection::Receiver;
use crate::lua::connection::receiver;
use crate::lua::reactor::Cause;
use crate::lua::reply;
use crate::lua::reply::Failure;
use crate::lua::reply::Reply;
use crate::net::connection;
use crate::net::connection::Cut;
use crate::net::connection::Piece;
use crate::net::connection::Ticket;
use crate::net::connection::Written;
use crate::step::Step;

/// A packet's scratch memory larger than this is not kept.
const KEPT: usize = 64 * 1024;

/// Adds to `core`: `writing`, the methods by name; `write_on` and `write_cut` for queued writes, and whose turn it is.
pub fn register(lua: &Lua, core: &Table, marks: &Marks) -> mlua::Result<()> {
    let methods = lua.create_table()?;
    writing(lua, &methods, "write", write)?;
    for name in ["send", "write_str"] {
        writing(lua, &methods, name, |lua, it, data, _| {
            let data = Place::Argument(1).string(lua, &data)?;
            let bytes = data.as_bytes();
            Ok(it.net.write(&[IoSlice::new(&bytes)], Cut::MayContinue, || vec![piece(&data)])?)
        })?;
    }
    writing(lua, &methods, "send_some", send_some)?;
    writing(lua, &methods, "write_line", |lua, it, line, _| {
        let line = Place::Argument(1).string(lua, &line)?;
        let newline = it.net.format.newline.clone();
        let bytes = line.as_bytes();
        let slices = [IoSlice::new(&bytes), IoSlice::new(&newline)];
        let pieces = || vec![piece(&line), Box::new(newline.clone()) as Piece];
        Ok(it.net.write(&slices, Cut::EndsOutput, pieces)?)
    })?;
    writing(lua, &methods, "write_packet", |lua, it, payload, _| {
        let payload = Place::Argument(1).string(lua, &payload)?;
        let bytes = payload.as_bytes();
        let header = header(it, bytes.len())?;
        let slices = [IoSlice::new(&header), IoSlice::new(&bytes)];
        let pieces = || vec![Box::new(header) as Piece, piece(&payload)];
        Ok(it.net.write(&slices, Cut::EndsOutput, pieces)?)
    })?;
    for (name, form) in [("write_json", Form::Document), ("write_json_packet", Form::Packet)] {
        let marks = marks.clone();
        writing(lua, &methods, name, move |lua, it, value, _| write_json(lua, it, &marks, value, form))?;
    }
    core.raw_set("writing", methods)?;
    core.raw_set("write_on", reply::function(lua, write_on)?)?;
    core.raw_set("write_cut", reply::function(lua, cut)?)?;
    core.raw_set("front_write", lua.create_function(front_write)?)
}

/// What a first step has come to.
type Outcome = Result<Written, Failure>;

/// Registers the first step of a write. It is given the first argument and the others.
fn writing(
    lua: &Lua,
    methods: &Table,
    name: &'static str,
    step: impl Fn(&Lua, &mut Connection, Value, MultiValue) -> Outcome + 'static,
) -> mlua::Result<()> {
    let function = reply::function(lua, move |lua, (it, first, others): (Receiver, Value, MultiValue)| {
        let mut it = match receiver(it) {
            Ok(it) => it,
            Err(failure) => return reply::failed(lua, failure, name, None),
        };
        match step(lua, &mut it, first, others) {
            Ok(Written::Whole(sent)) => Ok(reply::done(sent)),
            Ok(Written::Queued(ticket, interest)) => {
                Ok(reply::waiting(lua, interest, expiry(&it.net), Value::Integer(ticket as Integer)))
            }
            Err(failure) => reply::failed_on(lua, failure.of_write(), name, &it),
        }
    })?;
    methods.raw_set(name, function)
}

/// When a write that begins now has to end.
pub fn expiry(it: &connection::Connection) -> Deadline {
    it.writing.expiry(it.writing.timeout)
}

/// Step: goes on with a queued write. While it waits, `more` says whether bytes left in this step.
fn write_on(lua: &Lua, (it, ticket, op): (Receiver, Ticket, String)) -> mlua::Result<Reply<usize>> {
    let mut it = match receiver(it) {
        Ok(it) => it,
        Err(failure) => return reply::failed(lua, failure, &op, None),
    };
    let mut moved = false;
    match it.net.continue_write(ticket, &mut moved) {
        Ok(Step::Ready(sent)) => Ok(reply::done(sent)),
        Ok(Step::Wait(interest)) => {
            Ok(reply::waiting(lua, interest, it.net.write_expiry(ticket), Value::Boolean(moved)))
        }
        Err(error) => reply::failed_on(lua, error.into(), &op, &it),
    }
}

/// Step: the error of a queued write that is given up because of `cause`, see `reactor::cut`; or what it has come to.
fn cut(
    lua: &Lua,
    (it, ticket, op, cause): (Receiver, Ticket, String, Integer),
) -> mlua::Result<Reply<usize>> {
    match receiver(it) {
        Ok(mut it) => {
            let given_up = it.net.abandon_write(ticket, Cause::of(cause).error());
            reply::settled_on(lua, given_up.map_err(Failure::World), &op, &it)
        }
        Err(failure) => reply::failed(lua, failure, &op, None),
    }
}

/// The ticket of the write whose turn it is.
fn front_write(_: &Lua, it: AnyUserData) -> mlua::Result<Option<Ticket>> {
    Ok(it.borrow::<Connection>()?.net.front_write())
}

/// One write of what the system takes, from the byte at a position on.
fn send_some(lua: &Lua, it: &mut Connection, data: Value, mut others: MultiValue) -> Outcome {
    let data = Place::Argument(1).string(lua, &data)?;
    let bytes = data.as_bytes();
    let first = match others.pop_front() {
        None | Some(Value::Nil) => 1,
        Some(first) => Place::Argument(2).size(lua, &first, 1)?,
    };
    let Some(rest) = bytes.get(first - 1..) else {
        let length = bytes.len();
        return Err(Place::Argument(2).misuse(format!("{first} is past the end of {length} bytes")).into());
    };
    Ok(it.net.write(&[IoSlice::new(rest)], Cut::Some, || {
        vec![if rest.len() < LARGE {
            Box::new(rest.to_vec())
        } else {
            Box::new(Tail(data.as_bytes(), first - 1))
        }]
    })?)
}

/// A string from some byte on.
struct Tail(BorrowedBytes, usize);

impl AsRef<[u8]> for Tail {
    fn as_ref(&self) -> &[u8] {
        &self.0[self.1..]
    }
}

fn write(lua: &Lua, it: &mut Connection, first: Value, others: MultiValue) -> Outcome {
    if let Value::String(only) = &first
        && others.is_empty()
    {
        let bytes = only.as_bytes();
        return Ok(it.net.write(&[IoSlice::new(&bytes)], Cut::MayContinue, || vec![piece(only)])?);
    }
    let mut gather = Gather::default();
    for (at, data) in std::iter::once(&first).chain(others.iter()).enumerate() {
        gather.add(lua, Place::Argument(at + 1), data)?;
    }
    Ok(it.net.write_pieces(gather.into_pieces(), Cut::MayContinue)?)
}

const DATA: &str = "string, number, table of strings or table of bytes";

/// A string of at least this many bytes is sent from where it is. Smaller ones are gathered: copying them is
/// cheaper than a reference to each, of which Lua 5.1 has no more than 8,000.
const LARGE: usize = 64 * 1024;

/// The data of one write, in as few pieces as is worth while.
#[derive(Default)]
struct Gather {
    pieces: Vec<Piece>,
    small: Vec<u8>,
}

impl Gather {
    fn add(&mut self, lua: &Lua, place: Place<'_>, data: &Value) -> Result<(), Failure> {
        match data {
            Value::Table(list) => self.add_list(lua, place, list),
            Value::String(_) | Value::Integer(_) | Value::Number(_) => {
                self.add_string(&place.string(lua, data)?);
                Ok(())
            }
            other => Err(place.expected(DATA, other).into()),
        }
    }

    fn add_list(&mut self, lua: &Lua, place: Place<'_>, list: &Table) -> Result<(), Failure> {
        let length = list.raw_len();
        let mut keys = 0;
        for pair in list.pairs::<Value, Value>() {
            pair?;
            keys += 1;
        }
        if keys != length {
            return Err(place.misuse("list expected, got a table with holes or names").into());
        }
        let mut holds_bytes = false;
        for position in 1..=length {
            let value: Value = list.raw_get(position)?;
            let is_number = matches!(value, Value::Integer(_) | Value::Number(_));
            holds_bytes = if position == 1 { is_number } else { holds_bytes };
            match &value {
                _ if holds_bytes && is_number => match place.number(lua, &value)? {
                    byte if byte.fract() == 0.0 && (0.0..=255.0).contains(&byte) => {
                        self.small.push(byte as u8)
                    }
                    _ => return Err(bad_byte(place, position)),
                },
                _ if holds_bytes => return Err(bad_byte(place, position)),
                Value::String(text) => self.add_string(text),
                _ => return Err(place.misuse(format!("string expected at position {position}")).into()),
            }
        }
        Ok(())
    }

    fn add_string(&mut self, text: &LuaString) {
        let bytes = text.as_bytes();
        if bytes.len() < LARGE {
            self.small.extend_from_slice(&bytes);
        } else {
            self.end_small();
            self.pieces.push(Box::new(bytes));
        }
    }

    fn end_small(&mut self) {
        if !self.small.is_empty() {
            self.pieces.push(Box::new(std::mem::take(&mut self.small)));
        }
    }

    fn into_pieces(mut self) -> Vec<Piece> {
        self.end_small();
        self.pieces
    }
}

fn bad_byte(place: Place<'_>, position: usize) -> Failure {
    place.misuse(format!("byte (integer 0-255) expected at position {position}")).into()
}

/// How JSON text is framed.
#[derive(Clone, Copy)]
enum Form {
    /// With a newline behind it.
    Document,
    /// With its length before it.
    Packet,
}

fn write_json(lua: &Lua, it: &mut Connection, marks: &Marks, value: Value, form: Form) -> Outcome {
    let mut text = std::mem::take(&mut it.scratch);
    text.clear();
    let outcome = frame_json(lua, it, marks, value, form, &mut text).and_then(|()| {
        let lasting = || vec![Box::new(text.clone()) as Piece];
        Ok(it.net.write(&[IoSlice::new(&text)], Cut::EndsOutput, lasting)?)
    });
    if text.capacity() <= KEPT {
        it.scratch = text;
    }
    outcome
}

fn frame_json(
    lua: &Lua,
    it: &Connection,
    marks: &Marks,
    value: Value,
    form: Form,
    text: &mut Vec<u8>,
) -> Result<(), Failure> {
    if let Form::Packet = form {
        text.extend_from_slice(&[0; packet::HEADER]);
    }
    json::encode::encode(lua, marks, value, text)??;
    match form {
        Form::Document => text.push(b'\n'),
        Form::Packet => {
            let header = header(it, text.len() - packet::HEADER)?;
            text[..packet::HEADER].copy_from_slice(&header);
        }
    }
    Ok(())
}

fn header(it: &Connection, length: usize) -> Result<[u8; packet::HEADER], Error> {
    packet::header(length, it.net.format.packet_endian, it.net.format.max_packet)
}

/// The string itself, kept alive by the piece, or a copy if it is small.
fn piece(text: &LuaString) -> Piece {
    let bytes = text.as_bytes();
    if bytes.len() < LARGE { Box::new(bytes.to_vec()) } else { Box::new(bytes) }
}
