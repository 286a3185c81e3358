"""The check of a student's own solution, which `check.py` runs; it needs torch and the standard library only."""
