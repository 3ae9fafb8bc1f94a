-- Put jobs back in line whose lease has ended or whose broker is late, and delete what has expired, at most so many of each.
-- Answers how many jobs of the first kinds, how much was deleted, and how many entries were looked at for that. ARGV: limit, grace.
local limit = tonumber(ARGV[1])
local lost = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)
local recovered = 0
for _, id in ipairs(lost) do
  local r = fetch(id)
  drop(P .. 'leases', id)
  if r and r[TOKEN] then
    local job = key('job', id)
    if r[STATE] == SUSPENDED then call('HINCRBY', job, 'o', -1) end
    move(r, PENDING, '1')
    call('HSET', job, 's', PENDING, 'i', '1')
    call('HDEL', job, 'k')
    line_up(id, r)
    recovered = recovered + 1
  end
end
local late = call('ZRANGEBYSCORE', P .. 'carried', '-inf', now - tonumber(ARGV[2]), 'LIMIT', 0, limit)
local carried = 0
for _, id in ipairs(late) do
  local r = fetch(id)
  drop(P .. 'carried', id)
  if r and r[LINED] == CARRIED then
    move(r, r[STATE], '1')
    call('HSET', key('job', id), 'i', '1')
    line_up(id, r)
    carried = carried + 1
  end
end
local expired, looked = expire(limit)
flush()
return {recovered, carried, expired, looked}
