"""What trainings of both wings stand on: motion and detector noise in torch, configs, the runner, weights."""
