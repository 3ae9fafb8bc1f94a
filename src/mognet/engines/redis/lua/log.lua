-- Add lines to the logs of jobs. Answers for each whether the token holds the job.
-- ARGV: how many lines stay, and for each job: id, token, how many are new, how many of these may stay, and those.
local keep, held, at = tonumber(ARGV[1]), {}, 2

local function add_lines(id, new, first, last)
  local lines = key('log', id)
  call('HINCRBY', key('job', id), 'G', new)
  for i = first, last, 1000 do call('RPUSH', lines, unpack(ARGV, i, math.min(i + 999, last))) end
  if keep > 0 then call('LTRIM', lines, -keep, -1) else call('DEL', lines) end
end

while at <= #ARGV do
  local id, new, last = ARGV[at], tonumber(ARGV[at + 2]), at + 3 + tonumber(ARGV[at + 3])
  local holds = call('HGET', key('job', id), 'k') == ARGV[at + 1]
  if holds and new > 0 then add_lines(id, new, at + 4, last) end
  held[#held + 1] = holds and 1 or 0
  at = last + 1
end
return held
