"""What a study has found: its lineage, its schedule, tables and figures."""
