"""Verdicts, by what they are about."""
