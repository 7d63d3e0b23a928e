"""Regular expressions as languages: read, told apart, run on a text in time that grows with it. Knows no schema."""
