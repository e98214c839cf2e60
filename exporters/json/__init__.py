"""Reports as JSON: the contract and its schema."""
