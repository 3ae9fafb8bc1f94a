-- What the transitions share; put before each of them. KEYS[1] is the prefix of the app's keys: all of them are in one hash slot.
local P, call = KEYS[1], redis.call
local clock = call('TIME')
local now = clock[1] * 1000000 + clock[2]

-- The fields of a job's hash (keys.py says what they are), and their places in a row.
local FIELDS = {'n', 'q', 's', 'p', 'c', 'd', 'b', 'f', 'a', 'o', 't', 'u', 'r', 'w', 'l', 'y', 'x', 'h', 'm', 'k', 'e', 'i', 'v', 'g', 'z', 'j', 'G'}
local NAME, QUEUE, STATE, PRIORITY, CREATED, DUE, BEGAN, FINISHED, STARTS, STOPS, ATTEMPT = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
local PARENT, ROOT, NODE, LABEL, TTL, EXPIRES, OFFSET, META, TOKEN, ARRIVAL, LINED, VALUE_ENDS, NOTES = 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24
local LATEST, LATE_TTL, LOGGED = 25, 26, 27
-- Readers need fields up to META; in a row that is answered, the progress stands behind them.
local RECORD, PROGRESS = 19, 20
local PENDING, RUNNING, SUSPENDED, SUCCESS, REVOKED = '0', '1', '2', '3', '5'
-- What META says of metadata that was changed: there is something in meta:ID, and labels are among it.
local DESCRIBED, LABELLED = '1', '2'
-- A script was called with the paths of an older declaration: nothing was done.
local STALE = 'stale'
local CARRIED = '2'
local SMALL_VALUE = 4096

local function key(kind, name) return P .. kind .. ':' .. name end

-- Lua writes large numbers with an exponent unless told.
local function int(n) return string.format('%.0f', n) end

local function optional(text) return text ~= '-' and text:sub(2) or false end
