-- Append lines to a log stream if its top is the one the writer expects, and let go of the oldest beyond its bounds.
-- Each entry names the one before it (p): who reads sees that none is missing, though the stream may be trimmed. And it
-- says how many bytes stood before it (b): what the stream holds is the difference of two, and never counted.
-- KEYS: stream.  ARGV: expected top, ttl s, most entries, most bytes, id of the log's end or '', then for each line:
-- id, text, stream, its own time or ''.
-- Answers {1, new top}, or {0, real top} when somebody else was there, or the stream is not what it was.
local ENTRY = 64  -- about what an entry takes besides the text, which is its first value

local function look()
  local found = {}
  local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
  for i = 1, info.err and 0 or #info, 2 do
    found[info[i]] = info[i + 1]
  end
  return found
end

-- Where an entry begins and ends, in bytes of the log; from 0 where it does not say so, as no writer leaves it.
local function extent(entry)
  if not entry then
    return 0, 0
  end
  local fields = entry[2]
  local begin = fields[3] == 'b' and tonumber(fields[4]) or 0
  return begin, begin + ENTRY + #(fields[6] or '')
end

local stream = look()
local top = stream['last-generated-id'] or '0-0'
if top ~= ARGV[1] then
  return {0, top}
end
local length = stream['length'] or 0
local first, second = extent(stream['first-entry'])
local _, bytes = extent(stream['last-entry'])
local function add(id, ...)
  redis.call('XADD', KEYS[1], id, 'p', top, 'b', bytes, ...)
  top = id
  length = length + 1
  bytes = bytes + ENTRY + #select(2, ...)
end
for at = 6, #ARGV, 4 do
  local own = ARGV[at + 3]
  if own == '' then
    add(ARGV[at], 't', ARGV[at + 1], 's', ARGV[at + 2])
  else
    add(ARGV[at], 't', ARGV[at + 1], 's', ARGV[at + 2], 'n', own)
  end
end
if ARGV[5] ~= '' then
  add(ARGV[5], 'end', '1')
end
redis.call('EXPIRE', KEYS[1], ARGV[2])

local most, most_bytes = tonumber(ARGV[3]), tonumber(ARGV[4])
while length > 2 do  -- the newest line and the log's end stay in any case
  -- As many go as there would be too many if all were as long as the first, or as they are on average: rather too few.
  local held = bytes - first
  local over = math.max(length - most, math.ceil((held - most_bytes) / math.max(held / length, second - first)))
  if over <= 0 then
    break
  end
  redis.call('XTRIM', KEYS[1], 'MAXLEN', '=', math.max(length - over, 2))
  stream = look()
  length = stream['length']
  first, second = extent(stream['first-entry'])
end
return {1, top}
