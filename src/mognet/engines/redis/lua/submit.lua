-- Store jobs, each in its turn, and put them in line. Answers for each whether it was added.
-- ARGV: version of the indexed paths, in line? (otherwise a broker carries those that are due), number, and for each job: id, name, queue, body, priority, delay,
-- parent, root, parent's token, label, ttl, latest moment, how many fields in all of the metadata and its labels there are, and these with their values.
local version, enqueue, total = ARGV[1], ARGV[2] == '1', tonumber(ARGV[3])
if is_stale(version) then return STALE end
local first = call('INCRBY', P .. 'seq', total) - total
local at = 3
local function argument()
  at = at + 1
  return ARGV[at]
end

local family = {}
local function parent_row(id)
  if family[id] == nil then family[id] = fetch(id) or false end
  return family[id]
end

-- What is to be found in the index; answers whether there is anything.
local function index(id, r, metadata)
  local any = false
  for i = 1, #metadata, 2 do
    if metadata[i]:byte() ~= QUOTE then
      add(key('has', metadata[i]), 0, entry(metadata[i + 1], r, id))
      any = true
    end
  end
  return any
end

local function insert(n, id, r, body, metadata, lined)
  local job = key('job', id)
  -- A microsecond apart, so that they are found in the order of their arrival; to store one takes longer than that.
  local created = now + n - 1
  r[STATE], r[CREATED] = PENDING, moment
  if n > 1 then r[OFFSET] = int(n - 1) end
  local fields = {'q', r[QUEUE], 's', PENDING, 'p', r[PRIORITY], 'c', r[CREATED], 'd', r[DUE]}
  local function field(name, value)
    if value then
      fields[#fields + 1] = name
      fields[#fields + 1] = value
    end
  end
  field('n', r[NAME])
  field('u', r[PARENT])
  field('r', r[ROOT])
  field('l', r[LABEL])
  field('h', r[OFFSET])
  field('z', r[LATEST])
  field('j', r[LATE_TTL])
  if #metadata > 0 then
    r[META] = version ~= '' and index(id, r, metadata) and LABELLED or DESCRIBED
    field('m', r[META])
    in_chunks('HSET', key('meta', id), metadata)
  end
  call('SET', key('body', id), body)
  if lined ~= nil then
    r[ARRIVAL], r[LINED] = arrival(first + n), lined and '1' or CARRIED
    field('e', r[ARRIVAL])
    field('i', r[LINED])
    add(P .. 'open', created, id)
    changed(id)
  end
  call('HSET', job, unpack(fields))
  add(P .. 'ids', 0, id)
  if r[PARENT] then add(key('children', r[PARENT]), created, id) end
  if r[ROOT] then add(key('tree', r[ROOT]), created, id) end
  count(r, PENDING, r[LINED], 1)
  family[id] = r
end

local added = {}
for n = 1, total do
  local r = blank()
  local id = argument()
  r[NAME], r[QUEUE] = argument(), argument()
  local body = argument()
  r[PRIORITY] = argument()
  local delay = tonumber(argument())
  r[DUE] = delay == 0 and moment or int(now + delay)
  local parent, root, token = argument(), argument(), argument()
  r[LABEL] = optional(argument())
  local ttl, latest = argument(), argument()
  local metadata = {}
  for i = 1, 2 * tonumber(argument()) do metadata[i] = argument() end
  r[PARENT], r[ROOT] = parent ~= '' and parent, root ~= '' and root

  local above = r[PARENT] and parent_row(parent)
  -- Most are new, and to look at their fields would cost more than to store them.
  local known = family[id] or (call('EXISTS', key('job', id)) == 1 and fetch(id))
  added[n] = 0
  if known then
    family[id] = known
  elseif above and above[STATE] == REVOKED then
    insert(n, id, r, body, metadata, nil)
    finish(id, r, REVOKED, tonumber(ttl), nil, nil)
  elseif token == '' or (above and above[TOKEN] == token) then
    local lined = enqueue or delay > 0
    if latest ~= '' then r[LATEST], r[LATE_TTL] = latest, ttl ~= '' and ttl end
    insert(n, id, r, body, metadata, lined)
    if lined then
      line_up(id, r)
    else
      set_late(id, r)
      add(P .. 'carried', tonumber(r[DUE]), id)
    end
    added[n] = 1
  end
end
flush()
return added
