//! Values on the Lua stack to JSON text.

use std::ffi::c_void;

use mlua::Lua;
use mlua::Value;

use crate::error::Error;
use crate::error::Kind;
use crate::json::MAX_DEPTH;
use crate::json::Marks;
use crate::json::stack;
use crate::json::stack::Slot;
use crate::json::stack::Stack;
use crate::json::stack::Work;

/// Where the metatables lie while encoding, the value itself, and whether it is to be pretty.
const ARRAY_MARK: usize = 1;
const OBJECT_MARK: usize = 2;
const VALUE: usize = 3;
const PRETTY: usize = 4;

/// Room for a text before its length is known.
const FIRST_ROOM: usize = 256;

/// Appends the JSON text of `value` to `out`. `Ok(Err(_))`: it cannot be expressed; the message has the path
/// to the part at fault, and `out` is as it was.
pub fn encode(lua: &Lua, marks: &Marks, value: Value, out: &mut Vec<u8>) -> mlua::Result<Result<(), Error>> {
    let length = out.len();
    let args = (&marks.array, &marks.object, value);
    let (outcome, _) = stack::run(lua, args, |stack| write(stack, Layout::Compact, out))?;
    Ok(outcome.map_err(|fault| {
        out.truncate(length);
        Error::new(Kind::Json, fault.into_message())
    }))
}

/// For the embedded Lua: `(array_mt, object_mt, value, pretty)` gives the text, or nil and the message.
pub struct Encode;

impl Work for Encode {
    const ARGUMENTS: std::ffi::c_int = 4;

    fn work(stack: &mut Stack) {
        let mut text = Vec::with_capacity(FIRST_ROOM);
        let layout = match stack.slot(PRETTY) {
            Slot::Boolean(true) => Layout::Pretty,
            _ => Layout::Compact,
        };
        match write(stack, layout, &mut text) {
            Ok(()) => stack.push_string(&text),
            Err(fault) => {
                stack.cut(PRETTY);
                stack.push_nil();
                stack.push_string(fault.into_message().as_bytes());
            }
        }
    }
}

/// How the text is laid out.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Layout {
    Compact,
    /// Two spaces a level, keys sorted by their bytes.
    Pretty,
}

fn write(stack: &mut Stack, layout: Layout, out: &mut Vec<u8>) -> Outcome {
    let (array, object) = (stack.identity(ARRAY_MARK), stack.identity(OBJECT_MARK));
    Encoder { stack, out, layout, array, object, ancestors: Vec::new() }.value(VALUE)
}

struct Encoder<'a> {
    stack: &'a mut Stack,
    out: &'a mut Vec<u8>,
    layout: Layout,
    /// The two metatables.
    array: *const c_void,
    object: *const c_void,
    /// The tables around the value in hand, outermost first.
    ancestors: Vec<*const c_void>,
}

type Outcome = Result<(), Box<Fault>>;

/// Why a value cannot be expressed, and where: the path grows on the way out.
struct Fault {
    reason: String,
    /// Innermost first.
    path: Vec<String>,
}

impl Fault {
    fn new(reason: impl Into<String>) -> Box<Self> {
        Box::new(Self { reason: reason.into(), path: Vec::new() })
    }

    fn within(mut self: Box<Self>, part: String) -> Box<Self> {
        self.path.push(part);
        self
    }

    fn into_message(self) -> String {
        let path: String = self.path.iter().rev().map(String::as_str).collect();
        format!("{} at ${path}", self.reason)
    }
}

/// A key as text, and the number that it is if it is one.
type Name = (Vec<u8>, Option<i64>);

/// What a table's keys are, in all.
enum Shape {
    Empty,
    /// Keys 1 to `length`, with holes perhaps, in any order.
    List {
        length: usize,
    },
    /// A list that has been written already.
    Written,
    /// Names, as far as was looked: the first key is one.
    Named,
    /// Whatever they are, the script has said that it is an object.
    Object,
}

/// A list, by its elements or by the script's word, that has named members.
fn mixed_keys() -> Box<Fault> {
    Fault::new("a list that has names too")
}

impl Encoder<'_> {
    fn value(&mut self, index: usize) -> Outcome {
        match self.stack.slot(index) {
            Slot::Null => self.out.extend_from_slice(b"null"),
            Slot::Boolean(true) => self.out.extend_from_slice(b"true"),
            Slot::Boolean(false) => self.out.extend_from_slice(b"false"),
            Slot::Integer(value) => self.write(&value)?,
            Slot::Number(value) if value.is_finite() => self.write(&value)?,
            Slot::Number(value) => return Err(Fault::new(format!("{value} is not a JSON number"))),
            Slot::String => self.string(index)?,
            Slot::Table => self.table(index)?,
            Slot::Other(kind) => return Err(Fault::new(format!("a {kind} is not a JSON value"))),
        }
        Ok(())
    }

    /// serde_json knows the digits and escapes of RFC 8259.
    fn write(&mut self, value: &(impl serde::Serialize + ?Sized)) -> Outcome {
        serde_json::to_writer(&mut *self.out, value).map_err(|error| Fault::new(error.to_string()))
    }

    fn string(&mut self, index: usize) -> Outcome {
        let out = &mut *self.out;
        self.stack.with_bytes(index, |bytes| {
            let text = std::str::from_utf8(bytes).map_err(|_| Fault::new("string that is not UTF-8"))?;
            serde_json::to_writer(out, text).map_err(|error| Fault::new(error.to_string()))
        })
    }

    fn table(&mut self, table: usize) -> Outcome {
        self.enter(table)?;
        let mark = self.stack.metatable(table);
        let shape = if mark == self.object { Shape::Object } else { self.shape(table)? };
        match (shape, self.layout) {
            (Shape::Empty, _) if mark == self.array => self.out.extend_from_slice(b"[]"),
            (Shape::Empty, _) => self.out.extend_from_slice(b"{}"),
            (Shape::List { length }, _) => self.list(table, length)?,
            (Shape::Written, _) => {}
            (Shape::Named, _) if mark == self.array => return Err(mixed_keys()),
            (Shape::Named, Layout::Compact) => self.members(table, false)?,
            (Shape::Object, Layout::Compact) => self.members(table, true)?,
            (Shape::Named, Layout::Pretty) => self.sorted_members(table, false)?,
            (Shape::Object, Layout::Pretty) => self.sorted_members(table, true)?,
        }
        self.ancestors.pop();
        Ok(())
    }

    fn enter(&mut self, table: usize) -> Outcome {
        let identity = self.stack.identity(table);
        if self.ancestors.len() == MAX_DEPTH {
            return Err(Fault::new(format!("nesting deeper than {MAX_DEPTH}")));
        }
        if self.ancestors.contains(&identity) {
            return Err(Fault::new("a table that contains itself"));
        }
        self.ancestors.push(identity);
        if self.stack.reserve(8) { Ok(()) } else { Err(Fault::new("Lua's stack is full")) }
    }

    /// Looks at the keys. A list that Lua keeps as one comes in the order of its positions: as long as it holds
    /// no tables, it is written on the way. (Tables would be written again at every level if the list turned
    /// out to have holes.)
    fn shape(&mut self, table: usize) -> Result<Shape, Box<Fault>> {
        let (key, value) = (self.stack.top() + 1, self.stack.top() + 2);
        let before = self.out.len();
        let mut written = 0;
        self.stack.push_nil();
        while self.stack.next(table) {
            match self.stack.slot(key) {
                Slot::Integer(at) if at == written + 1 && !self.stack.is_table(value) => {
                    self.out.push(if written == 0 { b'[' } else { b',' });
                    self.new_line(self.ancestors.len());
                    written = at;
                    self.value(value).map_err(|fault| fault.within(format!("[{at}]")))?;
                    self.stack.cut(key);
                }
                Slot::String if written == 0 => {
                    self.stack.cut(key - 1);
                    return Ok(Shape::Named);
                }
                _ => {
                    self.stack.cut(key - 1);
                    self.out.truncate(before);
                    return self.scattered_shape(table);
                }
            }
        }
        if written == 0 {
            return Ok(Shape::Empty);
        }
        self.new_line(self.ancestors.len() - 1);
        self.out.push(b']');
        Ok(Shape::Written)
    }

    /// For a list whose positions come in any order, with holes perhaps.
    fn scattered_shape(&mut self, table: usize) -> Result<Shape, Box<Fault>> {
        let (mut elements, mut length) = (0, 0);
        let key = self.stack.top() + 1;
        self.stack.push_nil();
        while self.stack.next(table) {
            self.stack.cut(key);
            match self.stack.slot(key) {
                Slot::Integer(at) if at >= 1 => {
                    elements += 1;
                    length = length.max(at as usize);
                }
                Slot::String => return Err(mixed_keys()),
                _ => return Err(self.bad_key(key)),
            }
        }
        match length <= elements * 2 {
            true => Ok(Shape::List { length }),
            false => Err(Fault::new(format!("a list of {elements} elements up to position {length}"))),
        }
    }

    fn list(&mut self, table: usize, length: usize) -> Outcome {
        let element = self.stack.top() + 1;
        self.out.push(b'[');
        for position in 1..=length {
            self.separate(position == 1);
            self.stack.push_element(table, position);
            self.value(element).map_err(|fault| fault.within(format!("[{position}]")))?;
            self.stack.cut(element - 1);
        }
        self.new_line(self.ancestors.len() - 1);
        self.out.push(b']');
        Ok(())
    }

    /// `numbered`: integer keys become names too.
    fn members(&mut self, table: usize, numbered: bool) -> Outcome {
        let (key, value) = (self.stack.top() + 1, self.stack.top() + 2);
        let mut first = true;
        self.out.push(b'{');
        self.stack.push_nil();
        while self.stack.next(table) {
            self.separate(first);
            first = false;
            self.member(key, value, numbered)?;
            self.stack.cut(key);
        }
        self.out.push(b'}');
        Ok(())
    }

    fn sorted_members(&mut self, table: usize, numbered: bool) -> Outcome {
        let (key, value) = (self.stack.top() + 1, self.stack.top() + 2);
        let names = self.names(table)?;
        self.out.push(b'{');
        for (at, (name, number)) in names.iter().enumerate() {
            self.separate(at == 0);
            match number {
                Some(number) => self.stack.push_integer(*number),
                None => self.stack.push_string(name),
            }
            self.stack.push_copy(key);
            self.stack.get_field(table);
            self.member(key, value, numbered)?;
            self.stack.cut(key - 1);
        }
        if !names.is_empty() {
            self.new_line(self.ancestors.len() - 1);
        }
        self.out.push(b'}');
        Ok(())
    }

    /// The keys, sorted as text.
    fn names(&mut self, table: usize) -> Result<Vec<Name>, Box<Fault>> {
        let key = self.stack.top() + 1;
        let mut names = Vec::new();
        self.stack.push_nil();
        while self.stack.next(table) {
            names.push(match self.stack.slot(key) {
                Slot::Integer(number) => (number.to_string().into_bytes(), Some(number)),
                Slot::String => (self.stack.with_bytes(key, <[u8]>::to_vec), None),
                _ => return Err(self.bad_key(key)),
            });
            self.stack.cut(key);
        }
        names.sort_unstable();
        Ok(names)
    }

    fn member(&mut self, key: usize, value: usize, numbered: bool) -> Outcome {
        match self.stack.slot(key) {
            Slot::String => self.string(key).map_err(|fault| fault.within(self.part(key)))?,
            Slot::Integer(number) if numbered => {
                self.out.push(b'"');
                self.write(&number)?;
                self.out.push(b'"');
            }
            Slot::Integer(_) => return Err(mixed_keys()),
            _ => return Err(self.bad_key(key)),
        }
        self.out.push(b':');
        if self.layout == Layout::Pretty {
            self.out.push(b' ');
        }
        self.value(value).map_err(|fault| fault.within(self.part(key)))
    }

    fn bad_key(&self, key: usize) -> Box<Fault> {
        Fault::new(match self.stack.slot(key) {
            Slot::Integer(number) => format!("position {number} in a list"),
            Slot::Number(number) => format!("key {number:?}"),
            Slot::Boolean(value) => format!("key {value}"),
            Slot::Other(kind) => format!("a {kind} as key"),
            Slot::Null | Slot::String | Slot::Table => "a table or null as key".into(),
        })
    }

    /// `.name`, or `["any text"]`.
    fn part(&self, key: usize) -> String {
        if let Slot::Integer(number) = self.stack.slot(key) {
            return format!("[\"{number}\"]");
        }
        self.stack.with_bytes(key, |bytes| {
            let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
            let text = String::from_utf8_lossy(bytes);
            let is_name = bytes.first().is_some_and(|first| !first.is_ascii_digit());
            match is_name && bytes.iter().all(is_word) {
                true => format!(".{text}"),
                false => format!("[{text:?}]"),
            }
        })
    }

    fn separate(&mut self, first: bool) {
        if !first {
            self.out.push(b',');
        }
        self.new_line(self.ancestors.len());
    }

    fn new_line(&mut self, depth: usize) {
        if self.layout == Layout::Pretty {
            self.out.push(b'\n');
            self.out.extend(std::iter::repeat_n(b' ', 2 * depth));
        }
    }
}
