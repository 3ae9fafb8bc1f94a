-- What has changed, and from now on notes are taken. Answers {the number to go on after, more?, lost?, for each job: number, id and row}; or 'stale'.
-- ARGV: version of the indexed paths ('-' they play no part), the number to go on after ('' nothing, from now on), most, how long notes are taken, the query,
-- a job that belongs to the jobs of each way (''), number of ways to all that match, and the ways.
local app, HOUR = P .. 'app', 3600000000
local version, since, most, keep = argument(), argument(), tonumber(argument()), tonumber(argument())
if version ~= '-' and is_stale(version) then return STALE end
local matches = conditions()
local state = call('HMGET', app, 'watched', 'changes', 'floor')
local watched, last, floor = tonumber(state[1] or 0), tonumber(state[2] or 0), tonumber(state[3] or 0)
if watched <= now then
  -- What was before has no notes, also for those who stopped right here.
  call('UNLINK', P .. 'changes')
  last = math.max(last + 1, now)
  floor = last
  call('HSET', app, 'changes', int(last), 'floor', int(floor))
end
if watched < now + keep - HOUR then call('HSET', app, 'watched', int(now + keep)) end
if since == '' then return {int(last), 0, 0, {}} end

local start = tonumber(since)

-- Ids and numbers of those on the shortest way whose notes are behind the start, in the order of notes; nil: it is no short one.
local function by_way()
  local single, sources, fewest = argument(), nil, STRETCH + 1
  for _ = 1, tonumber(argument()) do
    local candidate = way()
    local number = number_on(candidate)
    if number < fewest then sources, fewest = candidate, number end
  end
  if not sources then return nil end
  local notes, taken = {}, {}
  local function take(id)
    local number = id ~= '' and not taken[id] and call('ZSCORE', P .. 'changes', id)
    taken[id] = true
    if number and tonumber(number) > start then notes[#notes + 1] = {id, number} end
  end
  take(single)
  for _, entry in ipairs(stretch(sources, false, '-inf', '+inf', nil, STRETCH)) do take(entry[2]) end
  table.sort(notes, function(a, b) return tonumber(a[2]) < tonumber(b[2]) end)
  local found = {}
  for i, note in ipairs(notes) do found[2 * i - 1], found[2 * i] = note[1], note[2] end
  return found
end

local found = call('ZRANGEBYSCORE', P .. 'changes', '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
local more = #found == 2 * most and tonumber(found[#found]) < last
local few = more and by_way()
-- These are all there are up to now: with them, whoever asks has read to the end.
if few and #few <= 2 * most then found, more = few, false end
local rows = {}
for i = 1, #found, 2 do
  local id = found[i]
  local r = look(id)
  if r and matches(id, r) then
    rows[#rows + 1] = found[i + 1]
    rows[#rows + 1] = id
    rows[#rows + 1] = whole(id, r)
  end
end
return {more and found[#found] or int(last), more and 1 or 0, (start < floor or start > last) and 1 or 0, rows}
