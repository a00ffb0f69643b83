"""Which operators a Transpose can move through: the table, an entry per operator, and the graph that is written so."""

from exporters.transposes import rules as rules  # importing the rules fills the table
from exporters.transposes.rule import RULES, Crossing, Stays
from exporters.transposes.views import Perm, Views, identity

__all__ = ["RULES", "Crossing", "Perm", "Stays", "Views", "identity"]
