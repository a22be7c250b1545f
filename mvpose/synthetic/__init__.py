"""A known world: motion, cameras, clocks and detector noise, with the truth kept."""
