-- What comes about in steps, with steps of the spec's own.

local PENDING, READY, TIMED_OUT = {}, 0, 1

-- Errors of the system's that tell of a shortage.
local SHORTAGE = 24

--- `tcp/establish.lua` where each wait until `limits[i]` ends as `ends[i]` says.
local function establish_with(limits, ends, next_outcome)
  local core = {
    PENDING = PENDING,
    outcome = next_outcome,
    cut = function(_, op, ended) return { op = op, ended = ended } end,
    is_shortage = function(errno) return errno == SHORTAGE end,
  }
  local waiting = {
    READY = READY,
    wait = function(_, _, expiry)
      limits[#limits + 1] = expiry
      return ends[#limits]
    end,
  }
  return assert(loadfile("src/runtime/establish.lua"))(core, {}, waiting)
end

describe("what is tried again for want of descriptors", function()
  --- `outcomes`: of one step after the other, each a list of what it tells.
  local function run(ends, outcomes)
    local limits, at = {}, 0
    local establish = establish_with(limits, ends, function()
      at = at + 1
      return (table.unpack or unpack)(outcomes[at], 1, 3)
    end)
    local function step()
      return PENDING
    end
    local value, err = establish("connect", "connect", step, step)
    return limits, value, err
  end

  it("has no second time: it ends when the first try would have", function()
    local limits, value, err = run({ READY, TIMED_OUT }, {
      { 0, 100, {} }, { { errno = SHORTAGE } },
      { 0, 105, {} },
    })
    assert.same({ 100, 100 }, limits)
    assert.is_nil(value)
    assert.same({ op = "connect", ended = TIMED_OUT }, err)
  end)

  it("has its own time if the first try had not begun to wait", function()
    local limits = run({ READY, READY }, {
      { { errno = SHORTAGE } },
      { 0, 105, {} }, { { errno = SHORTAGE } },
    })
    assert.same({ 105 }, limits)
  end)

  it("is tried again only once", function()
    local limits, value, err = run({ READY, READY }, {
      { 0, 100, {} }, { { errno = SHORTAGE } },
      { 0, 105, {} }, { { errno = SHORTAGE } },
    })
    assert.same({ 100, 100 }, limits)
    assert.is_nil(value)
    assert.equal(SHORTAGE, err.errno)
  end)

  it("is not tried again after another failure", function()
    local limits, _, err = run({ READY }, { { 0, 100, {} }, { { errno = 111 } } })
    assert.same({ 100 }, limits)
    assert.equal(111, err.errno)
  end)
end)
