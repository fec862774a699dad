"""Where the tool is, and how the joints bring it somewhere else."""
