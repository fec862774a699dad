"""What a plan is, how one follows from another, and what it keeps to."""
