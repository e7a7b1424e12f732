-- Append lines to a log stream if its top is the one the writer expects.
-- KEYS: stream.  ARGV: expected top, ttl s, then for each entry: id, number of fields and values, those.
-- Answers {1, new top}, or {0, real top} when somebody else was there, or the stream is not what it was.
local top = '0-0'
local info = redis.pcall('XINFO', 'STREAM', KEYS[1])
if not info.err then
  for i = 1, #info, 2 do
    if info[i] == 'last-generated-id' then
      top = info[i + 1]
    end
  end
end
if top ~= ARGV[1] then
  return {0, top}
end
local at = 3
while at <= #ARGV do
  local count = tonumber(ARGV[at + 1])
  redis.call('XADD', KEYS[1], ARGV[at], unpack(ARGV, at + 2, at + 1 + count))
  top = ARGV[at]
  at = at + 2 + count
end
redis.call('EXPIRE', KEYS[1], ARGV[2])
return {1, top}
