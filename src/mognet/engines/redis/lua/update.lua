-- Change a record, and if told its descendants. Answers {'ok', row}, {'none'}, {'large', size} or 'stale'.
-- ARGV: id, token ('' any), states in which nothing changes, state ('' as it is), descendants?, ttl, tombstone?, largest metadata,
-- progress, the body of a rerun, its delay, the end it is for ('' any), version of the indexed paths, metadata keys and values, and for the paths that these reach: number and label.
local id, token, unless, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local descendants, ttl, tombstone, largest = ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7] == '1', tonumber(ARGV[8])
local progress, body, delay, which, version = optional(ARGV[9]), optional(ARGV[10]), tonumber(ARGV[11]), ARGV[12], ARGV[13]
local LABELS = 14
if #ARGV >= LABELS and is_stale(version) then return STALE end
local job, meta = key('job', id), key('meta', id)
local r = fetch(id)
local different = false

local function bury()
  r = blank()
  r[QUEUE], r[STATE], r[PRIORITY], r[CREATED], r[DUE] = '', PENDING, '5', int(now), int(now)
  call('HSET', job, 'q', '', 's', PENDING, 'p', '5', 'c', r[CREATED], 'd', r[DUE])
  add(P .. 'ids', 0, id)
  count(r, PENDING, '0', 1)
  finish(id, r, state ~= '' and state or REVOKED, ttl, nil, nil)
end

local function describe(what)
  if r[META] ~= LABELLED then
    if r[META] ~= what then call('HSET', job, 'm', what) end
    r[META] = what
  end
end

local function relabel(number, old, new)
  local index = key('has', number)
  if old then drop(index, entry(old, r, id)) end
  if new then
    add(index, 0, entry(new, r, id))
    call('HSET', meta, number, new)
    describe(LABELLED)
  elseif old then
    call('HDEL', meta, number)
  end
end

-- Answers the size, if it would be too large.
local function merge()
  local old, new, labels, size = {}, {}, {}, 1
  local found = fields_of(id, r)
  for i = 1, #found, 2 do old[found[i]] = found[i + 1] end
  for i = LABELS, #ARGV, 2 do
    local name, value = ARGV[i], ARGV[i + 1]
    if name:byte() ~= QUOTE then
      labels[name] = optional(value)
    elseif old[name] ~= value then
      new[#new + 1] = name
      new[#new + 1] = value
      old[name] = value
    end
  end
  for name, value in pairs(old) do
    if name:byte() == QUOTE then size = size + #name + #value + 2 end
  end
  if largest and math.max(2, size) > largest then return math.max(2, size) end
  if #new == 0 then return end
  different = true
  take_apart(id, r)
  in_chunks('HSET', meta, new)
  describe(DESCRIBED)
  for number, label in pairs(labels) do
    if old[number] ~= (label or nil) then relabel(number, old[number], label) end
  end
end

local function limit_life()
  r[TTL] = int(ttl)
  local fields = {'y', r[TTL]}
  if r[STATE] >= SUCCESS then set_end(id, r, ttl, ttl, fields) end
  call('HSET', job, unpack(fields))
end

local function set_progress()
  if r[META] and call('HGET', meta, 'p') == progress then return end
  take_apart(id, r)
  call('HSET', meta, 'p', progress)
  describe(DESCRIBED)
  different = true
end

-- What ended without a value waits in line once more.
local function rerun()
  if #ARGV >= LABELS then
    local size = merge()
    if size then return size end
  end
  call('DEL', key('value', id))
  if r[META] then call('HDEL', meta, 'p') end
  if r[EXPIRES] or r[VALUE_ENDS] then drop(P .. 'ends', id) end
  drop(P .. 'done', id)
  add(P .. 'open', born(r), id)
  move(r, PENDING, '1')
  r[DUE], r[STOPS], r[ARRIVAL] = int(now + delay), r[STARTS] or '0', next_arrival()
  for _, field in ipairs({BEGAN, FINISHED, ATTEMPT, NODE, TTL, EXPIRES, VALUE_ENDS, LATEST, LATE_TTL}) do r[field] = false end
  call('HDEL', job, 'b', 'f', 't', 'w', 'y', 'x', 'v', 'z', 'j')
  call('HSET', job, 's', PENDING, 'd', r[DUE], 'o', r[STOPS], 'e', r[ARRIVAL], 'i', '1')
  set_content(id, r, body)
  different = true
  line_up(id, r)
end

local function apply()
  if #ARGV >= LABELS then
    local size = merge()
    if size then return size end
  end
  if progress then set_progress() end
  if state >= SUCCESS then
    for _, each in ipairs(descendants and unfinished(id, r) or {r[STATE] < SUCCESS and {id, r} or nil}) do
      finish(each[1], each[2], state, ttl, nil, nil)
    end
  elseif ttl then
    limit_life()
    different = true
  end
  if state == SUSPENDED and r[STATE] == RUNNING then
    move(r, state, r[LINED])
    r[STOPS] = int((r[STOPS] or 0) + 1)
    call('HSET', job, 's', state, 'o', r[STOPS])
    different = true
  elseif state == RUNNING and r[STATE] == SUSPENDED then
    move(r, state, r[LINED])
    r[STARTS] = int(r[STARTS] + 1)
    call('HSET', job, 's', state, 'a', r[STARTS])
    different = true
  end
end

if not r then
  if tombstone then bury() else flush() return {'none'} end
elseif token ~= '' and r[TOKEN] ~= token then
  return {'none'}
elseif not unless:find(r[STATE], 1, true) then
  local size
  if not body then
    size = apply()
  elseif r[STATE] > SUCCESS and r[NAME] and (which == '' or which == r[FINISHED]) then
    size = rerun()
  end
  if size then return {'large', size} end
end
if different then changed(id) end
flush()
return {'ok', whole(id, r)}
