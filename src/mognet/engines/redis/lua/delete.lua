-- Delete jobs with all that belongs to them. Answers how many could be seen. ARGV: the states of those that are deleted, ids.
local states, deleted, seen = ARGV[1], 0, {}
for i = 2, #ARGV do
  local id = ARGV[i]
  local r = not seen[id] and fetch(id)
  seen[id] = true
  if r and states:find(r[STATE], 1, true) then
    remove(id, r)
    deleted = deleted + 1
  end
end
flush()
return deleted
