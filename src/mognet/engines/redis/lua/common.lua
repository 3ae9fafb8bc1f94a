-- What the transitions share; put before each of them. KEYS[1] is the prefix of the app's keys: all of them are in one hash slot.
local P, call = KEYS[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- The fields of a job's hash (keys.py says what they are), and their places in a row.
local FIELDS = {'n', 'q', 's', 'p', 'c', 'd', 'b', 'f', 'a', 'o', 't', 'u', 'r', 'w', 'l', 'y', 'x', 'h', 'm', 'k', 'e', 'i', 'v', 'g', 'z', 'j', 'G'}
local NAME, QUEUE, STATE, PRIORITY, CREATED, DUE, BEGAN, FINISHED, STARTS, STOPS, ATTEMPT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local PARENT, ROOT, NODE, LABEL, TTL, EXPIRES, OFFSET, META, TOKEN, ARRIVAL, LINED, VALUE_ENDS, NOTES = 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24
local LATEST, LATE_TTL, LOGGED = 25, 26, 27
-- Readers need fields up to META; in a row that is answered, the progress stands behind them.
local RECORD, PROGRESS = 19, 20
local PENDING, RUNNING, SUSPENDED, SUCCESS, REVOKED = '0', '1', '2', '3', '5'
-- What META says: there is something in meta:ID, and labels are among it.
local DESCRIBED, LABELLED = '1', '2'
-- A script was called with the paths of an older declaration: nothing was done.
local STALE = 'stale'
local CARRIED = '2'
local SMALL_VALUE = 4096

local function key(kind, name) return P .. kind .. ':' .. name end

-- Lua writes large numbers with an exponent unless told.
local function int(n) return string.format('%.0f', n) end

local function optional(text) return text ~= '-' and text:sub(2) or false end

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

-- Metadata. In meta:ID, a JSON text of a key begins with a quote, a label's field is the number of its path, and 'p' is the progress.
local QUOTE = 34

local function is_stale(version)
  local found = call('HMGET', P .. 'app', 'paths', 'watched')
  watched = found[2]
  return (found[1] or '') ~= version
end

local function born(r) return r[CREATED] + (r[OFFSET] or 0) end

-- An entry of the index has:NUMBER. A label holds no NUL, and all that have one label are together, by creation.
local function entry(label, r, id) return label .. '\0' .. string.format('%016.0f', born(r)) .. id end

local function unlabel(id, r)
  local found = call('HGETALL', key('meta', id))
  for i = 1, #found, 2 do
    if tonumber(found[i]) then drop(key('has', found[i]), entry(found[i + 1], r, id)) end
  end
end

-- The metadata as a text, and the progress.
local function described(id)
  local items, progress = {}, false
  local found = call('HGETALL', key('meta', id))
  for i = 1, #found, 2 do
    if found[i]:byte() == QUOTE then items[#items + 1] = found[i] .. ':' .. found[i + 1] end
    if found[i] == 'p' then progress = found[i + 1] end
  end
  return '{' .. table.concat(items, ',') .. '}', progress
end

-- Rows.

-- Of a job that succeeded the call is not needed any more, and its value takes that place.
local function value_key(id, state) return key(state == SUCCESS and 'body' or 'value', id) end

local function remove(id, r)
  count(r, r[STATE], r[LINED], -1)
  leave_line(id, r)
  if r[META] == LABELLED then unlabel(id, r) end
  call('DEL', key('job', id), key('body', id), key('notes', id), key('meta', id))
  if r[STATE] > SUCCESS then call('DEL', key('value', id)) end
  if r[LOGGED] then call('DEL', key('log', id)) end
  forgotten[#forgotten + 1] = id
  drop(P .. (r[STATE] >= SUCCESS and 'done' or 'open'), id)
  drop(P .. 'ids', id)
  if r[TOKEN] then drop(P .. 'leases', id) end
  clear_late(id, r)
  if r[EXPIRES] or r[VALUE_ENDS] or r[NOTES] then drop(P .. 'ends', id) end
  if r[PARENT] then drop(key('children', r[PARENT]), id) end
  if r[ROOT] then drop(key('tree', r[ROOT]), id) end
end

local function gone(r) return not r[STATE] or (r[EXPIRES] and tonumber(r[EXPIRES]) <= now) end

-- A job as far as it can be seen; one that has expired goes now.
local function fetch(id)
  local r = call('HMGET', key('job', id), unpack(FIELDS))
  if not gone(r) then return r end
  if r[STATE] then remove(id, r) end
  return nil
end

-- The same for those who only read.
local function look(id)
  local r = call('HMGET', key('job', id), unpack(FIELDS, 1, RECORD))
  return not gone(r) and r or nil
end

-- A row of nothing.
local function blank()
  return {false, false, false, false, false, false, false, false, false, false, false, false,
    false, false, false, false, false, false, false, false, false, false, false, false, false, false, false}
end

-- A row as it is answered: with the metadata as a text, and no longer than a record and its progress. The script is done with it.
local function whole(id, r)
  if r[META] == DESCRIBED or r[META] == LABELLED then
    r[META], r[PROGRESS] = described(id)
  elseif not r[META] then
    r[PROGRESS] = false
  end
  r[PROGRESS + 1] = nil
  return r
end

-- When the value and the record end, as fields of the job's hash; what is due first is when a sweep has to look.
local function set_end(id, r, ttl, value_ttl, fields)
  if r[VALUE_ENDS] and tonumber(r[VALUE_ENDS]) <= now then call('DEL', value_key(id, r[STATE])) end
  local expires = ttl and now + ttl
  local value_ends = value_ttl and now + value_ttl or expires
  if expires then value_ends = math.min(expires, value_ends) end
  r[EXPIRES] = expires and int(expires) or false
  r[VALUE_ENDS] = value_ends == expires and r[EXPIRES] or (value_ends and int(value_ends) or false)
  local n = #fields
  if value_ends then
    fields[n + 1], fields[n + 2] = 'v', r[VALUE_ENDS]
    add(P .. 'ends', value_ends, id)
  elseif r[NOTES] then
    drop(P .. 'ends', id)
  end
  if expires then fields[n + 3], fields[n + 4] = 'x', r[EXPIRES] end
end

-- A final state: out of line, without token and notes. DONE is told when all is done.
local ended = {}
local moment = int(now)

local function finish(id, r, state, ttl, value_ttl, value)
  local job = key('job', id)
  leave_line(id, r)
  if r[STATE] == RUNNING then r[STOPS] = int((r[STOPS] or 0) + 1) end
  move(r, state, '0')
  r[FINISHED] = moment
  if r[TTL] then ttl, value_ttl = tonumber(r[TTL]), tonumber(r[TTL]) end
  if not value then value_ttl = nil end
  local fields = {'s', state, 'f', moment, 'o', r[STOPS] or '0'}
  set_end(id, r, ttl, value_ttl, fields)
  call('HSET', job, unpack(fields))
  if r[TOKEN] then drop(P .. 'leases', id) end
  clear_late(id, r)
  if r[NOTES] then call('DEL', key('notes', id)) end
  if r[ARRIVAL] then call('HDEL', job, 'k', 'e', 'i', 'g') end
  r[TOKEN], r[ARRIVAL], r[NOTES] = false, false, false
  drop(P .. 'open', id)
  add(P .. 'done', born(r), id)
  if value then call('SET', value_key(id, state), value) elseif state == SUCCESS then call('DEL', key('body', id)) end
  changed(id)
  ended[#ended + 1] = {id, r, value and #value <= SMALL_VALUE and value}
end

-- The job itself and all below it, as far as records lead; ids that are used again may make a circle.
local function unfinished(id, r)
  local found, seen, todo = {}, {[id] = true}, {id}
  local rows = {[id] = r}
  while #todo > 0 do
    local each = table.remove(todo)
    local row = rows[each] or fetch(each)
    if row then
      if row[STATE] < SUCCESS then found[#found + 1] = {each, row} end
      for _, child in ipairs(call('ZRANGE', key('children', each), 0, -1)) do
        if not seen[child] then
          seen[child] = true
          todo[#todo + 1] = child
        end
      end
    end
  end
  return found
end

-- DONE as fields of bytes: their lengths, then they themselves (session.py reads it). Only if somebody listens.
local function tell()
  if #ended == 0 or call('PUBSUB', 'NUMSUB', P .. 'done')[2] == 0 then return end
  local lengths, texts, size = {}, {}, 0
  local function field(text)
    lengths[#lengths + 1] = text and #text or -1
    if text then texts[#texts + 1] = text; size = size + #text end
  end
  local function send()
    call('PUBLISH', P .. 'done', table.concat(lengths, ',') .. ';' .. table.concat(texts))
    lengths, texts, size = {}, {}, 0
  end
  for _, each in ipairs(ended) do
    local r = whole(each[1], each[2])
    field(each[1])
    for i = 1, PROGRESS do field(r[i]) end
    field(each[3])
    if size > 65536 then send() end
  end
  if #lengths > 0 then send() end
end

-- Write what was gathered, and ring.
local function flush()
  for set, list in pairs(removing) do in_chunks('ZREM', set, list) end
  for set, list in pairs(adding) do in_chunks('ZADD', set, list) end
  for field, n in pairs(tally) do
    if n ~= 0 and call('HINCRBY', P .. 'counts', field, n) <= 0 then call('HDEL', P .. 'counts', field) end
  end
  if #noted + #forgotten > 0 then note() end
  tell()
  for queue, n in pairs(rings) do wake(queue, n) end
  for queue, due in pairs(soonest) do
    -- Whoever waits knows the due time of the first; if that is another one now, somebody has to look again.
    local head = call('ZRANGE', key('later', queue), 0, 0, 'WITHSCORES')
    if head[2] and tonumber(head[2]) == due then wake(queue, 1) end
  end
  adding, removing, tally, ended, rings, soonest, noted, forgotten = {}, {}, {}, {}, {}, {}, {}, {}
end

-- Delete what has expired by now, at most so many things; answer how many went, and how many were looked at.
local function expire(limit)
  local ids = call('ZRANGEBYSCORE', P .. 'ends', '-inf', now, 'LIMIT', 0, limit)
  local expired = 0
  for _, id in ipairs(ids) do
    local r = call('HMGET', key('job', id), unpack(FIELDS))
    if not r[STATE] then
      drop(P .. 'ends', id)
    elseif gone(r) then
      remove(id, r)
      expired = expired + 1
    elseif r[STATE] >= SUCCESS then
      expired = expired + call('DEL', value_key(id, r[STATE]))
      if r[EXPIRES] then add(P .. 'ends', tonumber(r[EXPIRES]), id) else drop(P .. 'ends', id) end
    else
      expired = expired + call('DEL', key('notes', id))
      call('HDEL', key('job', id), 'g')
      drop(P .. 'ends', id)
    end
  end
  return expired, #ids
end
