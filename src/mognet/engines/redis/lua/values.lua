-- How many jobs have which label, once what has expired is gone. Answers {more?, number of all jobs, labels and their numbers}; nil: more has expired than one call
-- deletes; or 'stale'. ARGV: version of the indexed paths, number of the path, label to go on after ('').
local MOST = 500
if is_stale(ARGV[1]) then return STALE end
local _, looked = expire(MOST)
flush()
if looked == MOST then return false end
local index, label, labels = key('has', ARGV[2]), ARGV[3], {}
for _ = 1, MOST do
  local head = call('ZRANGEBYLEX', index, label == '' and '-' or '(' .. label .. '\1', '+', 'LIMIT', 0, 1)
  if not head[1] then return {0, call('ZCARD', P .. 'ids'), labels} end
  label = head[1]:match('^[^%z]*')
  labels[#labels + 1] = label
  labels[#labels + 1] = call('ZLEXCOUNT', index, '[' .. label .. '\0', '(' .. label .. '\1')
end
return {1, call('ZCARD', P .. 'ids'), labels}
