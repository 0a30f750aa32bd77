"""A CherryPy application with threads, and its SQLite file in subprocesses.

python webapp.py                        with autoreload: change reports.py, and it starts itself anew
python webapp.py --daemon webapp.pid    as a daemon
"""

import argparse
import json
import os
import sqlite3
from pathlib import Path

import cherrypy  # type: ignore[import-untyped]
from cherrypy.process.plugins import Daemonizer, PIDFile  # type: ignore[import-untyped]
from pydantic import BaseModel, ValidationError
from reports import turnover

from penstock import SQLProxy


class Order(BaseModel):
    id: int
    customer: str
    total: float


class Orders:
    """GET: all orders above a total. POST: one more."""

    exposed = True

    def __init__(self, proxy: SQLProxy) -> None:
        self.proxy = proxy

    def GET(self, above: str = "0") -> bytes:
        try:
            least = float(above)
        except ValueError:
            raise cherrypy.HTTPError(400, f"above={above}: a number is wanted") from None
        rows = self.proxy.execute(
            "SELECT id, customer, total FROM orders WHERE total > ? ORDER BY id", (least,)
        )
        return answer([{"id": id_, "customer": customer, "total": total} for id_, customer, total in rows])

    def POST(self) -> bytes:
        body = cherrypy.request.rfile.read(int(cherrypy.request.headers.get("Content-Length", 0)))
        try:
            order = Order.model_validate_json(body)
        except ValidationError:
            raise cherrypy.HTTPError(400, 'an order is {"id": 1, "customer": "Ada", "total": 9.99}') from None
        try:
            with self.proxy.transaction() as tx:
                tx.execute("INSERT INTO orders VALUES (:id, :customer, :total)", order.model_dump())
                tx.execute("UPDATE counter SET orders = orders + 1")
        except sqlite3.IntegrityError:
            raise cherrypy.HTTPError(409, "this order is there") from None
        cherrypy.response.status = 201
        return answer({"id": order.id})


class Turnover:
    """GET: what each customer has paid, summed up in a subprocess."""

    exposed = True

    def __init__(self, proxy: SQLProxy) -> None:
        self.proxy = proxy

    def GET(self) -> bytes:
        return answer(self.proxy.run(turnover))


class Processes:
    """GET: who is at work."""

    exposed = True

    def __init__(self, proxy: SQLProxy) -> None:
        self.proxy = proxy

    def GET(self) -> bytes:
        ((orders,),) = self.proxy.execute("SELECT orders FROM counter")
        return answer({"server": os.getpid(), "subprocesses": self.proxy.pids, "orders": orders})


class Root:
    def __init__(self, proxy: SQLProxy) -> None:
        self.orders = Orders(proxy)
        self.turnover = Turnover(proxy)
        self.processes = Processes(proxy)


def answer(content: object) -> bytes:
    cherrypy.response.headers["Content-Type"] = "application/json"
    return json.dumps(content).encode()


def make_tables(proxy: SQLProxy) -> None:
    proxy.execute("CREATE TABLE IF NOT EXISTS orders (id INTEGER PRIMARY KEY, customer TEXT, total REAL)")
    proxy.execute("CREATE TABLE IF NOT EXISTS counter (id INTEGER PRIMARY KEY, orders INTEGER)")
    proxy.execute("INSERT OR IGNORE INTO counter VALUES (1, 0)")


def main() -> None:
    arguments = argparse.ArgumentParser()
    arguments.add_argument("--database", default="webapp.db")
    arguments.add_argument("--port", type=int, default=8080)
    arguments.add_argument("--daemon", metavar="PIDFILE")
    chosen = arguments.parse_args()

    # One for the process and all its threads. It already has a subprocess when the daemon forks.
    proxy = SQLProxy(chosen.database, processes=2)
    make_tables(proxy)
    cherrypy.config.update(
        {
            "server.socket_port": chosen.port,
            "server.thread_pool": 8,
            "request.show_tracebacks": False,
            "engine.autoreload.on": not chosen.daemon,
            "engine.autoreload.frequency": 0.5,
        }
    )
    cherrypy.engine.subscribe("exit", proxy.close)
    if chosen.daemon:
        Daemonizer(cherrypy.engine).subscribe()
        PIDFile(cherrypy.engine, Path(chosen.daemon).resolve()).subscribe()
    cherrypy.engine.signals.subscribe()
    dispatcher = cherrypy.dispatch.MethodDispatcher()
    # Bodies are JSON, whatever curl calls them.
    settings = {"request.dispatch": dispatcher, "request.process_request_body": False}
    cherrypy.tree.mount(Root(proxy), "/", {"/": settings})
    cherrypy.engine.start()
    cherrypy.engine.block()


if __name__ == "__main__":
    main()
