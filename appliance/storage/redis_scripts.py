"""What the server does as one step: scripts in Lua, of commands that Redis 7.0 has.

What lies on the server for a collection, where `onward:sessions` stands for its name:

    onward:sessions:is:<key>    what is remembered, or the number that was counted; ends by itself (PX)
    onward:sessions:of:<group>  a sorted set of the keys of one group, in the order of remembering; ends with its last
    onward:sessions:order       a sorted set of all keys, in the order of remembering; ends with its last

The order bounds the collection: whoever adds a key takes the oldest one away where there are too many. Keys that have
ended by themselves stay in the sorted sets until they are at the front; there each addition looks. So a sorted set
never has more members than the bound, and none is left for longer than what it names.

A script writes first what needs memory: where there is none the server refuses that, and nothing has been done. Where
there are groups, a value has its group in front of it, with one octet that says how long that is.

All scripts have one key, the order, and begin with the same two arguments: what stands in front of the keys, and of the
groups, which is empty for a collection without them.
"""

import hashlib
from dataclasses import dataclass, field
from typing import Final

TIDIED_AT_ONCE = 10
"""Keys at the front that one addition looks at. Each adds one, so that two would do in the long run; ten make up for
a bound that was lowered, and cost microseconds."""


@dataclass(frozen=True, slots=True)
class Script:
    """One script, and the digest that the server knows it by once it has run it."""

    text: str
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "digest", hashlib.sha1(self.text.encode(), usedforsecurity=False).hexdigest())


_HEAD = f"""\
local order, entries, groups = KEYS[1], ARGV[1], ARGV[2]

local function group_of(kept)
    return groups ~= '' and string.sub(kept, 2, 1 + string.byte(kept)) or ''
end

local function value_of(kept)
    return groups ~= '' and string.sub(kept, 2 + string.byte(kept)) or kept
end

local function with_group(group, value)
    return groups ~= '' and string.char(#group) .. group .. value or value
end

local function leave(key, kept)
    local group = group_of(kept)
    if group ~= '' then redis.call('ZREM', groups .. group, key) end
end

-- Where two come at the same microsecond, or the server's clock is set back, the later one is still behind the other.
local function append(set, key, lifetime)
    local now = redis.call('TIME')
    local at = now[1] * 1000000 + now[2]
    local last = redis.call('ZRANGE', set, -1, -1, 'WITHSCORES')[2]
    if last and tonumber(last) >= at then at = tonumber(last) + 1 end
    redis.call('ZADD', set, string.format('%.0f', at), key)
    redis.call('PEXPIRE', set, lifetime)
end

-- Takes away what has ended, and the oldest beyond the bound.
local function tidy(set, at_most)
    for _ = 1, {TIDIED_AT_ONCE} do
        local first = redis.call('ZRANGE', set, 0, 0)[1]
        local kept = first and redis.call('GET', entries .. first)
        if not first or (kept and redis.call('ZCARD', set) <= at_most) then return end
        redis.call('ZREM', set, first)
        if kept then
            redis.call('DEL', entries .. first)
            leave(first, kept)
        end
    end
end

local function add(key, group, lifetime, at_most)
    append(order, key, lifetime)
    tidy(order, tonumber(at_most))
    if group ~= '' then
        append(groups .. group, key, lifetime)
        tidy(groups .. group, math.huge)
    end
end
"""

REMEMBER: Final = Script(
    _HEAD
    + """
local key, value, group, lifetime, at_most = ARGV[3], ARGV[4], ARGV[5], ARGV[6], ARGV[7]
local before = redis.call('GET', entries .. key)
redis.call('SET', entries .. key, with_group(group, value), 'PX', lifetime)
if before then leave(key, before) end
add(key, group, lifetime, at_most)
"""
)
"""Arguments: key, value, group, lifetime in milliseconds, bound."""

RENEW: Final = Script(
    _HEAD
    + """
local key, value, lifetime, at_most = ARGV[3], ARGV[4], ARGV[5], ARGV[6]
local before = redis.call('GET', entries .. key)
if not before then return 0 end
local group = group_of(before)
redis.call('SET', entries .. key, with_group(group, value), 'PX', lifetime)
add(key, group, lifetime, at_most)
return 1
"""
)
"""Arguments: key, value, lifetime in milliseconds, bound. 1 where something was kept, or else 0."""

FORGET: Final = Script(
    _HEAD
    + """
local key = ARGV[3]
local kept = redis.call('GET', entries .. key)
if not kept then return false end
redis.call('DEL', entries .. key)
redis.call('ZREM', order, key)
leave(key, kept)
return value_of(kept)
"""
)
"""Argument: the key. What was kept, or nothing."""

RECALL: Final = Script(
    _HEAD
    + """
local kept = redis.call('GET', entries .. ARGV[3])
return kept and value_of(kept)
"""
)
"""Argument: the key. What is kept, or nothing. Writes nothing, so that a replica can do it, too."""

RECALL_GROUP: Final = Script(
    _HEAD
    + """
local group, found = ARGV[3], {}
for _, key in ipairs(redis.call('ZRANGE', groups .. group, 0, -1)) do
    local kept = redis.call('GET', entries .. key)
    if kept and group_of(kept) == group then
        found[#found + 1] = key
        found[#found + 1] = value_of(kept)
    end
end
return found
"""
)
"""Argument: the group. Keys and values by turns. Writes nothing."""

COUNT: Final = Script(
    _HEAD
    + """
local key, lifetime, at_most = ARGV[3], ARGV[4], ARGV[5]
local counted = redis.call('INCR', entries .. key)
if counted == 1 then
    redis.call('PEXPIRE', entries .. key, lifetime)
    add(key, '', lifetime, at_most)
end
return counted
"""
)
"""Arguments: key, lifetime in milliseconds, bound. How many there are now."""

CHECK: Final = Script("redis.call('SET', KEYS[1], '', 'PX', 1000)")
"""For a key of its own. A server that answers and takes nothing is no good."""
