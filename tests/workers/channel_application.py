"""One set of handlers, declared twice: on the worker's own connection, and over the channel."""

from __future__ import annotations

from typing import Any

from sqlalchemy import (
    ForeignKey,
    MetaData,
    String,
    Table,
    insert,
    inspect,
    select,
    text,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship, selectinload

from penstock import App, Context
from penstock.app.handlers import DatabaseWay


class Model(DeclarativeBase):
    """Root of the tables."""


class Author(Model):
    """Has books."""

    __tablename__ = "authors"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(String(100), unique=True)
    books: Mapped[list[Book]] = relationship(back_populates="author", order_by="Book.title", cascade="all")


class Book(Model):
    """Has an author."""

    __tablename__ = "books"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str] = mapped_column(String(100))
    author_id: Mapped[int] = mapped_column(ForeignKey("authors.id"))
    author: Mapped[Author] = relationship(back_populates="books")


def application(way: DatabaseWay) -> App:  # noqa: C901 - one handler after the other
    """The handlers, with one word that differs."""
    app = App()

    @app.handler("make", database=way)
    def make(_: None, ctx: Context) -> None:
        Model.metadata.create_all(ctx.connection)

    @app.handler("write", database=way, retry=None)
    def write(name: str, ctx: Context) -> None:
        # ORM and Core in one transaction.
        ctx.session.add(Author(name=name, books=[Book(title=f"{name} {n}") for n in range(3)]))
        ctx.session.flush()
        ctx.connection.execute(update(Author.__table__).values(name=Author.name + "!"))  # type: ignore[arg-type]
        if name == "bad":
            raise ValueError("not this one")

    @app.handler("read", database=way)
    def read(_: None, ctx: Context) -> None:
        authors = ctx.session.scalars(select(Author).order_by(Author.id).options(selectinload(Author.books)))
        found: Any = [(author.name, [book.title for book in author.books]) for author in authors]
        # Lazily, too, and from the other end.
        book = ctx.session.scalars(select(Book).limit(1)).one()
        ctx.state.found = [*found, book.author.name]

    @app.handler("savepoint", database=way)
    def savepoint(_: None, ctx: Context) -> None:
        ctx.session.add(Author(name="outer"))
        ctx.session.flush()
        try:
            with ctx.session.begin_nested():
                ctx.session.add(Author(name="inner"))
                ctx.session.flush()
                ctx.session.execute(text("INSERT INTO authors (name) VALUES ('outer')"))
        except IntegrityError as error:
            ctx.state.found = type(error.orig).__name__

    @app.handler("reflect", database=way)
    def reflect(_: None, ctx: Context) -> None:
        books = Table("books", MetaData(), autoload_with=ctx.connection)
        (key,) = inspect(ctx.connection).get_foreign_keys("books")
        ctx.state.found = [sorted(books.c.keys()), key["referred_table"], key["constrained_columns"]]

    @app.handler("many", database=way)
    def many(count: int, ctx: Context) -> None:
        ctx.connection.execute(insert(Author), [{"id": 100 + n, "name": str(n)} for n in range(count)])
        ctx.connection.commit()
        names = select(Author.name).where(Author.id >= 100).order_by(Author.id)
        rows = ctx.connection.execution_options(yield_per=500).execute(names)
        ctx.state.found = sum(int(row.name) for row in rows)

    @app.handler("stream", database=way)
    def stream(count: int, ctx: Context) -> None:
        ctx.connection.execute(insert(Author), [{"id": 100 + n, "name": str(n)} for n in range(count)])
        ctx.connection.commit()
        seen = 0
        for row in ctx.stream(select(Author).order_by(Author.id)):
            seen += 1
            if seen % 100 == 0:
                ctx.connection.execute(update(Author).where(Author.id == row.id).values(name=f"seen {seen}"))
        ctx.state.found = seen

    @app.handler("in.the.middle", database=way)
    def in_the_middle(_: None, ctx: Context) -> None:
        ctx.session.add(Author(name="kept"))
        ctx.session.commit()
        ctx.session.add(Author(name="undone"))
        ctx.session.flush()
        ctx.session.rollback()

    @app.handler("add.one", database=way)
    def add_one(_: None, ctx: Context) -> None:
        author = ctx.session.scalars(select(Author).with_for_update()).one()
        author.name = str(int(author.name) + 1)

    return app


app = application("channel")
