"""Training of the networks of the sync wing: a known world in torch, losses, the rows of the comparison, the runner."""
