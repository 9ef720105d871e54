//! JSON text to values on the Lua stack: serde_json parses, the visitors here push.

use std::fmt;

use mlua::Lua;
use mlua::Value;
use serde::de::DeserializeSeed;
use serde::de::Deserializer;
use serde::de::MapAccess;
use serde::de::SeqAccess;
use serde::de::Visitor;

use crate::error::Error;
use crate::error::Kind;
use crate::json::MAX_DEPTH;
use crate::json::Marks;
use crate::json::stack;
use crate::json::stack::Stack;
use crate::json::stack::Work;

/// Where the metatable of arrays lies while decoding.
const ARRAY_MARK: usize = 1;

/// Values collected on the stack before their table is made, so that a small table is made in its final size.
const COLLECTED: usize = 16;

/// `Ok(Err(_))`: the text is not JSON, and is in the error's `data`.
pub fn decode(lua: &Lua, marks: &Marks, text: &[u8]) -> mlua::Result<Result<Value, Error>> {
    let (outcome, value) = stack::run(lua, &marks.array, |stack| push(stack, text))?;
    Ok(match outcome {
        Ok(()) => Ok(value),
        Err(error) => Err(Error::new(Kind::Json, message(&error)).with_data(text)),
    })
}

/// For the embedded Lua: `(text, array_mt)` gives the value; or nil and the message, or nil alone if there is
/// no string.
pub struct Decode;

impl Work for Decode {
    const ARGUMENTS: std::ffi::c_int = 2;

    fn work(stack: &mut Stack) {
        match stack.above_text(push) {
            Some(Ok(())) => {}
            Some(Err(error)) => {
                stack.cut(2);
                stack.push_nil();
                stack.push_string(message(&error).as_bytes());
            }
            None => stack.push_nil(),
        }
    }
}

/// Pushes the value of `text`, on a stack that holds the metatable of arrays.
fn push(stack: &mut Stack, text: &[u8]) -> serde_json::Result<()> {
    let mut parser = serde_json::Deserializer::from_slice(text);
    // This file counts the depth itself.
    parser.disable_recursion_limit();
    Push { stack, depth: 0 }.deserialize(&mut parser)?;
    parser.end()
}

fn message(error: &serde_json::Error) -> String {
    let text = error.to_string();
    match text.strip_prefix("EOF while parsing") {
        Some(rest) => format!("not JSON: the text ends within{rest}"),
        None => format!("not JSON: {text}"),
    }
}

/// Pushes exactly one value.
struct Push<'a> {
    stack: &'a mut Stack,
    depth: usize,
}

impl Push<'_> {
    fn enter<E: serde::de::Error>(&mut self) -> Result<(), E> {
        if self.depth == MAX_DEPTH {
            return Err(E::custom(format_args!("nesting deeper than {MAX_DEPTH}")));
        }
        self.depth += 1;
        // A table, its collected values, and what one more value needs.
        match self.stack.reserve(2 * COLLECTED + 8) {
            true => Ok(()),
            false => Err(E::custom("Lua's stack is full")),
        }
    }

    /// The slot of a table that is made once its size is known.
    fn hold_slot(&mut self) -> usize {
        self.stack.push_nil();
        self.stack.top()
    }

    fn inner(&mut self) -> Push<'_> {
        Push { stack: self.stack, depth: self.depth }
    }
}

impl<'de> DeserializeSeed<'de> for Push<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Push<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<(), E> {
        self.stack.push_null();
        Ok(())
    }

    fn visit_bool<E>(self, value: bool) -> Result<(), E> {
        self.stack.push_boolean(value);
        Ok(())
    }

    fn visit_i64<E>(self, value: i64) -> Result<(), E> {
        self.stack.push_integer(value);
        Ok(())
    }

    fn visit_u64<E>(self, value: u64) -> Result<(), E> {
        match i64::try_from(value) {
            Ok(value) => self.stack.push_integer(value),
            Err(_) => self.stack.push_number(value as f64),
        }
        Ok(())
    }

    fn visit_f64<E>(self, value: f64) -> Result<(), E> {
        self.stack.push_number(value);
        Ok(())
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.stack.push_string(text.as_bytes());
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut elements: A) -> Result<(), A::Error> {
        self.enter()?;
        let table = self.hold_slot();
        let mut count = 0;
        while count < COLLECTED && elements.next_element_seed(self.inner())?.is_some() {
            count += 1;
        }
        self.stack.push_table(count, 0);
        self.stack.replace(table);
        for position in (1..=count).rev() {
            self.stack.set_element(table, position);
        }
        while count >= COLLECTED && elements.next_element_seed(self.inner())?.is_some() {
            count += 1;
            self.stack.set_element(table, count);
        }
        self.stack.set_metatable(ARRAY_MARK);
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(mut self, mut members: A) -> Result<(), A::Error> {
        self.enter()?;
        let table = self.hold_slot();
        let mut count = 0;
        while count < COLLECTED && members.next_key_seed(Key(self.stack))?.is_some() {
            members.next_value_seed(self.inner())?;
            count += 1;
        }
        self.stack.push_table(0, count);
        self.stack.replace(table);
        // In the order of the text, so that the last of several alike wins.
        for member in 0..count {
            self.stack.push_copy(table + 1 + 2 * member);
            self.stack.push_copy(table + 2 + 2 * member);
            self.stack.set_field(table);
        }
        self.stack.cut(table);
        while count >= COLLECTED && members.next_key_seed(Key(self.stack))?.is_some() {
            members.next_value_seed(self.inner())?;
            self.stack.set_field(table);
        }
        Ok(())
    }
}

/// Pushes a member's name.
struct Key<'a>(&'a mut Stack);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl<'de> Visitor<'de> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a member's name")
    }

    fn visit_str<E>(self, text: &str) -> Result<(), E> {
        self.0.push_string(text.as_bytes());
        Ok(())
    }
}
