"""How well a policy does in bags."""
