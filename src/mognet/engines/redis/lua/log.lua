-- Add lines to a job's log. Answers whether the token holds the job.
-- ARGV: id, token, how many lines stay, how many are new, and those of the new ones that may stay.
local id, keep, new = ARGV[1], tonumber(ARGV[3]), tonumber(ARGV[4])
local lines = key('log', id)
if call('HGET', key('job', id), 'k') ~= ARGV[2] then return 0 end
if new > 0 then
  call('HINCRBY', key('job', id), 'G', new)
  for i = 5, #ARGV, 1000 do call('RPUSH', lines, unpack(ARGV, i, math.min(i + 999, #ARGV))) end
  if keep > 0 then call('LTRIM', lines, -keep, -1) else call('DEL', lines) end
end
return 1
