-- Write what a look at the cluster has shown, unless the slot has changed since the look was asked for.
-- KEYS: slot.  ARGV: version, ms before the look (0: not looked, only given up), run id ('' for none).
-- Answers 1 if written.
if tonumber(redis.call('HGET', KEYS[1], 'version') or 0) ~= tonumber(ARGV[1]) then
  return 0
end
local time = redis.call('TIME')
local version = math.max(ARGV[1] + 1, time[1] * 1000000 + time[2])
redis.call('HSET', KEYS[1], 'version', version, 'run', ARGV[3], 'seen', ARGV[2], 'look', 0)
return 1
