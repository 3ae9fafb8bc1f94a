-- End attempts: each token is spent, and the job is final or in line again. Answers the rows as they then are; nil: claim lost.
-- ARGV: for each: id, token, state, why again ('' final, 'retry', 'pause', 'release'), delay, ttl, value_ttl, value.
local settled = {}

local function again(id, r, state, why, delay)
  local job = key('job', id)
  if r[STATE] == RUNNING then r[STOPS] = int((r[STOPS] or 0) + 1) end
  move(r, state, '1')
  if why ~= 'release' then r[DUE], r[ARRIVAL] = int(now + delay), next_arrival() end
  if why == 'retry' then r[ATTEMPT] = int((r[ATTEMPT] or 1) + 1) end
  call('HSET', job, 's', state, 'o', r[STOPS], 'd', r[DUE], 'e', r[ARRIVAL], 't', r[ATTEMPT] or '1', 'i', '1')
  call('HDEL', job, 'k')
  drop(P .. 'leases', id)
  changed(id)
  line_up(id, r)
end

for i = 1, #ARGV, 8 do
  local id, state, why = ARGV[i], ARGV[i + 2], ARGV[i + 3]
  local r = fetch(id)
  if not r or r[TOKEN] ~= ARGV[i + 1] then
    settled[#settled + 1] = false
  else
    if why == '' then
      finish(id, r, state, tonumber(ARGV[i + 5]), tonumber(ARGV[i + 6]), optional(ARGV[i + 7]) or nil)
    else
      again(id, r, state, why, tonumber(ARGV[i + 4]))
    end
    settled[#settled + 1] = whole(id, r)
  end
end
flush()
return settled
