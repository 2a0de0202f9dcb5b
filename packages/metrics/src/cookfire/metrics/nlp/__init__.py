"""Metrics of texts."""

from cookfire.metrics.nlp._bleu import Bleu
from cookfire.metrics.nlp._character_error_rate import CharacterErrorRate
from cookfire.metrics.nlp._perplexity import Perplexity
from cookfire.metrics.nlp._rouge import Rouge, RougeL, RougeN

__all__ = ["Bleu", "CharacterErrorRate", "Perplexity", "Rouge", "RougeL", "RougeN"]
