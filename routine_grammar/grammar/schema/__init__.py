"""JSON Schema to grammar tree: `documents` and `reading` make shapes of schemas, `layout` and `compiler` trees of shapes."""
