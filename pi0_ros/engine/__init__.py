"""How a chunk is computed: the fast path, and the guidance of real-time chunking."""
