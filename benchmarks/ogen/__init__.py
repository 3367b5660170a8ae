"""OGEN: which settings were chosen, what it adds, what it costs, and how good its generators are."""
