-- The laws of the house that no compiler keeps: which floor names what, and where unsafe code may be.

local lfs = require("lfs")

--- Calls `visit(path, text)` for every Rust file below `folder`.
local function each_source(folder, visit)
  for name in lfs.dir(folder) do
    local path = folder .. "/" .. name
    if name ~= "." and name ~= ".." and lfs.attributes(path, "mode") == "directory" then
      each_source(path, visit)
    elseif name:match("%.rs$") then
      local file = assert(io.open(path))
      visit(path, file:read("*a"))
      file:close()
    end
  end
end

-- Each crate or floor, and the only places that may name it.
local PLACES = {
  ["mlua::"] = { "src/lua/", "src/json/", "src/entry.rs" },
  ["serde"] = { "src/json/" },
  ["socket2::"] = { "src/sys/" },
  ["mio::"] = { "src/sys/" },
  ["nix::"] = { "src/sys/" },
  ["rustls"] = { "src/tls/" },
  ["webpki_roots"] = { "src/tls/" },
  ["x509_parser"] = { "src/tls/" },
  ["crate::lua"] = { "src/lua/", "src/entry.rs" },
  ["crate::json"] = { "src/lua/", "src/json/" },
  ["crate::net"] = { "src/lua/", "src/net/" },
  ["crate::sys"] = { "src/lua/", "src/net/", "src/sys/" },
  ["crate::tls"] = { "src/lua/", "src/net/", "src/tls/" },
  ["crate::frame"] = { "src/lua/", "src/net/", "src/tls/", "src/frame/" },
  ["unsafe {"] = {
    "src/entry.rs", "src/json/stack.rs", "src/lua/boundary.rs", "src/lua/file.rs", "src/sys/file.rs",
    "src/sys/memory.rs", "src/sys/signal.rs",
  },
  ["unsafe fn"] = { "src/entry.rs", "src/lua/file.rs", "src/sys/file.rs" },
  ["unsafe extern"] = { "src/entry.rs", "src/json/stack.rs", "src/lua/boundary.rs", "src/lua/file.rs" },
}

describe("the house", function()
  for word, places in pairs(PLACES) do
    it("names " .. word .. " only where it belongs", function()
      each_source("src", function(path, text)
        local code = text:gsub("mod tests %b{}", ""):gsub("//[^\n]*", "")
        if not code:find("%f[%w_]" .. word) then
          return
        end
        for _, place in ipairs(places) do
          if path:sub(1, #place) == place then
            return
          end
        end
        error(path .. " names " .. word)
      end)
    end)
  end

  it("gives a reason beside every unsafe block", function()
    each_source("src", function(path, text)
      local _, blocks = text:gsub("\n[^\n/]*unsafe {", "")
      local _, reasons = text:gsub("// SAFETY", "")
      assert.is_true(reasons >= blocks, path)
    end)
  end)

  it("leaves nothing for later", function()
    for _, folder in ipairs { "src", "lua-tests/support" } do
      each_source(folder, function(path, text)
        for _, word in ipairs { "TO" .. "DO", "FIX" .. "ME", "unimplemented!", "todo!" } do
          assert.is_nil(text:find(word, 1, true), path)
        end
      end)
    end
  end)
end)
