-- Store jobs, each in its turn, and put them in line. Answers for each whether it was added.
-- ARGV: version of the indexed paths, in line? (otherwise a broker carries those that are due), number, and for each job: id, name, queue, body with the metadata
-- before it, priority, delay, parent, root, parent's token, label, ttl, latest moment, lengths in the metadata ('' none), number of labels, and for these: number
-- of the path and label.
local version, enqueue, total = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
if is_stale(version) then return STALE end
local first = call('INCRBY', P .. 'seq', total) - total

local family = {}
local function parent_row(id)
  if family[id] == nil then family[id] = fetch(id) or false end
  return family[id]
end

local indexes = {}
local function index(created, id, from, to)
  -- As `entry` writes it.
  local place = '\0' .. string.format('%016.0f', created) .. id
  for i = from, to, 2 do
    local number = ARGV[i]
    local set = indexes[number]
    if not set then set = key('has', number); indexes[number] = set end
    add(set, 0, ARGV[i + 1] .. place)
  end
end

-- lined: nil, it ends at once. at, ends: where its labels stand.
local function insert(n, id, r, body, lined, at, ends)
  -- A microsecond apart, so that they are found in the order of their arrival; to store one takes longer than that.
  local created = now + n - 1
  local queue, due, offset = r[QUEUE], r[DUE], n > 1 and int(n - 1)
  r[STATE], r[CREATED], r[OFFSET] = PENDING, moment, offset
  local fields = {'n', r[NAME], 'q', queue, 's', PENDING, 'p', r[PRIORITY], 'c', moment, 'd', due}
  local size = 12
  local function field(name, value)
    fields[size + 1], fields[size + 2] = name, value
    size = size + 2
  end
  if offset then field('h', offset) end
  if r[PARENT] then field('u', r[PARENT]) end
  if r[ROOT] then field('r', r[ROOT]) end
  if r[LABEL] then field('l', r[LABEL]) end
  if r[LATEST] then field('z', r[LATEST]) end
  if r[LATE_TTL] then field('j', r[LATE_TTL]) end
  if r[META] then
    field('m', r[META])
    if ends > at then index(created, id, at + 1, ends) end
  end
  call('SET', key('body', id), body)
  if lined ~= nil then
    r[ARRIVAL], r[LINED] = arrival(first + n), lined and '1' or CARRIED
    field('e', r[ARRIVAL])
    field('i', r[LINED])
    add(P .. 'open', created, id)
    changed(id)
  end
  call('HSET', key('job', id), unpack(fields))
  add(P .. 'ids', 0, id)
  if r[PARENT] then add(key('children', r[PARENT]), created, id) end
  if r[ROOT] then add(key('tree', r[ROOT]), created, id) end
  count(r, PENDING, r[LINED], 1)
  family[id] = r
end

local added, at = {}, 3
for n = 1, total do
  local r = blank()
  local id, name, queue, body, priority, delay, parent, root, token, label, ttl, latest, meta, labels = unpack(ARGV, at + 1, at + 14)
  at, delay = at + 14, tonumber(delay)
  local ends = at + 2 * labels
  r[NAME], r[QUEUE], r[PRIORITY] = name, queue, priority
  r[DUE] = delay == 0 and moment or int(now + delay)
  r[LABEL], r[PARENT], r[ROOT] = optional(label), parent ~= '' and parent, root ~= '' and root
  r[META] = meta ~= '' and meta

  local above = r[PARENT] and parent_row(parent)
  -- Most are new, and to look at their fields would cost more than to store them.
  local known = family[id] or (call('EXISTS', key('job', id)) == 1 and fetch(id))
  added[n] = 0
  if known then
    family[id] = known
  elseif above and above[STATE] == REVOKED then
    insert(n, id, r, body, nil, at, ends)
    finish(id, r, REVOKED, tonumber(ttl), nil, nil)
  elseif token == '' or (above and above[TOKEN] == token) then
    local lined = enqueue or delay > 0
    if latest ~= '' then r[LATEST], r[LATE_TTL] = latest, ttl ~= '' and ttl end
    insert(n, id, r, body, lined, at, ends)
    if lined then
      line_up(id, r)
    else
      set_late(id, r)
      add(P .. 'carried', tonumber(r[DUE]), id)
    end
    added[n] = 1
  end
  at = ends
end
flush()
return added
