-- What a final job left. ARGV: id.
local r = call('HMGET', key('job', ARGV[1]), unpack(FIELDS))
if gone(r) or r[STATE] < SUCCESS or (r[VALUE_ENDS] and tonumber(r[VALUE_ENDS]) <= now) then return false end
if r[STATE] == SUCCESS then return content(ARGV[1], r) end
return call('GET', key('value', ARGV[1]))
