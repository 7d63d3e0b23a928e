"""`python -m routine_grammar.serve`."""

import sys

from routine_grammar.serve.launcher import main

if __name__ == "__main__":
    sys.exit(main())
