"""The engine on Redis or Valkey: one Lua script for each transition, so that each is one atomic step and one round trip."""
