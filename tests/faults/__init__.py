"""Fault injection: what happens to results when a process or a server dies at each step of logging, and what happens
to a sweep when a model's code harms its worker.

`python -m tests.faults` runs all faults and prints their table; `test_faults.py` and `test_bad_workers.py` run a part
of them.
"""
