"""A Flask application: a connection for each of the server's threads, a transaction for each request.

flask --app flask_notes run
"""

from pathlib import Path

from flask import Flask, Response, jsonify, request

from penstock import get_connection


def create_app(database: Path = Path("app.db")) -> Flask:
    app = Flask(__name__)
    with get_connection(database) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS notes (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")

    @app.post("/notes")
    def add() -> tuple[Response, int]:
        # Commits at the end of the block, rolls back when it raises; the connection stays for the thread's next request.
        with get_connection(database) as connection:
            cursor = connection.execute(
                "INSERT INTO notes (text) VALUES (?)", (request.get_data(as_text=True),)
            )
        return jsonify(id=cursor.lastrowid), 201

    @app.get("/notes")
    def all_notes() -> Response:
        rows = get_connection(database).execute("SELECT id, text FROM notes ORDER BY id")
        return jsonify([dict(row) for row in rows])

    return app
