-- Put jobs whose lease has ended back in line, and delete what has expired, at most so many of each. Answers how many of each,
-- and how many entries of the second kind were looked at. ARGV: limit.
local limit = tonumber(ARGV[1])
local lost = call('ZRANGEBYSCORE', P .. 'leases', '-inf', now, 'LIMIT', 0, limit)
local recovered = 0
for _, id in ipairs(lost) do
  local r = fetch(id)
  drop(P .. 'leases', id)
  if r and r[TOKEN] then
    local job = key('job', id)
    if r[STATE] == SUSPENDED then call('HINCRBY', job, 'o', -1) end
    change_state(r, PENDING)
    call('HSET', job, 's', PENDING, 'i', '1')
    call('HDEL', job, 'k')
    line_up(id, r)
    recovered = recovered + 1
  end
end
local expired, looked = expire(limit)
flush()
return {recovered, expired, looked}
