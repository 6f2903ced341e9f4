"""Meta-learners: black boxes that turn tasks into rollouts, and rollouts into a better policy."""
