-- Take back claims that nobody received: they never happened.
-- ARGV: for each job: id, token, state before, node before, whether it had been started before.
for i = 1, #ARGV, 5 do
  local id, token, state, node, began = ARGV[i], ARGV[i + 1], ARGV[i + 2], optional(ARGV[i + 3]), ARGV[i + 4] == '1'
  local r = fetch(id)
  if r and r[TOKEN] == token then
    local job = key('job', id)
    move(r, state, '1')
    call('HSET', job, 's', state, 'i', '1')
    if tonumber(r[STARTS]) > 1 then call('HINCRBY', job, 'a', -1) else call('HDEL', job, 'a') end
    if node then call('HSET', job, 'w', node) else call('HDEL', job, 'w') end
    if not began then call('HDEL', job, 'b') end
    call('HDEL', job, 'k')
    drop(P .. 'leases', id)
    -- Somebody may have been told of the claim.
    changed(id)
    line_up(id, r)
  end
end
flush()
return 1
