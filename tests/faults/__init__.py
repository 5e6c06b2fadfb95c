"""Fault injection: what becomes of results when a process or a server dies, at each step of logging them; and what
becomes of a sweep when the code of a model does harm to its worker.

`python -m tests.faults` runs all faults and prints their table; `test_faults.py` and `test_bad_workers.py` run a part
of them.
"""
