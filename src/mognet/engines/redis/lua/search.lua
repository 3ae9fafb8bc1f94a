-- Records that match, by creation: some of those in the next stretch. Answers {more?, score and member to go on after, ids and rows}.
-- ARGV: newest first?, created after, created before, start's score and member ('' from the first), most records, states, name,
-- queue, node, parent, root, prefix, in line?, a job that belongs to them (''), and the sets that hold the ids.
local STRETCH, BATCH = 1000, 10000
local newest, low, high, from, after, most = ARGV[1] == '1', ARGV[2], ARGV[3], ARGV[4], ARGV[5], tonumber(ARGV[6])
local states, name, queue, node, parent, root, prefix = ARGV[7], optional(ARGV[8]), optional(ARGV[9]), optional(ARGV[10]), ARGV[11], ARGV[12], ARGV[13]
-- Scores are up to a batch's length of microseconds later than the creation.
if high ~= '+inf' then high = '(' .. int(tonumber(high:sub(2)) + BATCH) end
if from ~= '' then if newest then high = from else low = from end end

local function comes_before(a, b)
  if a[1] ~= b[1] then return (a[1] < b[1]) ~= newest end
  return a[2] ~= b[2] and (a[2] < b[2]) ~= newest
end

local entries, horizon = {}, nil
local start = from ~= '' and {tonumber(from), after}
local function consider(entry)
  if not start or comes_before(start, entry) then entries[#entries + 1] = entry end
end

for i = 16, #ARGV do
  local found
  if newest then
    found = call('ZREVRANGEBYSCORE', ARGV[i], high, low, 'WITHSCORES', 'LIMIT', 0, STRETCH)
  else
    found = call('ZRANGEBYSCORE', ARGV[i], low, high, 'WITHSCORES', 'LIMIT', 0, STRETCH)
  end
  for j = 1, #found, 2 do consider({tonumber(found[j + 1]), found[j]}) end
  if #found == 2 * STRETCH then
    -- Beyond its last entry this set is not known.
    local last = {tonumber(found[#found]), found[#found - 1]}
    if not horizon or comes_before(last, horizon) then horizon = last end
  end
end
local single = ARGV[15]
if single ~= '' then
  local r = look(single)
  if r and not r[ROOT] then consider({tonumber(r[CREATED]), single}) end
end
table.sort(entries, comes_before)

local function inside(limit, moment, sign)
  if limit:sub(1, 1) == '(' then return (moment - tonumber(limit:sub(2))) * sign > 0 end
  return true
end

local in_line = ARGV[14] == '1'

local function matches(id, r)
  return (states == '' or states:find(r[STATE], 1, true)) and (not name or r[NAME] == name) and (not queue or r[QUEUE] == queue)
    and (not node or r[NODE] == node) and (parent == '' or r[PARENT] == parent) and (root == '' or (r[ROOT] or id) == root)
    and id:sub(1, #prefix) == prefix and inside(ARGV[2], tonumber(r[CREATED]), 1) and inside(ARGV[3], tonumber(r[CREATED]), -1)
    and (not in_line or call('HGET', key('job', id), 'i') == '1')
end

local rows, last = {}, nil
for _, entry in ipairs(entries) do
  if horizon and comes_before(horizon, entry) then break end
  if #rows >= 2 * most then return {1, int(last[1]), last[2], rows} end
  last = entry
  local r = look(entry[2])
  if r and matches(entry[2], r) then
    rows[#rows + 1] = entry[2]
    rows[#rows + 1] = whole(entry[2], r)
  end
end
if horizon then return {1, int(horizon[1]), horizon[2], rows} end
return {0, '', '', rows}
