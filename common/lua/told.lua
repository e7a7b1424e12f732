-- What is told of a run beside its log: how far its tasks are, what was relayed, who follows.
-- KEYS: stream of progress, stream of relay reports, hash of processes (say.lua).
-- ARGV: seconds for which a process' word holds, bytes of the longest relay report.
-- Answers {progress, relay report, {what each process says}}; '' for what is not there. Recorders write the streams,
-- so anything may be there; a time that lies ahead is of another server's clock (a fail-over), and means nothing.
local function newest(key)
  local found = redis.pcall('XREVRANGE', key, '+', '-', 'COUNT', 1)
  return found.err == nil and found[1] ~= nil and found[1][2][2] or ''
end
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local relay = newest(KEYS[2])
if #relay > tonumber(ARGV[2]) then
  relay = ''
end
local processes, said = {}, redis.call('HGETALL', KEYS[3])
for i = 2, #said, 2 do
  local at, what = string.match(said[i], '^(%d+) (.*)$')
  if at and math.abs(now - tonumber(at)) <= ARGV[1] * 1000 then
    processes[#processes + 1] = what
  end
end
return {newest(KEYS[1]), relay, processes}
