-- The next jobs whose labels have to be brought up to date, by creation; labels of paths that were given up go at once.
-- Answers {score and id of the last, more?, how many were looked at, for each job that has metadata: id, values of the keys};
-- nil: there is nothing to do; or 'stale'.
-- ARGV: version of the indexed paths, most jobs, JSON texts of the keys that are wanted.
local version, most = argument(), tonumber(argument())
if is_stale(version) then return STALE end
local walk = call('HGET', P .. 'app', 'walk')
if not walk then return false end
local score, after = walk:match('^(%d+):(.*)$')

local numbers = {}
for _, number in ipairs(call('HVALS', P .. 'paths')) do numbers[number:match('%d+')] = true end

local function tidy(id, r)
  local labels, old = labels_of(id, r), {}
  for number in pairs(labels) do if not numbers[number] then old[#old + 1] = number end end
  if #old > 0 and head(id, r) then
    for _, number in ipairs(old) do labels[number] = nil end
    set_labels(id, r, labels)
  else
    for _, number in ipairs(old) do call('HDEL', key('meta', id), number) end
  end
end

local names = {unpack(ARGV, at + 1)}
local function values(id, r)
  local found, list = values_of(id, r, names), {}
  for i, name in ipairs(names) do list[i] = found[name] or false end
  return list
end

local entries, horizon = stretch({{P .. 'open', ''}, {P .. 'done', ''}}, false, '-inf', '+inf', {tonumber(score), after}, math.min(STRETCH, math.max(100, most)))
local rows, looked, last = {}, 0, horizon or {tonumber(score), after}
for i, entry in ipairs(entries) do
  if i > most or scanned > MUCH then break end
  local id = entry[2]
  local r = look(id)
  if r then tidy(id, r) end
  if r and r[META] and #names > 0 then
    rows[#rows + 1] = id
    rows[#rows + 1] = values(id, r)
  end
  looked, last = i, entry
end
local more = (horizon or looked < #entries) and 1 or 0
if looked == #entries and horizon then last = horizon end
return {int(last[1]), last[2], more, looked, rows}
