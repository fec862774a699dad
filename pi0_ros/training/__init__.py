"""How the small demo checkpoint was made."""
