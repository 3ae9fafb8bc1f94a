-- Lease the best jobs that are due. If there are none, remember who waits for them.
-- ARGV: node, lease, limit, holder, who waits ('' nobody), how long, whether it was waiting already, number of queues, the
-- queues, and, if only some jobs are wanted, their ids. Answers when the next job is due (-1: none is known), and for each job:
-- its row as it was before, and its body.
local node, lease, limit, holder = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3]), ARGV[4]
local waiter, patience, waited = ARGV[5], tonumber(ARGV[6]), ARGV[7] == '1'
local queues = {}
for i = 1, tonumber(ARGV[8]) do queues[i] = ARGV[8 + i] end
local chosen = {}
for i = 9 + #queues, #ARGV do chosen[#chosen + 1] = ARGV[i] end
local next_due, next_queue

local PROMOTED = 1000
local function promote(queue)
  local later = key('later', queue)
  local head = call('ZRANGE', later, 0, 0, 'WITHSCORES')
  if head[2] and tonumber(head[2]) <= now then
    local due = call('ZRANGEBYSCORE', later, '-inf', now, 'WITHSCORES', 'LIMIT', 0, PROMOTED)
    local entries = {}
    for i = 1, #due, 2 do
      entries[i], entries[i + 1] = score(tonumber(due[i]:sub(16, 16), 16), tonumber(due[i + 1])), due[i]
    end
    in_chunks('ZADD', key('ready', queue), entries)
    call('ZREMRANGEBYRANK', later, 0, #due / 2 - 1)
    head = call('ZRANGE', later, 0, 0, 'WITHSCORES')
  end
  if head[2] and tonumber(head[2]) < (next_due or math.huge) then next_due, next_queue = tonumber(head[2]), queue end
end

-- Entries of several lines in one order: score, then arrival.
local function before(a, b) return a[1] < b[1] or (a[1] == b[1] and a[2] < b[2]) end

local function pick()
  local heads, places = {}, {}
  for _, queue in ipairs(queues) do
    local ready = key('ready', queue)
    local head = call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    if head[1] then heads[#heads + 1] = {tonumber(head[2]), head[1], ready} end
  end
  while #heads > 1 and #places < limit do
    local best = 1
    for i = 2, #heads do if before(heads[i], heads[best]) then best = i end end
    places[#places + 1] = heads[best][2]
    local ready = heads[best][3]
    call('ZPOPMIN', ready)
    local head = call('ZRANGE', ready, 0, 0, 'WITHSCORES')
    if head[1] then heads[best] = {tonumber(head[2]), head[1], ready} else table.remove(heads, best) end
  end
  if #heads == 1 and #places < limit then
    local popped = call('ZPOPMIN', heads[1][3], limit - #places)
    for i = 1, #popped, 2 do places[#places + 1] = popped[i] end
  end
  return places
end

local function pick_chosen()
  local wanted, found, places, seen = {}, {}, {}, {}
  for _, queue in ipairs(queues) do wanted[queue] = true end
  for _, id in ipairs(chosen) do
    local r = not seen[id] and call('HMGET', key('job', id), unpack(FIELDS)) or {}
    seen[id] = true
    if (r[LINED] == '1' or r[LINED] == CARRIED) and wanted[r[QUEUE]] and tonumber(r[DUE]) <= now then
      found[#found + 1] = {score(r[PRIORITY], tonumber(r[DUE])), place(r, id), id, r}
    end
  end
  table.sort(found, before)
  for i = 1, math.min(limit, #found) do
    leave_line(found[i][3], found[i][4])
    places[i] = found[i][2]
  end
  return places
end

for _, queue in ipairs(queues) do promote(queue) end
local places
if #chosen > 0 then places = pick_chosen() else places = pick() end

local claims = {}
local function take(id, r)
  local starts = int((r[STARTS] or 0) + 1)
  count(r, r[STATE], r[LINED], -1)
  count(r, RUNNING, '0', 1)
  local fields = {'s', RUNNING, 'a', starts, 'k', starts .. ':' .. holder .. '-' .. #claims, 'w', node, 'i', '0'}
  if not r[BEGAN] then fields[11], fields[12] = 'b', moment end
  call('HSET', key('job', id), unpack(fields))
  clear_late(id, r)
  add(P .. 'leases', now + lease, id)
  changed(id)
  local body = content(id, r)
  claims[#claims + 1] = {id, whole(id, r), body}
end

for _, entry in ipairs(places) do
  local id = entry:sub(17)
  local r = call('HMGET', key('job', id), unpack(FIELDS))
  -- In a store that was restored or tampered with, an entry may lead nowhere.
  if r[LINED] == '1' or r[LINED] == CARRIED then take(id, r) end
end
flush()

if #claims > 0 then
  if waited then
    for _, queue in ipairs(queues) do call('ZREM', key('wait', queue), waiter) end
    -- This one knew when the next job is due; now somebody else has to.
    if next_due then wake(next_queue, 1) end
  end
elseif waiter ~= '' then
  for _, queue in ipairs(queues) do
    call('ZADD', key('wait', queue), now + patience, waiter)
    call('PEXPIRE', key('wait', queue), math.ceil(patience / 1000) + 1000)
  end
end
return {int(now), next_due and int(math.max(0, next_due - now)) or '-1', claims}
