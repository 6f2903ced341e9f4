"""MuJoCo bodies in motion."""
