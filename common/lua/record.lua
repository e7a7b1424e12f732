-- Write a run's record and keep the history's indexes, unless an earlier record forbids it.
-- KEYS: run record, history index.
-- ARGV: info, state, ms before the look, index member, ttl s, most runs, member before which all is too old,
--       states the record may have had before (each in '|'), every state (each in '|').
-- Indexes are sorted sets of equal scores: members start with the time of creation, so their order is time's.
-- Answers 1 if written.
local old = redis.call('HMGET', KEYS[1], 'state', 'stamp')
if old[1] then
  if not string.find(ARGV[8], '|' .. old[1] .. '|', 1, true) then
    return 0
  end
  if tonumber(old[2]) > tonumber(ARGV[3]) and old[1] ~= ARGV[2] then
    return 0
  end
  if old[1] ~= ARGV[2] then
    redis.call('ZREM', KEYS[2] .. ':' .. old[1], ARGV[4])
  end
end
redis.call('HSET', KEYS[1], 'info', ARGV[1], 'state', ARGV[2], 'stamp', ARGV[3])
redis.call('EXPIRE', KEYS[1], ARGV[5])
redis.call('ZADD', KEYS[2], 0, ARGV[4])
redis.call('ZADD', KEYS[2] .. ':' .. ARGV[2], 0, ARGV[4])

local trimmed = redis.call('ZREMRANGEBYLEX', KEYS[2], '-', '(' .. ARGV[7])
trimmed = trimmed + redis.call('ZREMRANGEBYRANK', KEYS[2], 0, -(ARGV[6] + 1))
if trimmed > 0 then
  local oldest = redis.call('ZRANGE', KEYS[2], 0, 0)[1]
  local upto = oldest and '(' .. oldest or '+'
  for state in string.gmatch(ARGV[9], '[^|]+') do
    redis.call('ZREMRANGEBYLEX', KEYS[2] .. ':' .. state, '-', upto)
  end
end
return 1
