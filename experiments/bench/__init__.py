"""Benchmarks: commands that print and keep timings. None is a test."""
