"""Fault injection: what becomes of results when a process or a server dies, at each step of logging them.

`python -m tests.faults` runs all faults and prints their table; `test_faults.py` runs a part of them.
"""
