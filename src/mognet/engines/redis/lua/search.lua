-- Records that match, by creation: some of those in the next stretch. Answers {more?, score and id to go on after, ids and rows, or groups and numbers}; or 'stale'.
-- ARGV: version of the indexed paths ('-' they play no part), newest first?, score and id of the start ('' from the first), most records,
-- by what they are only counted ('' not: state, queue, name, or a field of metadata), the query, a job that belongs to them (''),
-- number of ways to them, and the ways.
local BATCH = 10000
local version, newest, from, after, most, by = argument(), argument() == '1', argument(), argument(), tonumber(argument()), argument()
if version ~= '-' and is_stale(version) then return STALE end
local query = at
local matches = conditions()
local low, high = ARGV[query + 9], ARGV[query + 10]
-- Scores are up to a batch's length of microseconds later than the creation.
if high ~= '+inf' then high = '(' .. int(tonumber(high:sub(2)) + BATCH) end
local start = from ~= '' and {tonumber(from), after} or nil
local single = argument()

-- All ways lead to all that match; the shortest is that with the fewest jobs on it.
local sources, fewest
local others = {}
local ways = tonumber(argument())
for i = 1, ways do
  local candidate = way()
  others[i] = candidate
  local number = ways > 1 and number_on(candidate)
  if not fewest or number < fewest then sources, fewest = candidate, number end
end

-- Whether a job stands on the other ways, too: to ask this is much cheaper than to read its fields.
local FEW = 4
local function is_on_all(entry)
  for _, other in ipairs(others) do
    local found = other == sources or #other > FEW
    for i = 1, found and 0 or #other do
      local set, label = other[i][1], other[i][2]
      found = found or call('ZSCORE', set, label == '' and entry[2] or label .. '\0' .. string.format('%016.0f', entry[1]) .. entry[2])
    end
    if not found then return false end
  end
  return true
end

local groups = {}
local function group(id, r)
  if by == 'state' then return r[STATE] elseif by == 'queue' then return r[QUEUE] elseif by == 'name' then return r[NAME] or '' end
  return field_of(id, r, by) or ''
end

local rows = {}
local function take(id)
  local r = look(id)
  if not r or not matches(id, r) then return end
  if by == '' then
    rows[#rows + 1] = id
    rows[#rows + 1] = whole(id, r)
  else
    local name = group(id, r)
    groups[name] = (groups[name] or 0) + 1
  end
end

-- No more of each set at once than are asked for, so that a first page is quick; and no more metadata than takes a tenth of a second or so.
local MUCH = 1000000
local each = math.min(math.max(100, 2 * most), math.max(10, math.floor(2 * STRETCH / #sources)), STRETCH)
local looked, last, enough = 0, nil, false
repeat
  local entries, horizon, comes_before = stretch(sources, newest, low, high, start, each)
  local listed = single == ''
  for _, entry in ipairs(entries) do listed = listed or entry[2] == single end
  if not listed then
    local r = look(single)
    local entry = r and not r[ROOT] and {born(r), single}
    if entry and (not start or comes_before(start, entry)) and not (horizon and comes_before(horizon, entry)) then
      entries[#entries + 1] = entry
      table.sort(entries, comes_before)
    end
  end
  for _, entry in ipairs(entries) do
    enough = #rows >= 2 * most or scanned > MUCH
    if enough then break end
    last = entry
    if entry[2] == single or is_on_all(entry) then take(entry[2]) end
  end
  looked = looked + each * #sources
  if not enough then last, start = horizon, horizon end
until enough or not horizon or looked >= STRETCH

for name, number in pairs(groups) do
  rows[#rows + 1] = name
  rows[#rows + 1] = number
end
if last then return {1, int(last[1]), last[2], rows} end
return {0, '', '', rows}
