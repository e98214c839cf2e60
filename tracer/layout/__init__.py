"""Where each Go release keeps the fields of the runtime's structs, as generated data."""
