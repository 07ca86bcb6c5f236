"""Real `torch.nn.Module`s for the architectures of a space, one file per space."""
