"""The Routine: its model, its written forms, its position graph and its dataflow checks. Knows no bytes and no tokens."""
