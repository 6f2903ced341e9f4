"""The point that seeks a hidden goal."""
