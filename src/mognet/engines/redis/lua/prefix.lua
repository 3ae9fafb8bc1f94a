-- The ids that begin with these digits, in their order. ARGV: digits, most ids, the id to go on after ('').
local from = ARGV[3] == '' and '[' .. ARGV[1] or '(' .. ARGV[3]
return call('ZRANGEBYLEX', P .. 'ids', from, '[' .. ARGV[1] .. 'g', 'LIMIT', 0, ARGV[2])
