"""Search spaces, the networks they describe, tables of trained results, images, and the trainer that makes tables."""
