-- Change a record, and if told its descendants. Answers {'ok', row}, {'none'} or {'large', size}.
-- ARGV: id, token ('' any), states in which nothing changes, state ('' as it is), descendants?, ttl, tombstone?, largest metadata,
-- metadata keys and values.
local id, token, unless, state = ARGV[1], ARGV[2], ARGV[3], ARGV[4]
local descendants, ttl, tombstone, largest = ARGV[5] == '1', tonumber(ARGV[6]), ARGV[7] == '1', tonumber(ARGV[8])
local job = key('job', id)
local r = fetch(id)

local function bury()
  r = blank()
  r[QUEUE], r[STATE], r[PRIORITY], r[CREATED], r[DUE] = '', PENDING, '5', int(now), int(now)
  call('HSET', job, 'q', '', 's', PENDING, 'p', '5', 'c', r[CREATED], 'd', r[DUE])
  add(P .. 'ids', 0, id)
  count(r, PENDING, '0', 1)
  finish(id, r, state ~= '' and state or REVOKED, ttl, nil, nil)
end

local function merge()
  local meta = key('meta', id)
  local labels = r[META] and call('HGETALL', meta) or {}
  local places = {}
  for i = 1, #labels, 2 do places[labels[i]] = i + 1 end
  for i = 9, #ARGV, 2 do
    if not places[ARGV[i]] then
      places[ARGV[i]] = #labels + 2
      labels[#labels + 1] = ARGV[i]
    end
    labels[places[ARGV[i]]] = ARGV[i + 1]
  end
  local text = json(labels)
  if largest and #text > largest then return #text end
  in_chunks('HSET', meta, labels)
  call('HSET', job, 'm', '1')
  r[META] = text
end

local function limit_life()
  r[TTL] = int(ttl)
  local fields = {'y', r[TTL]}
  if r[STATE] >= SUCCESS then set_end(id, r, ttl, ttl, fields) end
  call('HSET', job, unpack(fields))
end

local function apply()
  if #ARGV > 8 then
    local size = merge()
    if size then return size end
  end
  if state >= SUCCESS then
    for _, each in ipairs(descendants and unfinished(id, r) or {r[STATE] < SUCCESS and {id, r} or nil}) do
      finish(each[1], each[2], state, ttl, nil, nil)
    end
  elseif ttl then
    limit_life()
  end
  if state == SUSPENDED and r[STATE] == RUNNING then
    move(r, state, r[LINED])
    r[STOPS] = int((r[STOPS] or 0) + 1)
    call('HSET', job, 's', state, 'o', r[STOPS])
  elseif state == RUNNING and r[STATE] == SUSPENDED then
    move(r, state, r[LINED])
    r[STARTS] = int(r[STARTS] + 1)
    call('HSET', job, 's', state, 'a', r[STARTS])
  end
end

if not r then
  if tombstone then bury() else flush() return {'none'} end
elseif token ~= '' and r[TOKEN] ~= token then
  return {'none'}
elseif not unless:find(r[STATE], 1, true) then
  local size = apply()
  if size then return {'large', size} end
end
flush()
return {'ok', whole(id, r)}
