-- The lines of a job's log behind one of them; answers how many it has logged in all, and the last ones. ARGV: id, number of that line.
local r = call('HMGET', key('job', ARGV[1]), unpack(FIELDS))
local behind = tonumber(r[LOGGED] or 0) - tonumber(ARGV[2])
if gone(r) or behind <= 0 then return {0, {}} end
return {r[LOGGED], call('LRANGE', key('log', ARGV[1]), -behind, -1)}
