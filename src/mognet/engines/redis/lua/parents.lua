-- Whether these jobs have children. ARGV: ids.
local have = {}
for i, id in ipairs(ARGV) do have[i] = call('EXISTS', key('children', id)) end
return have
