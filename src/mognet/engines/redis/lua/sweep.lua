-- Put jobs back in line whose lease has ended or whose broker is late, end those that waited too long, and delete what has
-- expired, at most so many of each. Answers how many of each, and how many entries were looked at for the last. ARGV: limit, grace.
local limit, grace = tonumber(ARGV[1]), tonumber(ARGV[2])

local function each(set, before, act)
  local number = 0
  for _, id in ipairs(call('ZRANGEBYSCORE', P .. set, '-inf', before, 'LIMIT', 0, limit)) do
    local r = fetch(id)
    drop(P .. set, id)
    if r and act(id, r) then number = number + 1 end
  end
  -- What comes next has to see it.
  flush()
  return number
end

local recovered = each('leases', now, function(id, r)
  if not r[TOKEN] then return false end
  local job = key('job', id)
  if r[STATE] == SUSPENDED then call('HINCRBY', job, 'o', -1) end
  move(r, PENDING, '1')
  call('HSET', job, 's', PENDING, 'i', '1')
  call('HDEL', job, 'k')
  changed(id)
  line_up(id, r)
  return true
end)

local late = each('late', now, function(id, r)
  if r[STATE] < SUCCESS then
    for _, below in ipairs(unfinished(id, r)) do finish(below[1], below[2], REVOKED, tonumber(r[LATE_TTL]), nil, nil) end
  end
  return true
end)

local carried = each('carried', now - grace, function(id, r)
  if r[LINED] ~= CARRIED then return false end
  move(r, r[STATE], '1')
  call('HSET', key('job', id), 'i', '1')
  line_up(id, r)
  return true
end)

local expired, looked = expire(limit)
flush()
return {recovered, carried, late, expired, looked}
