"""How well adapters travel, measured on small models that are trained here: ``python -m benchmarks.quality --size ci|full``.

Generated captioned pictures → a VAE, a text encoder and families of UNets with genuine names → adapters in several styles →
every method of carrying them → recovered share of the loss gap, style and content accuracy, Fréchet distance.
"""
