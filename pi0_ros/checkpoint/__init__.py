"""What a checkpoint is, wants and gives, whatever trained it."""
