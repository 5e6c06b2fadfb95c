"""The documentation site: reference pages generated from the code, and the checks that every page must pass."""
