"""Grammar tree to automaton over bytes: leaf automata and the skeleton that calls them. Knows no Lark and no vocabulary."""
