"""headrace as the engine of other systems: one module a host, each on the public API alone, none imported by itself."""
