-- What the scripts share that look for jobs; put behind rows.lua for these.
local at = 0
local function argument()
  at = at + 1
  return ARGV[at]
end

-- Reads a query from the arguments, and answers the function that says whether a job matches: states, name, queue, node, parent, root, under, prefix,
-- created after, created before, in line?, number of conditions on metadata, and for each: its field (number of the path, or the key as a JSON text), number of values, and these.
local function conditions()
  local states, name, queue, node = argument(), optional(argument()), optional(argument()), optional(argument())
  local parent, root, under, prefix = argument(), argument(), argument(), argument()
  local low, high, in_line = argument(), argument(), argument() == '1'
  local wanted = {}
  for i = 1, tonumber(argument()) do
    wanted[i] = {argument(), {}}
    for _ = 1, tonumber(argument()) do wanted[i][2][argument()] = true end
  end

  local function inside(limit, moment, sign)
    if limit:sub(1, 1) == '(' then return (moment - tonumber(limit:sub(2))) * sign > 0 end
    return true
  end

  local function is_below(id, r)
    local seen = {}
    while r and not seen[id] do
      if id == under or r[PARENT] == under then return true end
      seen[id] = true
      id = r[PARENT]
      r = id and look(id)
    end
    return false
  end

  local function has_labels(id, r)
    for _, each in ipairs(wanted) do
      local label = field_of(id, r, each[1])
      if not label or not each[2][label] then return false end
    end
    return true
  end

  return function(id, r)
    return (states == '' or states:find(r[STATE], 1, true)) and (not name or r[NAME] == name) and (not queue or r[QUEUE] == queue)
      and (not node or r[NODE] == node) and (parent == '' or r[PARENT] == parent) and (root == '' or (r[ROOT] or id) == root)
      and id:sub(1, #prefix) == prefix and inside(low, tonumber(r[CREATED]), 1) and inside(high, tonumber(r[CREATED]), -1)
      and has_labels(id, r) and (under == '' or is_below(id, r)) and (not in_line or call('HGET', key('job', id), 'i') == '1')
  end
end

-- A way to the jobs: sets by creation, or entries of an index that have one label.
-- Reads it from the arguments: number of sets, and for each: it, and the label ('' none).
local function way()
  local sources = {}
  for i = 1, tonumber(argument()) do sources[i] = {argument(), argument()} end
  return sources
end

local function number_on(sources)
  local number = 0
  for _, source in ipairs(sources) do
    local set, label = source[1], source[2]
    number = number + (label == '' and call('ZCARD', set) or call('ZLEXCOUNT', set, '[' .. label .. '\0', '(' .. label .. '\1'))
  end
  return number
end

-- The jobs on a way from a place on, as {score, id} in their order, and how far this is sure: beyond the horizon there may be others.
-- No horizon: these are all.
-- low, high: '-inf', '+inf', or '(' and a score; start: {score, id} to go on behind, or nil; most: of each set.
local STRETCH = 1000
local function stretch(sources, newest, low, high, start, most)
  local entries, horizon = {}, nil
  local function comes_before(a, b)
    if a[1] ~= b[1] then return (a[1] < b[1]) ~= newest end
    return a[2] ~= b[2] and (a[2] < b[2]) ~= newest
  end

  local function by_score(set)
    local from, to = low, high
    if start and newest then to = int(start[1]) elseif start then from = int(start[1]) end
    if newest then return call('ZREVRANGEBYSCORE', set, to, from, 'WITHSCORES', 'LIMIT', 0, most) end
    return call('ZRANGEBYSCORE', set, from, to, 'WITHSCORES', 'LIMIT', 0, most)
  end

  -- 'g' comes behind all ids.
  local function by_label(set, label)
    local function bound(limit, open, beyond)
      if limit:sub(1, 1) ~= '(' then return open end
      return '(' .. label .. '\0' .. string.format('%016.0f', tonumber(limit:sub(2))) .. beyond
    end
    local from, to = bound(low, '[' .. label .. '\0', 'g'), bound(high, '(' .. label .. '\1', '')
    if start then
      local place = '(' .. label .. '\0' .. string.format('%016.0f', start[1]) .. start[2]
      if newest then to = place else from = place end
    end
    local command = newest and 'ZREVRANGEBYLEX' or 'ZRANGEBYLEX'
    local members = call(command, set, newest and to or from, newest and from or to, 'LIMIT', 0, most)
    local found = {}
    for i, member in ipairs(members) do
      found[2 * i - 1], found[2 * i] = member:sub(-32), member:sub(-48, -33)
    end
    return found
  end

  for _, source in ipairs(sources) do
    local found = source[2] == '' and by_score(source[1]) or by_label(source[1], source[2])
    for i = 1, #found, 2 do
      local entry = {tonumber(found[i + 1]), found[i]}
      if not start or comes_before(start, entry) then entries[#entries + 1] = entry end
    end
    if #found == 2 * most then
      -- Beyond its last entry this set is not known.
      local last = {tonumber(found[#found]), found[#found - 1]}
      if not horizon or comes_before(last, horizon) then horizon = last end
    end
  end
  if #sources > 1 then
    table.sort(entries, comes_before)
    while horizon and #entries > 0 and comes_before(horizon, entries[#entries]) do table.remove(entries) end
  end
  return entries, horizon, comes_before
end
