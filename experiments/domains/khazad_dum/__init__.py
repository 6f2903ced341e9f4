"""Khazad-Dum."""
