"""Many runs compared: results, tables, figures."""
