-- Those of these jobs that match. Answers ids and rows; or 'stale'. ARGV: version of the indexed paths ('-' they play no part), the query, ids.
local version = argument()
if version ~= '-' and is_stale(version) then return STALE end
local matches, rows = conditions(), {}
for i = at + 1, #ARGV do
  local r = look(ARGV[i])
  if r and matches(ARGV[i], r) then
    rows[#rows + 1] = ARGV[i]
    rows[#rows + 1] = whole(ARGV[i], r)
  end
end
return rows
