"""How each version of this program brought the schema to its own: Alembic's environment."""
