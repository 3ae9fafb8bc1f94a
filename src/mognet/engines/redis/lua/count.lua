-- How many jobs of each state, in line or not, queue and name there are, once what has expired is gone; nil: more has expired than one call deletes.
local _, looked = expire(500)
flush()
if looked == 500 then return false end
return call('HGETALL', P .. 'counts')
