-- Somebody waits no longer; a ring that came too late for it goes to the next.
-- ARGV: who ('' nobody), whether to ring for the next, the queues.
for i = 3, #ARGV do
  if ARGV[1] ~= '' then call('ZREM', key('wait', ARGV[i]), ARGV[1]) end
  if ARGV[2] == '1' then wake(ARGV[i], 1) end
end
return 1
