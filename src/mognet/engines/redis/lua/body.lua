-- The call of a job that did not succeed. ARGV: id.
local r = look(ARGV[1])
if not r or r[STATE] == SUCCESS then return false end
return content(ARGV[1], r)
