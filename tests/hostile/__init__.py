"""Hostile files, to try on every function that reads other people's files.

`python -m tests.hostile MODULE:FUNCTION` tries all of them on a function that takes a path, and prints the result of
each; `python -m tests.hostile MODULE:FUNCTION checkpoints` tries only those of `inputs_checkpoints.py`. In a test:
`assert_harmless(function, "checkpoints.legacy_pickle_in_front")`.

An input is a public function in a file `inputs_KIND.py`. It takes an empty folder and the shell command of its
payload, writes hostile files into the folder, and returns their path. Its docstring describes it in one sentence.
"""
