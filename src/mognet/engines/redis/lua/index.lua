-- Take labels of jobs into the index, unless their metadata has changed since they were read: then that change did it. Says how far the walk has come.
-- Answers about how many jobs are left; or 'stale'.
-- ARGV: version of the indexed paths, a new version if the walk is over (''), score and id of the last job, and for each label, those of a job one
-- after the other: id, number of the path, JSON text of the key, its value, label.
if is_stale(ARGV[1]) then return STALE end
local app, paths = P .. 'app', P .. 'paths'
local id, r, labels
-- What a job has stands before its call, which has to be written again: once, whatever there is to be added.
local function write()
  if labels then set_labels(id, r, labels) end
  labels = nil
end
-- The values that the job has now, of the keys that its labels, from the i-th argument on, are about.
local function values_now(i)
  local names = {}
  while ARGV[i] == id do
    names[#names + 1] = ARGV[i + 2]
    i = i + 5
  end
  return values_of(id, r, names)
end
local now_there
for i = 5, #ARGV, 5 do
  local number, label = ARGV[i + 1], ARGV[i + 4]
  if ARGV[i] ~= id then
    write()
    id = ARGV[i]
    r = look(id)
    now_there = r and values_now(i)
  end
  if r and now_there[ARGV[i + 2]] == ARGV[i + 3] then
    if head(id, r) then
      labels = labels or labels_of(id, r)
      labels[number] = label
    else
      call('HSET', key('meta', id), number, label)
      if r[META] ~= LABELLED then call('HSET', key('job', id), 'm', LABELLED) end
      r[META] = LABELLED
    end
    add(key('has', number), 0, entry(label, r, id))
  end
end
write()
flush()
if ARGV[2] == '' then
  call('HSET', app, 'walk', ARGV[3] .. ':' .. ARGV[4])
  return math.max(1, call('ZCOUNT', P .. 'open', '(' .. ARGV[3], '+inf') + call('ZCOUNT', P .. 'done', '(' .. ARGV[3], '+inf'))
end
local found = call('HGETALL', paths)
for i = 1, #found, 2 do call('HSET', paths, found[i], found[i + 1]:match('%d+')) end
call('HDEL', app, 'walk')
call('HSET', app, 'paths', ARGV[2])
return 0
