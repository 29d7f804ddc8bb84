"""SQLAlchemy 2 and Alembic: migrations up and down, then an application's work. Prints what it sees."""
import tempfile
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from sqlalchemy import func, select
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.exc import DBAPIError, IntegrityError
from sqlalchemy.orm import (DeclarativeBase, Mapped, Session, joinedload, mapped_column, relationship, selectinload,
                            sessionmaker, subqueryload)
from sqlalchemy.orm.exc import StaleDataError

ENGINE = sa.create_engine("postgresql+psycopg://", pool_size=3, max_overflow=0, pool_pre_ping=True)

ENV = """
from alembic import context
engine = context.config.attributes["engine"]
with engine.connect() as connection:
    context.configure(connection=connection, transaction_per_migration=context.config.attributes["each"])
    with context.begin_transaction():
        context.run_migrations()
"""
REVISION = """
import sqlalchemy as sa
from alembic import op
revision, down_revision = {revision!r}, {before!r}
def upgrade():
{up}
def downgrade():
{down}
"""
REVISIONS = [
    ("one", """
    op.create_table("author", sa.Column("id", sa.Integer, primary_key=True), sa.Column("name", sa.Text, nullable=False))
    op.create_unique_constraint("author_name", "author", ["name"])
""", """
    op.drop_table("author")
"""),
    ("two", """
    op.execute("create type mood as enum ('good', 'bad')")
    op.create_table("book", sa.Column("id", sa.Integer, primary_key=True), sa.Column("title", sa.Text, nullable=False),
        sa.Column("author_id", sa.Integer, sa.ForeignKey("author.id", ondelete="cascade"), nullable=False),
        sa.Column("version", sa.Integer, nullable=False, server_default="1"))
    op.create_index("book_author", "book", ["author_id"])
    op.execute("insert into author(name) values ('Seed')")
""", """
    op.drop_table("book")
    op.execute("drop type mood")
"""),
    ("three", """
    op.add_column("book", sa.Column("meta", sa.dialects.postgresql.JSONB, server_default="{}", nullable=False))
    op.add_column("book", sa.Column("tags", sa.ARRAY(sa.Text)))
    op.alter_column("author", "name", type_=sa.String(200))
    for name, in op.get_bind().execute(sa.text("select name from author")).all():
        op.execute(sa.text("update author set name = :n").bindparams(n=name + "!"))
""", """
    op.alter_column("author", "name", type_=sa.Text)
    op.drop_column("book", "tags")
    op.drop_column("book", "meta")
"""),
    ("four", """
    with op.get_context().autocommit_block():
        op.create_index("book_title", "book", ["title"], postgresql_concurrently=True)
""", """
    with op.get_context().autocommit_block():
        op.drop_index("book_title", postgresql_concurrently=True)
"""),
]


def shape():
    inspector = sa.inspect(ENGINE)
    for table in sorted(inspector.get_table_names()):
        print(" ", table, [(c["name"], str(c["type"])) for c in inspector.get_columns(table)],
              sorted(i["name"] for i in inspector.get_indexes(table)),
              [f["referred_table"] for f in inspector.get_foreign_keys(table)])


def migrations():
    with tempfile.TemporaryDirectory() as folder:
        versions = Path(folder, "versions")
        versions.mkdir()
        Path(folder, "env.py").write_text(ENV)
        before = None
        for revision, up, down in REVISIONS:
            text = REVISION.format(revision=revision, before=before, up=up, down=down)
            (versions / f"{revision}.py").write_text(text)
            before = revision
        config = Config()
        config.set_main_option("script_location", folder)
        config.set_main_option("path_separator", "os")
        config.attributes["engine"] = ENGINE

        def current():
            with ENGINE.connect() as c:
                return c.execute(sa.text("select version_num from alembic_version")).scalars().all()

        for each in (True, False):
            config.attributes["each"] = each
            for target in ("one", "+1", "head"):
                command.upgrade(config, target)
                print("up", target, current())
            shape()
            for target in ("-1", "one", "base"):
                command.downgrade(config, target)
                print("down", target, current())
                shape()
        command.upgrade(config, "head")
        print("head", current())


class Base(DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "author"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    books: Mapped[list["Book"]] = relationship(back_populates="author", cascade="all, delete-orphan", order_by="Book.id")


class Book(Base):
    __tablename__ = "book"
    id: Mapped[int] = mapped_column(primary_key=True)
    title: Mapped[str]
    author_id: Mapped[int] = mapped_column(sa.ForeignKey("author.id"))
    version: Mapped[int] = mapped_column()
    meta: Mapped[dict] = mapped_column(JSONB, default=dict)
    tags: Mapped[list[str] | None] = mapped_column(ARRAY(sa.Text))
    author: Mapped[Author] = relationship(back_populates="books")
    __mapper_args__ = {"version_id_col": version}


def work():
    make = sessionmaker(ENGINE)
    with make.begin() as s:
        for a in range(5):
            books = [Book(title=f"t{a}-{b}", meta={"pages": b * 10}, tags=["x", f"y{b}"]) for b in range(20)]
            s.add(Author(name=f"A{a}", books=books))
    with make() as s:
        print([(a.name, len(a.books)) for a in s.scalars(select(Author).order_by(Author.id))])
        for option in (selectinload, joinedload, subqueryload):
            authors = s.scalars(select(Author).options(option(Author.books)).order_by(Author.id)).unique().all()
            print(option.__name__, sum(len(a.books) for a in authors))
        print(s.execute(select(Author.name, func.count(), func.sum(Book.meta["pages"].as_integer()))
                        .join(Book).group_by(Author.name).order_by(Author.name)).all())
        print(s.scalar(select(func.count()).select_from(Book).where(Book.tags.contains(["y3"]))))
        s.commit()

        # Transactions inside transactions.
        with s.begin():
            s.add(Author(name="outer"))
            with s.begin_nested():
                s.add(Author(name="inner"))
            try:
                with s.begin_nested():
                    s.add(Author(name="A0"))
            except IntegrityError as e:
                print(e.orig.sqlstate, e.orig.diag.constraint_name)
            with s.begin_nested() as deep:
                s.add(Author(name="undone"))
                s.flush()
                with s.begin_nested():
                    s.add(Author(name="deeper"))
                print(s.scalar(select(func.count()).select_from(Author)))
                deep.rollback()
            print(s.scalar(select(func.count()).select_from(Author)))
        print(s.scalars(select(Author.name).order_by(Author.name)).all())

    # Its own writes are there at once, on another session of the same connection or on the same.
    for i in range(30):
        with make.begin() as s:
            s.add(Author(name=f"seen{i}"))
        with ENGINE.connect().execution_options(isolation_level="AUTOCOMMIT") as c:
            c.execute(sa.text("update author set name = name || '.' where name = :n"), {"n": f"seen{i}"})
            assert c.scalar(sa.text("select count(*) from author where name = :n"), {"n": f"seen{i}."}) == 1
    print("own writes seen")

    # Optimistic locking between two sessions, and row locks.
    with make() as one, make() as two:
        a, b = one.get(Book, 1), two.get(Book, 1)
        a.title = "first"
        one.commit()
        b.title = "second"
        try:
            two.commit()
        except StaleDataError:
            two.rollback()
            print("stale, as it should be")
        locked = one.scalars(select(Book).where(Book.id == 2).with_for_update()).one()
        try:
            two.scalars(select(Book).where(Book.id == 2).with_for_update(nowait=True)).one()
        except DBAPIError as e:
            print(e.orig.sqlstate)
            two.rollback()
        print([b.id for b in two.scalars(select(Book).where(Book.id < 4).order_by(Book.id)
                                         .with_for_update(skip_locked=True))], locked.version)

    # Server-side cursors.
    with make() as s:
        rows = s.execute(select(Book).order_by(Book.id).execution_options(yield_per=7))
        print(sum(len(part) for part in rows.scalars().partitions()))
        stream = s.connection().execute(select(Book.id).order_by(Book.id),
                                        execution_options={"stream_results": True, "max_row_buffer": 5})
        print([stream.fetchone()[0] for _ in range(3)], len(stream.fetchmany(50)), len(stream.all()))
        with ENGINE.connect() as c:
            first = c.execute(sa.text("select generate_series(1, 95)"), execution_options={"yield_per": 10})
            second = c.execute(sa.text("select generate_series(1, 35)"), execution_options={"yield_per": 10})
            print([len(a) + len(b) for a, b in zip(first.partitions(), second.partitions())])

    # Many rows at once, upserts, returning.
    with make.begin() as s:
        ids = s.scalars(insert(Author).returning(Author.id, sort_by_parameter_order=True),
                        [{"name": f"bulk{i}"} for i in range(2500)]).all()
        print(len(ids), ids == sorted(ids))
        upsert = insert(Author).values(name="A0").on_conflict_do_update(
            constraint="author_name", set_={"name": Author.name}).returning(Author.name)
        print(s.scalar(upsert))
        print(s.execute(sa.update(Book).where(Book.author_id == 3).values(version=9)).rowcount)
        print(s.execute(sa.delete(Author).where(Author.name.startswith("bulk"))).rowcount)

    # Isolation levels, one connection after the other.
    for level in ("SERIALIZABLE", "REPEATABLE READ", "READ COMMITTED", "AUTOCOMMIT"):
        with ENGINE.connect().execution_options(isolation_level=level) as c:
            print(level, c.scalar(sa.text("show transaction_isolation")), c.scalar(select(func.count()).select_from(Book)))
    with ENGINE.connect().execution_options(isolation_level="REPEATABLE READ", postgresql_readonly=True,
                                            postgresql_deferrable=True) as c:
        print(c.scalar(sa.text("show transaction_read_only")), c.scalar(sa.text("show transaction_deferrable")))
        try:
            c.execute(sa.text("delete from book"))
        except DBAPIError as e:
            print(e.orig.sqlstate)
    with ENGINE.connect() as c:
        print(c.scalar(sa.text("show transaction_read_only")), c.scalar(sa.text("show transaction_isolation")))

    # A temporary table, and reflection of it all.
    with ENGINE.connect() as c:
        c.execute(sa.text("create temporary table scratch as select generate_series(1, 9) as n"))
        c.commit()
        print(c.scalar(sa.text("select sum(n) from scratch")))
        c.execute(sa.text("drop table scratch"))
        c.commit()
    reflected = sa.MetaData()
    reflected.reflect(ENGINE)
    print(sorted(reflected.tables))


# Nothing has been written yet: a replica can serve this, however far it lags.
with sa.create_engine(ENGINE.url, isolation_level="AUTOCOMMIT").connect() as first:
    print(first.scalar(select(0)))
migrations()
work()
