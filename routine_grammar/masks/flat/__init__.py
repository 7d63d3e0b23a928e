"""An automaton's flat form over a vocabulary: states that are numbers, for machines that walk tables and nothing else."""
