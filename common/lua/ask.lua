-- What is known of the slot, and who is to find out more.
-- KEYS: slot.  ARGV: run id that wants the slot ('' for a reader), freshness ms, look ms, prefix of run keys.
-- Answers {verdict, version, now ms, run id, info}:
--   fresh  verified within the freshness bound: run id ('' for none) and its record
--   look   nobody knows: the caller is to look at the cluster; others wait for it until the look bound
--   wait   somebody is looking or launching
-- Redis' own clock is the only one. A time that lies ahead of it is of another server's clock (a fail-over) and
-- means nothing. A version is at least the microsecond it was made in: one from before a flush or a fail-over to a
-- stale replica never comes back, so whoever still holds it cannot settle with it.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local slot = redis.call('HMGET', KEYS[1], 'version', 'run', 'seen', 'look')
local moment = time[1] * 1000000 + time[2]
local function whole(text)  -- what is no whole number, that is told as exactly as it is kept, nobody here has written
  return #text < 17 and string.match(text, '^%d+$') and tonumber(text) or nil
end
local version, run = whole(slot[1] or '') or moment, slot[2] or ''
local seen, look = whole(slot[3] or '') or 0, whole(slot[4] or '') or 0
local wants, fresh = ARGV[1], tonumber(ARGV[2])
local looking = look > now and look <= now + ARGV[3]

if run == '' and wants ~= '' and not looking then
  version = math.max(version + 1, moment)
  redis.call('HSET', KEYS[1], 'version', version, 'run', wants, 'seen', 0, 'look', now + ARGV[3])
  return {'look', version, now, '', ''}
end
if seen > 0 and seen <= now and now - seen < fresh and (wants == '' or run ~= '') then
  if run == '' then
    return {'fresh', version, now, '', ''}
  end
  local info = redis.call('HGET', ARGV[4] .. run, 'info')
  if info then
    return {'fresh', version, now, run, info}
  end
end
if looking then
  return {'wait', version, now, run, ''}
end
redis.call('HSET', KEYS[1], 'version', version, 'look', now + ARGV[3])
return {'look', version, now, run, ''}
