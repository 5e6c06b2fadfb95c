"""The documentation site: reference pages made from the code, and the checks that every page must pass."""
