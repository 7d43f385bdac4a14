"""A real language model, real text and a TopK autoencoder, through the API only: ``make demo`` and a test."""
