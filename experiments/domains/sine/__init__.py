"""Sine regression."""
