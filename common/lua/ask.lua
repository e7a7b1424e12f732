-- What is known of the slot, and who is to find out more.
-- KEYS: slot.  ARGV: run id that wants the slot ('' for a reader), freshness ms, look ms, prefix of run keys.
-- Answers {verdict, version, now ms, run id, info}:
--   fresh  verified within the freshness bound: run id ('' for none) and its record
--   look   nobody knows: the caller is to look at the cluster; others wait for it until the look bound
--   wait   somebody is looking or launching
-- Redis' own clock is the only one: nothing compares the clocks of two machines.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = redis.call('HMGET', KEYS[1], 'version', 'run', 'seen', 'look')
local version, run = tonumber(slot[1] or 0), slot[2] or ''
local seen, look = tonumber(slot[3] or 0), tonumber(slot[4] or 0)
local wants, fresh = ARGV[1], tonumber(ARGV[2])

if run == '' and wants ~= '' and look <= now then
  version = version + 1
  redis.call('HSET', KEYS[1], 'version', version, 'run', wants, 'seen', 0, 'look', now + ARGV[3])
  return {'look', version, now, '', ''}
end
if seen > 0 and now - seen < fresh and (wants == '' or run ~= '') then
  if run == '' then
    return {'fresh', version, now, '', ''}
  end
  local info = redis.call('HGET', ARGV[4] .. run, 'info')
  if info then
    return {'fresh', version, now, run, info}
  end
end
if look > now then
  return {'wait', version, now, run, ''}
end
redis.call('HSET', KEYS[1], 'look', now + ARGV[3])
return {'look', version, now, run, ''}
