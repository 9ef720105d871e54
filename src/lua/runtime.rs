//! Loads the embedded Lua. A chunk gets `core` and the chunks before it as arguments, and gives a table.

use mlua::Function;
use mlua::Lua;
use mlua::Table;

/// What the names of the embedded chunks begin with. Not `@`: that would be the name of a file of the
/// script's in a folder `tcp`.
pub const CHUNK_PREFIX: &str = "=tcp/";

macro_rules! chunk {
    ($name:literal) => {
        ($name, include_str!(concat!("../runtime/", $name)))
    };
}

/// The module's table, what the metatables of connections, listeners and sockets need, and what the specs count with.
pub struct Runtime {
    pub module: Table,
    pub connection: Table,
    pub listener: Table,
    pub udp: Table,
    pub counts: Function,
}

pub fn load(lua: &Lua, core: &Table) -> mlua::Result<Runtime> {
    let run =
        |(name, source): (&str, &'static str)| lua.load(source).set_name(format!("{CHUNK_PREFIX}{name}"));
    let errors: Table = run(chunk!("errors.lua")).call(core)?;
    let signals: Table = run(chunk!("signals.lua")).call(core)?;
    let contexts: Table = run(chunk!("contexts.lua")).call(core)?;
    let scopes: Table = run(chunk!("scopes.lua")).call(())?;
    let suspension: Table = run(chunk!("suspend.lua")).call(core)?;
    let looping: Table =
        run(chunk!("loop.lua")).call((core, &errors, &signals, &contexts, &scopes, &suspension))?;
    let () = run(chunk!("stuck.lua")).call((core, &contexts, &suspension, &looping))?;
    let waiting: Table = run(chunk!("wait.lua")).call((core, &errors, signals, &contexts, &looping))?;
    let connection: Table =
        run(chunk!("methods.lua")).call((core, &errors, &contexts, &scopes, &looping, &waiting))?;
    let () = run(chunk!("stages.lua")).call((core, &errors, &contexts, &looping, &waiting, &connection))?;
    let coroutines: Table = run(chunk!("coroutines.lua")).call((core, &errors, suspension, &looping))?;
    let tasks: Table =
        run(chunk!("tasks.lua")).call((core, &errors, &contexts, scopes, &looping, &waiting, &coroutines))?;
    let queue: Function = run(chunk!("queue.lua")).call((core, &errors, &contexts, &looping, &waiting))?;
    let establish: Function = run(chunk!("establish.lua")).call((core, &errors, &waiting))?;
    let listener: Table =
        run(chunk!("listener.lua")).call((core, &errors, &looping, &waiting, &connection))?;
    let server: Table = run(chunk!("server.lua")).call((
        core,
        &errors,
        &contexts,
        &looping,
        &establish,
        &waiting,
        &tasks,
        &listener,
        &connection,
    ))?;
    let files: Table = run(chunk!("files.lua")).call((core, &errors, &looping, &waiting, &connection))?;
    let copy: Function = run(chunk!("copy.lua")).call((
        core,
        &errors,
        &contexts,
        &looping,
        &coroutines,
        &connection,
        files,
    ))?;
    let udp: Table =
        run(chunk!("udp.lua")).call((core, &errors, &looping, &establish, &waiting, &connection))?;
    let module = run(chunk!("module.lua"))
        .call((core, &errors, &looping, establish, tasks, queue, server, &udp, copy))?;
    Ok(Runtime { module, connection, listener, udp, counts: looping.raw_get("counts")? })
}
