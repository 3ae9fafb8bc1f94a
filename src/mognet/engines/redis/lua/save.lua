-- Change notes; answers those that were replaced or deleted, or nil: claim lost. ARGV: id, token, ttl, and for each: name, value.
local id, ttl = ARGV[1], tonumber(ARGV[3])
local job, notes = key('job', id), key('notes', id)
local r = call('HMGET', job, unpack(FIELDS))
if r[TOKEN] ~= ARGV[2] then return false end
local limited = r[NOTES] and r[NOTES] ~= '0'
if limited and tonumber(r[NOTES]) <= now then call('DEL', notes) end
local replaced = {}
for i = 4, #ARGV, 2 do
  local old, value = call('HGET', notes, ARGV[i]), optional(ARGV[i + 1])
  if old then
    replaced[#replaced + 1] = ARGV[i]
    replaced[#replaced + 1] = old
  end
  if value then call('HSET', notes, ARGV[i], value) elseif old then call('HDEL', notes, ARGV[i]) end
end
if call('EXISTS', notes) == 0 then
  if r[NOTES] then call('HDEL', job, 'g') end
  if limited then drop(P .. 'ends', id) end
else
  call('HSET', job, 'g', ttl and int(now + ttl) or '0')
  if ttl then add(P .. 'ends', now + ttl, id) elseif limited then drop(P .. 'ends', id) end
end
flush()
return replaced
