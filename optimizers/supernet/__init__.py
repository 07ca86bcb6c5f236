"""What the one-shot methods share: the supernet, its data, the training loop and the judgement of what it learned."""
