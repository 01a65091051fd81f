"""The identity of layers, maps and programs: equality, copies, JSON, fingerprints and caches."""
