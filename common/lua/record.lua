-- Write a run's record and keep the history's indexes, unless an earlier record forbids it.
-- KEYS: run record, history index.
-- ARGV: info, state, ms before the look, index member, ttl s, most runs, member before which all is old,
--       states the record may have had before (each in '|'), every state (each in '|'), prefix of run keys, 1 if an end.
-- An end is for ever, whenever it was seen; of other states the later look is right.
-- Indexes are sorted sets of equal scores: members start with the time of creation, so their order is time's.
-- Answers 1 if written.
local function forget(member)
  redis.call('ZREM', KEYS[2], member)
  for state in string.gmatch(ARGV[9], '[^|]+') do
    redis.call('ZREM', KEYS[2] .. ':' .. state, member)
  end
end
local old = redis.call('HMGET', KEYS[1], 'state', 'stamp', 'member')
if old[1] then
  local late = ARGV[11] ~= '1' and (tonumber(old[2]) or 0) > tonumber(ARGV[3])
  if late or not string.find(ARGV[8], '|' .. old[1] .. '|', 1, true) then
    return 0
  end
  -- The member is another where a run that was never launched was accepted anew under its id.
  redis.call('ZREM', KEYS[2], old[3] or '')
  redis.call('ZREM', KEYS[2] .. ':' .. old[1], old[3] or '')
else
  -- A record that has expired does not tell any more which index its run is still in.
  forget(ARGV[4])
end
redis.call('HSET', KEYS[1], 'info', ARGV[1], 'state', ARGV[2], 'stamp', ARGV[3], 'member', ARGV[4])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('ZADD', KEYS[2], 0, ARGV[4])
redis.call('ZADD', KEYS[2] .. ':' .. ARGV[2], 0, ARGV[4])

local function record_of(member)
  return ARGV[10] .. (string.match(member, ':(.*)') or '')
end

local excess = redis.call('ZCARD', KEYS[2]) - ARGV[6]
if excess > 0 then
  for _, member in ipairs(redis.call('ZRANGE', KEYS[2], 0, excess - 1)) do
    forget(member)
    redis.call('DEL', record_of(member))
  end
end
-- What is old is forgotten once its record has expired: a run that still goes on has its record renewed.
for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], '-', '(' .. ARGV[7], 'LIMIT', 0, 100)) do
  if redis.call('EXISTS', record_of(member)) == 0 then
    forget(member)
  end
end
return 1
