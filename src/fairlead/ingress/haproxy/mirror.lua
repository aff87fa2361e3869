-- Repeats requests to other backends; their answers interest nobody (HTTPRoute's filter RequestMirror).
--
-- A filter of the backend that answers: it sees the request as that backend gets it, keeps what passes, holds nothing
-- back, and sends the copy when the request is complete. Where to is in txn.mirror1 to as many as txn.mirrors says, which
-- the backend's rules set. Copies go by the frontend fairlead-mirror, which knows backends by their names. Invariant:
-- whatever goes wrong here goes wrong for the copy alone.

local SOCKET = os.getenv("FAIRLEAD_MIRROR") -- a `lua-load` of HAProxy 2.6 hands no arguments over
local TIMEOUT = 30000 -- ms until a copy is given up
local MOST_COPIES = 128 -- under way; beyond that requests are not repeated
local LARGEST = 1024 * 1024 -- bytes of a body; a larger one is not repeated
local MOST_BYTES = 32 * LARGEST -- kept in all

local copies, bytes = 0, 0

local function guarded(work)
  return function(...)
    local fine, why = pcall(work, ...)
    if not fine then
      core.Warning("a request was not repeated: " .. tostring(why))
    end
  end
end

local function send(copy, to)
  copies = copies + 1
  core.register_task(function()
    local headers = {}
    for name, values in pairs(copy.headers) do
      headers[name] = values
    end
    headers["x-fairlead-mirror"], headers["x-fairlead-method"] = { to }, { copy.method } -- whatever the client says
    guarded(function()
      local client = core.httpclient()
      local body = #copy.body > 0 and copy.body or nil
      local ask = body and client.post or client.get
      ask(client, { url = "http://mirror" .. copy.uri, dst = SOCKET, headers = headers, body = body, timeout = TIMEOUT })
    end)()
    copies = copies - 1
  end)
end

local Mirror = { id = "fairlead-mirror", flags = filter.FLT_CFG_FL_HTX }
Mirror.__index = Mirror

function Mirror:new()
  return setmetatable({ size = 0 }, Mirror)
end

function Mirror:forget()
  bytes = bytes - self.size
  self.size, self.parts = 0, nil
end

Mirror.start_analyze = guarded(function(self, txn, channel)
  if not channel:is_resp() then
    filter.register_data_filter(self, channel)
  end
end)

Mirror.http_headers = guarded(function(self, txn, message)
  if message.channel:is_resp() then
    return
  end
  self.to = {}
  for number = 1, txn:get_var("txn.mirrors") or 0 do
    self.to[#self.to + 1] = txn:get_var("txn.mirror" .. number)
  end
  local line, headers = message:get_stline(), {}
  for name, values in pairs(message:get_headers()) do
    headers[name] = {}
    for index = 0, #values do
      headers[name][index + 1] = values[index]
    end
  end
  if #self.to == 0 or headers["upgrade"] or line.method == "CONNECT" or copies >= MOST_COPIES then
    return
  end
  headers["content-length"], headers["transfer-encoding"], headers["expect"] = nil, nil, nil
  self.method, self.headers, self.parts = line.method, headers, {}
  self.uri = line.uri:gsub("^%a[%w+.-]*://[^/?]*", "")
end)

Mirror.http_payload = guarded(function(self, txn, message)
  if message.channel:is_resp() or not self.parts then
    return
  end
  local data = message:body()
  if not data then
    return
  end
  self.parts[#self.parts + 1] = data
  self.size, bytes = self.size + #data, bytes + #data
  if self.size > LARGEST or bytes > MOST_BYTES then
    self:forget()
  end
end)

Mirror.http_end = guarded(function(self, txn, message)
  if message.channel:is_resp() or not self.parts then
    return
  end
  local copy = { method = self.method, uri = self.uri, headers = self.headers, body = table.concat(self.parts) }
  if #copy.body > 0 then
    copy.headers["content-length"] = { tostring(#copy.body) }
  end
  for _, to in ipairs(self.to) do
    send(copy, to)
  end
  self:forget()
end)

Mirror.end_analyze = guarded(function(self, txn, channel)
  if not channel:is_resp() then
    self:forget() -- what never became complete
  end
end)

core.register_filter("fairlead-mirror", Mirror, function(made, arguments)
  return made
end)
