//! JSON (RFC 8259) straight between text and the Lua stack, without a tree in between.

pub mod decode;
pub mod encode;
mod stack;

use mlua::Table;

pub use self::stack::function;

/// Nesting deeper than this is refused, in both directions.
const MAX_DEPTH: usize = 128;

/// The metatables that tell a table's meaning where its content does not.
#[derive(Clone)]
pub struct Marks {
    /// On every decoded array; an empty table with it is `[]`.
    pub array: Table,
    /// A table with it is an object, whatever its keys.
    pub object: Table,
}
