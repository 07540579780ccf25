"""Onward: what this box does with mail.

Each folder is one room, and each room's docstring says what lives there, what does not, and who may call. Which room
may import which is a contract that the checks hold (`[tool.importlinter]` in pyproject.toml) and a picture in
ARCHITECTURE.md.
"""

__version__ = "0.1.0"
