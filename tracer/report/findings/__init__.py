"""What a report means: rules from figures to statements, a file a subject."""
