"""Bank signals of known harmful content, exchange them with others, and match uploads against them."""

__version__ = "0.1.0"
