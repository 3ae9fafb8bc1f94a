-- Let leases end so many microseconds from now. Answers for each whether the token holds its job.
-- ARGV: lease, and for each: id, token.
local held = {}
for i = 2, #ARGV, 2 do
  local holds = call('HGET', key('job', ARGV[i]), 'k') == ARGV[i + 1]
  if holds then add(P .. 'leases', now + tonumber(ARGV[1]), ARGV[i]) end
  held[#held + 1] = holds and 1 or 0
end
flush()
return held
