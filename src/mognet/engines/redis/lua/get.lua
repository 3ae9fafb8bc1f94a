-- The rows of these ids; nil: there is none, or it has expired. ARGV: ids.
local rows = {}
for i, id in ipairs(ARGV) do
  local r = look(id)
  rows[i] = r and whole(id, r) or false
end
return rows
