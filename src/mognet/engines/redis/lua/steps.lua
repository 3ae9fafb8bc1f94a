-- What a transition gathers until it is over: changes of sorted sets, numbers of jobs, places in the lines, rings, and notes of changes; put behind common.lua.

-- Changes of sorted sets are gathered, so that each set is changed by one command.
local adding, removing = {}, {}

local function add(set, score, member)
  local list = adding[set]
  if not list then list = {}; adding[set] = list end
  list[#list + 1] = score
  list[#list + 1] = member
end

local function drop(set, member)
  local list = removing[set]
  if not list then list = {}; removing[set] = list end
  list[#list + 1] = member
end

-- Lua's stack holds about 8000 arguments.
local function in_chunks(command, set, list)
  for i = 1, #list, 1000 do call(command, set, unpack(list, i, math.min(i + 999, #list))) end
end

-- How many jobs there are of each state, in line or not, queue and name.
local tally, kinds = {}, {}

local function count(r, state, lined, n)
  local queue, name = r[QUEUE], r[NAME]
  local of_queue = kinds[queue]
  if not of_queue then of_queue = {}; kinds[queue] = of_queue end
  local kind = of_queue[name]
  if not kind then
    -- Once for all jobs that are alike: to put texts together is what costs.
    kind = #queue .. ':' .. queue .. (name and '+' .. name or '-')
    of_queue[name] = kind
  end
  local field = state .. (lined == '1' and '1' or '0') .. kind
  tally[field] = (tally[field] or 0) + n
end

local function move(r, state, lined)
  count(r, r[STATE], r[LINED], -1)
  count(r, state, lined, 1)
  r[STATE], r[LINED] = state, lined
end

-- The line of a queue: 'ready' by priority and due time in one score, 'later' by due time. A double holds 53 bits exactly: 11
-- priorities, and 25 years of microseconds from 2022 on (after that the order is that of arrival, until EPOCH is moved).
-- Equal scores go by arrival, with which a member begins.
local EPOCH = 1640995200000000
local LEVEL = 8e14
local rings, soonest = {}, {}

local function place(r, id) return r[ARRIVAL] .. (r[PRIORITY] == '10' and 'a' or r[PRIORITY]) .. id end

local function score(priority, due) return (10 - priority) * LEVEL + math.min(math.max(0, due - EPOCH), LEVEL - 1) end

local function arrival(n) return string.format('%015.0f', n) end

local function next_arrival() return arrival(call('INCR', P .. 'seq')) end

-- Of those that nobody holds, when it is too late to run them.
local function set_late(id, r)
  if r[LATEST] then add(P .. 'late', tonumber(r[LATEST]), id) end
end

local function clear_late(id, r)
  if r[LATEST] then drop(P .. 'late', id) end
end

local function line_up(id, r)
  set_late(id, r)
  local due, queue = tonumber(r[DUE]), r[QUEUE]
  if due <= now then
    add(key('ready', queue), score(r[PRIORITY], due), place(r, id))
    rings[queue] = (rings[queue] or 0) + 1
  else
    add(key('later', queue), due, place(r, id))
    soonest[queue] = math.min(soonest[queue] or due, due)
  end
end

local function leave_line(id, r)
  if r[LINED] == '1' then
    drop(key('ready', r[QUEUE]), place(r, id))
    drop(key('later', r[QUEUE]), place(r, id))
  elseif r[LINED] == CARRIED then
    drop(P .. 'carried', id)
  end
end

-- Wake up to n of those who wait for jobs of a queue: one ring for each job. Who does not hear is gone, and the next is rung for.
local function wake(queue, n)
  local waiting = key('wait', queue)
  while n > 0 do
    local popped = call('ZPOPMIN', waiting)
    if not popped[1] then return end
    local engine, number = popped[1]:match('^(.*)/(.*)$')
    if tonumber(popped[2]) >= now and call('PUBLISH', key('bell', engine), number .. ':' .. queue) > 0 then n = n - 1 end
  end
end

-- Changes. Notes are taken only while somebody reads them. Their numbers are not below the clock: so none is given twice by a server that
-- was emptied, or has not got the last writes of the one that it takes the place of.
local noted, forgotten, rung = {}, {}, false

local function changed(id) noted[#noted + 1] = id end

local watched

local function note()
  if watched == nil then watched = call('HGET', P .. 'app', 'watched') end
  if not watched then return end
  if tonumber(watched) <= now then
    call('UNLINK', P .. 'changes')
    call('HDEL', P .. 'app', 'watched')
    watched = false
    return
  end
  in_chunks('ZREM', P .. 'changes', forgotten)
  if #noted == 0 then return end
  local last = math.max(call('HGET', P .. 'app', 'changes') or 0, now)
  call('HSET', P .. 'app', 'changes', int(last + #noted))
  local entries = {}
  for i, id in ipairs(noted) do entries[2 * i - 1], entries[2 * i] = int(last + i), id end
  in_chunks('ZADD', P .. 'changes', entries)
  if not rung then call('PUBLISH', P .. 'sig:changed', '') end
  rung = true
end

-- A script that was called with the paths of an older declaration does nothing.
local function is_stale(version)
  local found = call('HMGET', P .. 'app', 'paths', 'watched')
  watched = found[2]
  return (found[1] or '') ~= version
end
