-- Which paths in the metadata are indexed. Answers the version of the declaration, and for each path: it, and its number, with a '?' behind it until its index is whole.
-- ARGV: a new version, for if something changes; whether other paths are given up; the paths.
local app, paths = P .. 'app', P .. 'paths'
local empty = call('EXISTS', P .. 'ids') == 0
local known, wanted, different, walk = {}, {}, false, false
local found = call('HGETALL', paths)
for i = 1, #found, 2 do known[found[i]] = found[i + 1] end

for i = 3, #ARGV do
  wanted[ARGV[i]] = true
  if not known[ARGV[i]] then
    -- A number is never given again: what an older declaration left is no label of another path.
    known[ARGV[i]] = call('HINCRBY', app, 'numbers', 1) .. '?'
    different = true
    walk = true
  end
end
for path, number in pairs(known) do
  if ARGV[2] == '1' and not wanted[path] then
    call('HDEL', paths, path)
    call('UNLINK', key('has', number:match('%d+')))
    known[path] = nil
    different = true
    walk = true
  elseif empty and number:sub(-1) == '?' then
    known[path] = number:sub(1, -2)
    different = true
  end
end
if different then
  for path, number in pairs(known) do call('HSET', paths, path, number) end
  call('HSET', app, 'paths', ARGV[1])
end
if empty then call('HDEL', app, 'walk') elseif walk then call('HSET', app, 'walk', '0:') end

local answer = {call('HGET', app, 'paths') or ''}
for path, number in pairs(known) do
  answer[#answer + 1] = path
  answer[#answer + 1] = number
end
return answer
