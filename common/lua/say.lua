-- Say how many follow a run in one process, and forget the processes that have not said so lately.
-- KEYS: hash of processes.  ARGV: process, what it says ('' : nobody follows there any more), seconds it holds.
-- Each field is `<ms when it was said> <what>`. Redis' own clock is the only one.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
if ARGV[2] == '' then
  redis.call('HDEL', KEYS[1], ARGV[1])
else
  redis.call('HSET', KEYS[1], ARGV[1], string.format('%.0f ', now) .. ARGV[2])
  redis.call('EXPIRE', KEYS[1], ARGV[3])
end
local said = redis.call('HGETALL', KEYS[1])
for i = 1, #said, 2 do
  if math.abs(now - tonumber(string.match(said[i + 1], '^%d+') or 0)) > ARGV[3] * 1000 then
    redis.call('HDEL', KEYS[1], said[i])
  end
end
