//! Plain Lua 5.1 cannot tell whether a coroutine may be suspended: the stack has to be looked at.

use mlua::Lua;

/// Whether nothing that is not Lua stands between the running function and the bottom of its coroutine: a C
/// function, or a call by the interpreter itself, for an iterator, a metamethod or a finalizer.
pub fn can_suspend(lua: &Lua, (): ()) -> mlua::Result<bool> {
    // Level 0 is this function.
    let mut level = 1;
    loop {
        let seen = lua.inspect_stack(level, |debug| {
            let names = debug.names();
            let is_named = names.name_what.is_some_and(|what| !what.is_empty());
            let is_iterator = names.name.as_deref() == Some("(for generator)");
            (debug.source().what.to_owned(), is_named, is_iterator)
        });
        let Some((what, is_named, is_iterator)) = seen else { return Ok(true) };
        if what == "C" || is_iterator {
            return Ok(false);
        }
        let is_bottom = lua.inspect_stack(level + 1, |_| ()).is_none();
        let follows_tail_call = lua.inspect_stack(level + 1, |debug| debug.source().what == "tail");
        if what == "Lua" && !is_named && !is_bottom && follows_tail_call != Some(true) {
            return Ok(false);
        }
        level += 1;
    }
}
