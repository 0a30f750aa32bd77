"""A proxy for threaded applications: any thread's statements run in a few subprocesses with a connection each.

```
 thread ─┐                        ┌─ socket ─ subprocess: connection, query_only ─┐
 thread ─┼─▶ pool: who is free? ──┼─ socket ─ subprocess: connection, query_only ─┼─▶ app.db
 thread ─┘                        └─ socket ─ subprocess: connection, the writer ─┘
```
A thread takes a subprocess for one statement, writes to its socket, and waits for the answer itself: no thread and no
loop stands between. A transaction keeps its subprocess. Waiting threads are served in order.
"""
