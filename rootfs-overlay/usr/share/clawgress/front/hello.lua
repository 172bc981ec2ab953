-- What a TLS ClientHello and an HTTP Host header say about the name they are for. Both are written by agents.
--
-- Owns a fetch, a converter and two actions for haproxy:
--   lua.clawgress_hello  what the agent sent so far -> "ok|<name>|<key>", or the word of the reason why there is no name;
--                        and, in txn.shared, the site that this name has just led another flow to
--   lua.clawgress_host   a Host header              -> "ok|<name>|<key>", or the word of the reason
--   lua.clawgress_found  the site in txn.site was looked up for this flow's name: it may be shared
--   lua.clawgress_say    logs the line in txn.line: that a flow was let through is said before it ends
-- and a filter, lua.clawgress_watch: it says the same of its own flows, and until the site has answered with a
-- ServerHello, the agent may say no other hello than one with the same name. (A site that asks by a HelloRetryRequest
-- gets a second one, and goes by that.)
-- A key is the name with its labels in reverse order and an end mark: com.example.www$. The lists hold exact names
-- in the same form and wildcards without the mark, ending in a dot (com.example.): the longest prefix in a list is the
-- rule that counts, and no name is ever the prefix of another by accident.
--
-- Never guesses: whatever is not exactly as it must be is a reason. Never keeps anything from one flow to the next but
-- where a judged name led to, for an instant; never copies the hello, never makes more strings than there are labels in
-- one name. Lua 5.3 and 5.4.

local byte, find, gmatch, sub, lower = string.byte, string.find, string.gmatch, string.sub, string.lower
local concat = table.concat
local type, error, pcall, setmetatable = type, error, pcall, setmetatable
local min = math.min

-- Nothing below may reach the machine, whatever it would be talked into.
for _, global in ipairs({ "os", "io", "debug", "package", "require", "load", "loadfile", "dofile", "loadstring" }) do
	_G[global] = nil
end

local LONGEST_NAME = 253
local LONGEST_LABEL = 63
local MOST_EXTENSIONS = 64

local NOT_TLS, MALFORMED, NO_SNI, ECH = "not-tls", "malformed-hello", "no-sni", "ech"
local SNI_MISMATCH = "sni-mismatch"

-- Records.
local CHANGE_CIPHER_SPEC, ALERT, HANDSHAKE, APPLICATION_DATA = 20, 21, 22, 23
-- haproxy's buffer less what it keeps free of it: no hello can be longer and be seen whole.
local LONGEST_HELLO = 15360
-- The record's head and the ServerHello up to the end of its random.
local UP_TO_RANDOM = 43
-- The random of a ServerHello that is a HelloRetryRequest.
local RETRY = "\xcf\x21\xad\x74\xe5\x9a\x61\x11\xbe\x1d\x8c\x02\x1e\x65\xb8\x91"
	.. "\xc2\xa2\x11\x16\x7a\xbb\x8c\x5e\x07\x9e\x09\xe2\xc8\xa8\x33\x9c"

-- Extension types.
local SERVER_NAME = 0
local ENCRYPTED_CLIENT_HELLO = 0xfe0d
-- The drafts before it.
local ENCRYPTED_SERVER_NAME = 0xffce

-- Two bytes of text at an offset; nil past the end.
local function two(text, at)
	local high, low = byte(text, at, at + 1)
	if not low then
		return nil
	end
	return high * 256 + low
end

-- "ok|name|key" of the bytes from first to last, or nil if they are not a host name. What a name may be is what DNS
-- and this appliance's configuration call one: labels of letters, digits, hyphens and underscores joined by single
-- dots, none at the end, the last label not a number (so that no address in any notation passes for a name).
local function named(text, first, last)
	local length = last - first + 1
	if length < 1 or length > LONGEST_NAME then
		return nil
	end
	local name = lower(sub(text, first, last))
	-- By patterns, which are looked for without a step of this language for each character: a dot at either end shows in
	-- the dots around the name, and a hyphen that begins or ends a label beside one.
	local dotted = "." .. name .. "."
	if
		find(name, "[^a-z0-9_.-]")
		or find(dotted, "..", 1, true)
		or find(dotted, ".-", 1, true)
		or find(dotted, "-.", 1, true)
	then
		return nil
	end
	local labels, count = {}, 0
	for label in gmatch(name, "[^.]+") do
		if #label > LONGEST_LABEL then
			return nil
		end
		count = count + 1
		labels[count] = label
	end
	local numeric = not find(labels[count], "[^0-9]")
	-- 0x7f000001 is an address to some, too.
	local top = labels[count]
	if numeric or byte(top, 1) == 48 and byte(top, 2) == 120 then
		return nil
	end
	for from = 1, count // 2 do
		local to = count + 1 - from
		labels[from], labels[to] = labels[to], labels[from]
	end
	return "ok|" .. name .. "|" .. concat(labels, ".") .. "$"
end

-- Inside a server_name extension: one list, in it one entry, of type host_name.
local function server_name(text, first, last)
	if last - first + 1 < 6 or two(text, first) ~= last - first - 1 or byte(text, first + 2) ~= 0 then
		return MALFORMED
	end
	-- A second entry, of whatever type, would be left over here.
	if two(text, first + 3) ~= last - first - 4 then
		return MALFORMED
	end
	return named(text, first + 5, last) or MALFORMED
end

-- The extensions, which must fill the rest of the hello exactly.
local function extensions(text, at, last)
	local found, name = {}, NO_SNI
	local hidden = false
	local count = 0
	while at <= last do
		local high, low, more, length = byte(text, at, at + 3)
		if at + 3 > last or not length then
			return MALFORMED
		end
		local kind = high * 256 + low
		length = more * 256 + length
		if at + 3 + length > last then
			return MALFORMED
		end
		count = count + 1
		if count > MOST_EXTENSIONS or found[kind] then
			return MALFORMED
		end
		found[kind] = true
		if kind == SERVER_NAME then
			name = server_name(text, at + 4, at + 3 + length)
			if name == MALFORMED then
				return MALFORMED
			end
		elseif kind == ENCRYPTED_CLIENT_HELLO or kind == ENCRYPTED_SERVER_NAME then
			hidden = true
		end
		at = at + 4 + length
	end
	-- Some hosts would go by what is hidden and not by the name outside.
	if hidden then
		return ECH
	end
	return name
end

-- A vector of bytes with a length of one byte: where it ends.
local function after_short(text, at, last, least, most, unit)
	local length = byte(text, at)
	if not length or at > last or length < least or length > most or length % unit ~= 0 or at + length > last then
		return nil
	end
	return at + 1 + length
end

local function hello(text)
	if type(text) ~= "string" or byte(text, 1) ~= HANDSHAKE then
		return NOT_TLS
	end
	-- Record: type, version 3.0 to 3.3 (no implementation writes another in its first record), length.
	local major, minor = byte(text, 2, 3)
	local length = two(text, 4)
	if not length or major ~= 3 or minor > 3 then
		return MALFORMED
	end
	local last = 5 + length
	-- Handshake: type client_hello, a length of three bytes that must be the record's: a hello that goes on in a second
	-- record, or shares its record with something else, is one that two readers may read differently.
	local high = byte(text, 7)
	local rest = two(text, 8)
	if length < 42 or #text < last or byte(text, 6) ~= 1 or not rest or high * 65536 + rest ~= length - 4 then
		return MALFORMED
	end
	-- Version of the hello: 3.1 to 3.3, and 3.3 for all that is newer.
	major, minor = byte(text, 10, 11)
	if major ~= 3 or minor < 1 or minor > 3 then
		return MALFORMED
	end
	-- 32 bytes of random; session id; cipher suites; compression methods.
	local at = after_short(text, 44, last, 0, 32, 1)
	if not at then
		return MALFORMED
	end
	local suites = two(text, at)
	if at + 1 > last or not suites or suites < 2 or suites % 2 ~= 0 or at + 1 + suites > last then
		return MALFORMED
	end
	at = after_short(text, at + 2 + suites, last, 1, 255, 1)
	if not at then
		return MALFORMED
	end
	if at > last then
		-- A hello from before there were extensions.
		return NO_SNI
	end
	local all = two(text, at)
	if at + 1 > last or not all or at + 1 + all ~= last then
		return MALFORMED
	end
	return extensions(text, at + 2, last)
end

local NOT_HTTP, HOST_MISMATCH = "not-http", "host-mismatch"

-- A Host header: a name, and no port but 80.
local function host(text)
	if type(text) ~= "string" or #text == 0 then
		return NOT_HTTP
	end
	local last = #text
	if last > 3 and sub(text, last - 2) == ":80" then
		last = last - 3
	end
	return named(text, 1, last) or HOST_MISMATCH
end

-- Where names led to, by what was said of them, for one family each. A look-up has haproxy's threads wait for each other,
-- and what it finds is pinned for a flow that begins now: so flows of one instant share it. Who may have the name, and
-- whether the site may be gone to, is judged for each of them; what is shared is the answer alone.
local SHARED_FOR = 0.2
local MOST_SITES = 1024
local sites, kept = { {}, {} }, 0

local function seconds()
	local now = core.now()
	return now.sec + now.usec / 1000000
end

local function family(txn)
	return find(txn.f:src(), ":", 1, true) and 2 or 1
end

-- Only names that passed are ever in there.
local function shared(txn, said)
	local site = sites[1][said] or sites[2][said]
	if not site then
		return nil
	end
	site = sites[family(txn)][said]
	local age = site and seconds() - site.found
	return age and age >= 0 and age < SHARED_FOR and site.address or nil
end

local function found(txn)
	local said, address = txn:get_var("txn.said"), txn:get_var("txn.site")
	if type(said) ~= "string" or type(address) ~= "string" then
		return
	end
	if kept >= MOST_SITES then
		sites, kept = { {}, {} }, 0
	end
	local of_family = sites[family(txn)]
	if not of_family[said] then
		kept = kept + 1
	end
	of_family[said] = { address = address, found = seconds() }
end

-- An error in here must not become a pass: haproxy leaves the variable unset then, and nothing is allowed by that.
-- A converter would get the hello up to its first NUL byte only; a fetch gets all of it.
core.register_fetches("clawgress_hello", function(txn)
	local said = hello(txn.f:req_payload(0, 0))
	local site = shared(txn, said)
	if site then
		txn:set_var("txn.shared", site)
	end
	return said
end)
core.register_action("clawgress_found", { "tcp-req" }, found)
core.register_converters("clawgress_host", host)
core.register_action("clawgress_say", { "http-req" }, function(txn)
	local line = txn:get_var("txn.line")
	if line then
		txn:Info(line)
	end
end)

-- What follows the hello that was judged, until the site has settled for it. Each flow has one of these; it owns how
-- many bytes of the record under way are still to go in each direction, and copies nothing but a hello.
--
-- Most of what a flow costs in here is the object that haproxy makes of it anew for each call, whatever the call does:
-- so there is one call to begin with, and one for each direction until the site has settled.
local Watch = {}
Watch.__index = Watch

-- haproxy passes on what a filter says, but -1 it takes for a large number: only an error ends the flow.
local function cut(txn, reason)
	txn:set_var("txn.event", "deny")
	txn:set_var("txn.reason", reason)
	error("cut: " .. reason, 0)
end

function Watch:new()
	-- The request begins with the hello that was judged.
	return setmetatable({ said = false, request = nil, response = 0 }, Watch)
end

-- haproxy would call this for each direction.
function Watch:start_analyze(txn)
	self.start_analyze = false
	filter.register_data_filter(self, txn.req)
	filter.register_data_filter(self, txn.res)
	-- Without memory haproxy leaves a filter out: so its being there, for both directions, is asked for.
	txn:set_var("txn.watched", 1)
end

-- How much may go to the site: all that is there, or nothing yet. (haproxy 2.6 and 2.8 may show old bytes where a filter
-- has passed on a part.) Nothing but a hello stands in a record of handshakes before there is a ServerHello; early data
-- and the rest of a first flight may come.
local function from_agent(self, txn, channel)
	if not self.said then
		-- Nothing of the flow has gone anywhere yet, and nothing will if this fails.
		self.said = true
		txn:Info(txn:get_var("txn.line"))
	end
	local there = channel:input()
	local at = self.request or txn:get_var("txn.length")
	while at < there do
		if there - at < 5 then
			if there + 5 > LONGEST_HELLO then
				cut(txn, MALFORMED)
			end
			return 0
		end
		local head = channel:data(at, 5)
		local kind, length = byte(head, 1), 5 + two(head, 4)
		if kind == HANDSHAKE then
			if at + length > there then
				if at + length > LONGEST_HELLO then
					cut(txn, MALFORMED)
				end
				return 0
			end
			local again = hello(channel:data(at, length))
			if again ~= txn:get_var("txn.said") then
				cut(txn, sub(again, 1, 3) == "ok|" and SNI_MISMATCH or again)
			end
		elseif kind ~= CHANGE_CIPHER_SPEC and kind ~= ALERT and kind ~= APPLICATION_DATA then
			cut(txn, NOT_TLS)
		end
		at = at + length
	end
	self.request = at - there
	return there
end

-- How much may go to the agent, all or nothing, and whether the site has settled: by a ServerHello that asks for
-- nothing, or because it does not speak TLS.
local function from_site(self, channel)
	local there, at = channel:input(), self.response
	while at < there do
		local beginning = channel:data(at, min(UP_TO_RANDOM, there - at))
		local kind = byte(beginning, 1)
		if kind ~= HANDSHAKE and kind ~= ALERT and kind ~= CHANGE_CIPHER_SPEC then
			return there, true
		end
		if there - at < 5 then
			return 0, false
		end
		local length = 5 + two(beginning, 4)
		if kind == HANDSHAKE and length >= UP_TO_RANDOM then
			if there - at < UP_TO_RANDOM then
				return 0, false
			end
			if byte(beginning, 6) == 2 and sub(beginning, 12) ~= RETRY then
				return there, true
			end
		end
		at = at + length
	end
	self.response = at - there
	return there, false
end

function Watch:tcp_payload(txn, channel)
	if not channel:is_resp() then
		-- What haproxy itself makes of a failure other than an error (no memory) is a pass.
		local fine, length = pcall(from_agent, self, txn, channel)
		if not fine then
			error(length, 0)
		end
		return length
	end
	local length, settled = from_site(self, channel)
	if settled then
		filter.unregister_data_filter(self, txn.req)
		filter.unregister_data_filter(self, txn.res)
	end
	return length
end

core.register_filter("clawgress_watch", Watch, function(watch)
	return watch
end)

-- What a Connection header may say without naming other headers.
local PLAIN = { ["close"] = true, ["keep-alive"] = true, ["upgrade"] = true }

core.register_fetches("clawgress_connection", function(txn)
  for at = 1, txn.f:req_fhdr_cnt("connection") do
    local line = txn.f:req_fhdr("connection", at)
    if line == nil then
      return "odd"
    end
    for token in string.gmatch(line .. ",", "([^,]*),") do
      local word = string.lower(string.match(token, "^%s*(.-)%s*$"))
      if word ~= "" and not PLAIN[word] then
        return "odd"
      end
    end
  end
  return "plain"
end)
