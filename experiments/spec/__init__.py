"""What an experiment is: settings, and the functions they stand for; no environment, no disk."""
