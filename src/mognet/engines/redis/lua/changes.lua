-- What has changed, and from now on notes are taken. Answers {the number to go on after, now, more?, lost?, for each job: number, id and row}; or 'stale'.
-- ARGV: version of the indexed paths ('-' they play no part), the number to go on after ('' nothing, from now on), most, how long notes are taken, the query.
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
if since == '' then return {int(last), int(now), 0, 0, {}} end

local start = tonumber(since)
local found = call('ZRANGEBYSCORE', P .. 'changes', '(' .. since, '+inf', 'WITHSCORES', 'LIMIT', 0, most)
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
local more = #found == 2 * most and tonumber(found[#found]) < last
return {more and found[#found] or int(last), int(now), more and 1 or 0, (start < floor or start > last) and 1 or 0, rows}
