"""Who decides: the protocol, PI0 and its prompt and pixels, mocks, records of decisions."""
