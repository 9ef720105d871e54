//! Runs lua-tests/lua55/smoke.lua on Lua 5.5: once alone, then in several states on threads of their own, and
//! then in states that are closed, and unload the module, while tasks, connections and look-ups of theirs are under way.

use std::thread;

use mlua::Lua;

const SMOKE: &str = include_str!("../smoke.lua");

/// Tasks, connections and look-ups that the state is closed with; the threads of the look-ups outlive it.
const ABANDON: &str = r#"
    package.cpath = "build/lua55/?.so"
    local tcp = require("tcp")
    local listener = tcp.listen("127.0.0.1", 0)
    tcp.spawn(function()
        for conn in listener:connections() do
            tcp.spawn(conn.read_str, conn)
        end
    end)
    for _ = 1, 5 do
        tcp.try_connect(("x"):rep(64), 80, 0)
        tcp.spawn(tcp.try_connect, ("x"):rep(64), 80)
        tcp.spawn(function()
            local conn <close> = tcp.connect("localhost", listener:local_port())
            conn:write(("x"):rep(1000000))
            tcp.with_timeout(60, conn.read_line, conn)
        end)
    end
    tcp.sleep(0.002)
"#;

fn main() -> Result<(), String> {
    run(SMOKE)?;
    println!("one state is fine");

    let states: Vec<_> = (0..4).map(|_| thread::spawn(|| (0..5).try_for_each(|_| run(SMOKE)))).collect();
    for state in states {
        state.join().expect("no state panics")?;
    }
    println!("states on threads of their own do not meet");

    (0..200).try_for_each(|_| run(ABANDON))?;
    println!("states can be closed with tasks, connections and look-ups under way");
    Ok(())
}

fn run(script: &str) -> Result<(), String> {
    // SAFETY: loading the module under test, a shared library, is what this program is for.
    let lua = unsafe { Lua::unsafe_new() };
    lua.load(script).set_name("@lua-tests/lua55/smoke.lua").exec().map_err(|error| error.to_string())
}
