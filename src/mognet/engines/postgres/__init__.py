"""The engine on PostgreSQL; psycopg is imported only when it is used."""
