-- What those scripts share that look into metadata; put behind rows.lua for these.

-- The place behind a JSON text that begins at this one.
local function behind(text, at)
  local depth = 0
  repeat
    local first = text:sub(at, at)
    if first == '"' then
      repeat
        at = text:find('["\\]', at + 1)
        local escapes = text:byte(at) ~= QUOTE
        if escapes then at = at + 1 end
      until not escapes
      at = at + 1
    elseif first == '{' or first == '[' then
      depth, at = depth + 1, at + 1
    elseif first == '}' or first == ']' then
      depth, at = depth - 1, at + 1
    else
      at = text:find('[]},]', at)
    end
    -- Inside of objects and lists only strings and brackets matter.
    if depth > 0 then at = text:find('["%[%]{}]', at) end
  until depth == 0
  return at
end

-- Bytes of JSON that have been looked through so far, and how many one call looks through, a tenth of a second or so: then others get their turn.
local scanned = 0
local MUCH = 1000000

-- JSON texts of keys and values, for the function that is called with each pair until it answers something; that is answered.
local function each_pair(r, act)
  scanned = scanned + r.text
  local text, at = r.head:sub(1, r.text), 2
  while at < r.text do
    local colon = behind(text, at)
    local comma = behind(text, colon + 1)
    local answer = act(text:sub(at, colon - 1), text:sub(colon + 1, comma - 1))
    if answer then return answer end
    at = comma + 1
  end
end

-- All fields with their values, as they are (or would be) in meta:ID.
local function fields_of(id, r)
  if not r[META] then return {} end
  if not head(id, r) then return call('HGETALL', key('meta', id)) end
  local found = {}
  local function put(name, value) found[#found + 1], found[#found + 2] = name, value end
  each_pair(r, put)
  for number, label in pairs(labels_of(id, r)) do put(number, label) end
  return found
end

-- One of these fields.
local function field_of(id, r, name)
  if not r[META] then return false end
  if not head(id, r) then return call('HGET', key('meta', id), name) end
  if name:byte() ~= QUOTE then return labels_of(id, r)[name] end
  -- Most that are looked at have another value: to look for the name is quick.
  return r.head:find(name, 2, true) and each_pair(r, function(each, value) return each == name and value end)
end

-- The values of some keys, by key: the metadata is looked through once for all of them.
local function values_of(id, r, names)
  local found, wanted, left = {}, {}, 0
  if not r[META] then return found end
  if not head(id, r) then
    for i, value in ipairs(call('HMGET', key('meta', id), unpack(names))) do found[names[i]] = value or nil end
    return found
  end
  for _, name in ipairs(names) do
    if not wanted[name] and r.head:find(name, 2, true) then wanted[name], left = true, left + 1 end
  end
  if left > 0 then
    each_pair(r, function(name, value)
      if wanted[name] then found[name], left = value, left - 1 end
      return left == 0
    end)
  end
  return found
end

-- Metadata that stands before the call goes into meta:ID, where it can be changed.
local function take_apart(id, r)
  if not head(id, r) then return end
  local text, labels = content(id, r), next(labels_of(id, r))
  in_chunks('HSET', key('meta', id), fields_of(id, r))
  r[META], r.head = labels and LABELLED or DESCRIBED, nil
  call('HSET', key('job', id), 'm', r[META])
  set_content(id, r, text)
end

-- Write the labels of metadata that stands before the call.
local function set_labels(id, r, labels)
  local text, items = content(id, r), {}
  for number, label in pairs(labels) do items[#items + 1] = number .. ',' .. #label .. ':' .. label end
  local found = table.concat(items)
  r.head, r[META] = r.head:sub(1, r.text) .. found, r.text .. ':' .. #found
  call('HSET', key('job', id), 'm', r[META])
  set_content(id, r, text)
end
