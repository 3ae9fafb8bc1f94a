-- What a final job left. ARGV: id.
local r = call('HMGET', key('job', ARGV[1]), unpack(FIELDS))
if gone(r) or r[STATE] < SUCCESS or (r[VALUE_ENDS] and tonumber(r[VALUE_ENDS]) <= now) then return false end
return call('GET', value_key(ARGV[1], r[STATE]))
