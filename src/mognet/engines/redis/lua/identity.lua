-- A text that was made for these records when somebody first asked. ARGV: one to be used if there is none.
call('HSETNX', P .. 'app', 'identity', ARGV[1])
return call('HGET', P .. 'app', 'identity')
