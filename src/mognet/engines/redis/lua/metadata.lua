-- Metadata. As it came with a job, it stands before its call, later before its value, in body:ID: the JSON text, without spaces, and its
-- labels, each as 'number,length:label'. Behind these is nothing, or a '+' and the call or value. META says how long text and labels are: '57:20'.
-- The first change takes it apart: from then on it is in meta:ID, where a JSON text of a key begins with a quote, a label's field is the
-- number of its path, and 'p' is the progress.
local QUOTE = 34

local function born(r) return r[CREATED] + (r[OFFSET] or 0) end

-- An entry of the index has:NUMBER. A label holds no NUL, and all that have one label are together, by creation.
local function entry(label, r, id) return label .. '\0' .. string.format('%016.0f', born(r)) .. id end

-- What stands before the call; false: nothing. It is read once, and remembered in the row. all: what is in body:ID, if it is known.
local function head(id, r, all)
  if not r[META] then return false end
  if not r.head then
    local text, labels = r[META]:match('^(%d+):(%d+)$')
    if not text then return false end
    r.text = tonumber(text)
    local size = r.text + labels
    local found = all and all:sub(1, size) or call('GETRANGE', key('body', id), 0, size - 1)
    if #found < size then
      -- A server that deletes keys when its memory is full has done so. What is written there from now on has nothing before it.
      call('HDEL', key('job', id), 'm')
      r[META] = false
      return false
    end
    r.head = found
  end
  return r.head
end

-- Number of the path -> label.
local function labels_of(id, r)
  local labels = {}
  if r[META] == LABELLED then
    local found = call('HGETALL', key('meta', id))
    for i = 1, #found, 2 do if tonumber(found[i]) then labels[found[i]] = found[i + 1] end end
  elseif r[META] and r[META]:sub(-2) ~= ':0' and head(id, r) then
    local text, at = r.head, r.text + 1
    while at <= #text do
      local _, colon, number, size = text:find('^(%d+),(%d+):', at)
      labels[number] = text:sub(colon + 1, colon + size)
      at = colon + size + 1
    end
  end
  return labels
end

-- The call, later the value; false: there is none.
local function content(id, r)
  local all = call('GET', key('body', id))
  if not all or not head(id, r, all) then return all end
  return #all > #r.head and all:sub(#r.head + 2)
end

local function set_content(id, r, text)
  local before = head(id, r)
  if before then
    call('SET', key('body', id), text and before .. '+' .. text or before)
  elseif text then
    call('SET', key('body', id), text)
  else
    call('DEL', key('body', id))
  end
end

-- A row as it is answered: with the metadata as a text, then the progress, and no longer than that. The script is done with it.
local function whole(id, r)
  if r[META] == DESCRIBED or r[META] == LABELLED then
    local items, progress = {}, false
    local found = call('HGETALL', key('meta', id))
    for i = 1, #found, 2 do
      if found[i]:byte() == QUOTE then items[#items + 1] = found[i] .. ':' .. found[i + 1] end
      if found[i] == 'p' then progress = found[i + 1] end
    end
    r[META], r[PROGRESS] = '{' .. table.concat(items, ',') .. '}', progress
  elseif head(id, r) then
    r[META], r[PROGRESS] = r.head:sub(1, r.text), false
  elseif not r[META] then
    r[PROGRESS] = false
  end
  r[PROGRESS + 1] = nil
  return r
end
