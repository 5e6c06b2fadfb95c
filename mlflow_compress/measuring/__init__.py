"""One Variant to one Result, behind a process boundary."""
