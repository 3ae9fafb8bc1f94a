-- Delete jobs with all that belongs to them. Answers how many could be seen. ARGV: ids.
local deleted, seen = 0, {}
for _, id in ipairs(ARGV) do
  local r = not seen[id] and fetch(id)
  seen[id] = true
  if r then
    remove(id, r)
    deleted = deleted + 1
  end
end
flush()
return deleted
