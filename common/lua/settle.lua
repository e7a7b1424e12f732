-- Write what a look at the cluster has shown, unless the slot has changed since the look was asked for.
-- KEYS: slot.  ARGV: version, ms before the look (0: not looked, only given up), run id ('' for none).
-- Answers 1 if written.
if tonumber(redis.call('HGET', KEYS[1], 'version') or 0) ~= tonumber(ARGV[1]) then
  return 0
end
redis.call('HSET', KEYS[1], 'version', ARGV[1] + 1, 'run', ARGV[3], 'seen', ARGV[2], 'look', 0)
return 1
