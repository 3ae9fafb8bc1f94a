-- The jobs: how they are read, ended and removed; put behind metadata.lua.

-- Of a job that succeeded the call is not needed any more, and its value takes that place. Answers how many values there were.
local function drop_value(id, r)
  if r[STATE] ~= SUCCESS then return call('DEL', key('value', id)) end
  if not head(id, r) then return call('DEL', key('body', id)) end
  if not content(id, r) then return 0 end
  set_content(id, r, nil)
  return 1
end

local function remove(id, r)
  count(r, r[STATE], r[LINED], -1)
  leave_line(id, r)
  for number, label in pairs(labels_of(id, r)) do drop(key('has', number), entry(label, r, id)) end
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

-- When the value and the record end, as fields of the job's hash; what is due first is when a sweep has to look.
local function set_end(id, r, ttl, value_ttl, fields)
  if r[VALUE_ENDS] and tonumber(r[VALUE_ENDS]) <= now then drop_value(id, r) end
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
  if state == SUCCESS then set_content(id, r, value) elseif value then call('SET', key('value', id), value) end
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
      expired = expired + drop_value(id, r)
      if r[EXPIRES] then add(P .. 'ends', tonumber(r[EXPIRES]), id) else drop(P .. 'ends', id) end
    else
      expired = expired + call('DEL', key('notes', id))
      call('HDEL', key('job', id), 'g')
      drop(P .. 'ends', id)
    end
  end
  return expired, #ids
end
