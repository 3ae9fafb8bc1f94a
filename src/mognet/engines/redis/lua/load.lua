-- The notes of the job that a token holds. ARGV: id, token.
local r = call('HMGET', key('job', ARGV[1]), 'k', 'g')
if r[1] ~= ARGV[2] or not r[2] or (r[2] ~= '0' and tonumber(r[2]) <= now) then return {} end
return call('HGETALL', key('notes', ARGV[1]))
