"""The grammar tree, what is compiled to it (JSON Schemas, turns), and how it is written (Lark, regex). Knows no vocabulary."""
