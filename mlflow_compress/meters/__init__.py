"""Meters: how size, latency, memory and circumstances are measured. Deliberately not a socket."""
