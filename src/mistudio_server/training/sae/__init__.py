"""The sparse autoencoders: standard (L1), TopK and JumpReLU. Importing a module of this package imports torch."""
