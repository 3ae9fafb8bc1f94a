-- Those of these jobs that match. Answers {how many were looked at, ids and rows}; or 'stale'. ARGV: version of the indexed paths ('-' they play no part), the query, ids.
local version = argument()
if version ~= '-' and is_stale(version) then return STALE end
local matches, rows, looked = conditions(), {}, 0
for i = at + 1, #ARGV do
  if scanned > MUCH then break end
  looked = looked + 1
  local r = look(ARGV[i])
  if r and matches(ARGV[i], r) then
    rows[#rows + 1] = ARGV[i]
    rows[#rows + 1] = whole(ARGV[i], r)
  end
end
return {looked, rows}
