"""Files that somebody made to do harm, to be tried on whatever reads other people's files.

`python -m tests.hostile MODULE:FUNCTION` tries all of them on a function that takes a path, and prints what came of
each; `python -m tests.hostile MODULE:FUNCTION checkpoints` tries those of `inputs_checkpoints.py` only. In a test:
`assert_harmless(function, "checkpoints.legacy_pickle_in_front")`.

An input is a public function of a file `inputs_KIND.py`. It takes an empty folder and the shell command of its payload,
writes what is hostile into the folder, and returns the path of it. Its docstring says in one sentence what it is.
"""
