"""psycopg 3, synchronous and asynchronous: pipelines, cursors, COPY, notifications. Prints what it sees."""
import asyncio
import datetime
import threading

import psycopg
from psycopg import sql
from psycopg.rows import dict_row
from psycopg.types.json import Jsonb
from psycopg_pool import AsyncConnectionPool, ConnectionPool

BLOB = bytes(range(256)) * 4096


def settled(c):
    """Waits until the standbys have replayed all: what another session has written is not promised to be seen at once."""
    c.execute("""do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin
        while exists (select from pg_stat_replication where replay_lsn is null or replay_lsn < here) loop
            perform pg_sleep(0.005); end loop; end $$""")


def prepared(c):
    c.prepare_threshold = 0
    c.execute("create table p(id int primary key, v text, j jsonb, d date, a int[], b bytea)")
    for i in range(200):
        c.execute("insert into p values (%s, %s, %s, %s, %s, %s)",
                  (i, f"v{i}", Jsonb({"i": i}), datetime.date(2020, 1, 1 + i % 28), [i, None, i + 1], b"\0\1"))
        assert c.execute("select v from p where id = %s", (i,)).fetchone() == (f"v{i}",)
    print(c.execute("select * from p where id = %s", (7,)).fetchone())
    print(c.execute("select * from p where id = %b", (7,), binary=True).fetchone())
    # More statements than the driver keeps prepared, so that it deallocates.
    c.prepared_max = 10
    print(sum(c.execute(f"select {i} + %s", (1,)).fetchone()[0] for _ in range(3) for i in range(40)))
    c.execute("deallocate all")
    c.execute("discard plans")
    cursor = psycopg.ClientCursor(c)
    print(cursor.execute("select %s, %s; select 2", ("it's", [1, 2])).fetchone(), cursor.nextset(), cursor.fetchone())
    raw = psycopg.RawCursor(c)
    print(raw.execute("select $1::int + $2::int", [1, 2]).fetchone())
    print(c.execute("update p set b = %s where id = 1 returning length(b)", (BLOB,)).fetchone())
    print(c.execute("select b from p where id = 1", binary=True).fetchone()[0] == BLOB)
    with c.cursor(row_factory=dict_row) as cur:
        cur.executemany("insert into p(id, v) values (%s, %s) returning id", [(1000 + i, "m") for i in range(500)],
                        returning=True)
        seen = [cur.fetchone()["id"]]
        while cur.nextset():
            seen.append(cur.fetchone()["id"])
        print(len(seen), seen[0], seen[-1])
    big = "x" * 3_000_000
    print(len(c.execute("select %s::text || %s::text", (big, big)).fetchone()[0]))
    print(c.execute(sql.SQL("select {} from {} where id = {}").format(
        sql.Identifier("v"), sql.Identifier("p"), sql.Literal(3))).fetchone())
    print([d.name for d in c.execute("select 1 as a, 2 as b").description])
    print(c.execute("select * from generate_series(1, 20000)").rowcount)


def pipelines(c):
    with c.pipeline() as p:
        cursors = [c.execute("select %s::int * 2", (i,)) for i in range(300)]
        p.sync()
        print(sum(cur.fetchone()[0] for cur in cursors))
        c.execute("insert into p(id, v) values (9000, 'piped')")
        print(c.execute("select v from p where id = 9000").fetchone())
    # What fails takes the rest of its part along, and no more.
    try:
        with c.pipeline() as p:
            c.execute("update p set v = 'one' where id = 9000")
            p.sync()
            c.execute("insert into p(id) values (9000)")
            c.execute("update p set v = 'two' where id = 9000")
    except psycopg.errors.UniqueViolation as e:
        print(e.diag.sqlstate)
    print(c.execute("select v from p where id = 9000").fetchone())
    with c.pipeline() as p, c.transaction():
        c.execute("update p set v = 'three' where id = 9000")
        try:
            with c.transaction():
                c.execute("update p set v = 'four' where id = 9000")
                c.execute("select 1/0")
                p.sync()
        except psycopg.errors.DivisionByZero as e:
            print(e.diag.sqlstate)
        print(c.execute("select v from p where id = 9000").fetchone())
    print(c.execute("select v from p where id = 9000").fetchone())
    with c.pipeline():
        with c.cursor() as cur:
            cur.executemany("insert into p(id, v) values (%s, %s)", [(20000 + i, "e") for i in range(3000)])
        print(c.execute("select count(*) from p where v = 'e'").fetchone())
        c.execute("set work_mem = '3MB'")
        c.execute("begin")
        c.execute("set local work_mem = '5MB'")
        print(c.execute("show work_mem").fetchone())
        c.execute("commit")
        print(c.execute("show work_mem").fetchone())
    print(c.execute("show work_mem").fetchone())
    c.execute("reset work_mem")


def cursors():
    with psycopg.connect() as c:
        with c.cursor("named") as cur:
            cur.itersize = 100
            cur.execute("select id from p where id < %s order by id", (200,))
            print(sum(id for id, in cur))
        with c.cursor("scrolls", scrollable=True) as cur:
            cur.execute("select id from p order by id")
            cur.scroll(50)
            print(cur.fetchone())
            cur.scroll(-10)
            print(cur.fetchone())
            cur.scroll(3, mode="absolute")
            print(cur.fetchmany(3))
        with c.cursor("kept", withhold=True) as cur:
            cur.execute("select id from p order by id")
            print(cur.fetchone())
            c.commit()
            print(cur.fetchone(), c.execute("select count(*) from p where id < 200").fetchone())
            c.commit()
            print(len(cur.fetchmany(150)))
        with c.cursor("one") as one, c.cursor("two") as two:
            one.execute("select generate_series(1, 10)"), two.execute("select generate_series(11, 20)")
            print([one.fetchone()[0] + two.fetchone()[0] for _ in range(10)])
        c.rollback()
        for row in c.cursor().stream("select id from p order by id limit 3"):
            print(row)
        c.rollback()
        c.read_only = True
        c.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        with c.cursor("reads") as cur:
            cur.execute("select id from p order by id desc")
            print(cur.fetchone(), c.execute("show transaction_isolation").fetchone())
            try:
                c.execute("delete from p")
            except psycopg.errors.ReadOnlySqlTransaction as e:
                print(e.diag.sqlstate)
        c.rollback()


def copies(c):
    c.execute("create table k(id int, v text, n numeric)")
    with c.cursor().copy("copy k from stdin") as copy:
        for i in range(20000):
            copy.write_row((i, f"line {i}\n\ttab", None if i % 5 else i))
    print(c.execute("select count(*), count(n), sum(length(v)) from k").fetchone())
    with c.cursor().copy("copy k from stdin (format binary)") as copy:
        copy.set_types(["int4", "text", "numeric"])
        for i in range(1000):
            copy.write_row((50000 + i, "b", i))
    with c.cursor().copy("copy (select * from k where id >= 50000 order by id) to stdout (format binary)") as copy:
        copy.set_types(["int4", "text", "numeric"])
        print(sum(row[2] for row in copy.rows()))
    with psycopg.connect() as other, c.cursor().copy("copy k to stdout") as out:
        other.execute("create table k2(like k)")
        with other.cursor().copy("copy k2 from stdin") as into:
            for data in out:
                into.write(data)
        print(other.execute("select count(*) from k2").fetchone())
    try:
        with c.cursor().copy("copy k from stdin") as copy:
            copy.write_row((1, "x", 1))
            raise KeyError
    except KeyError:
        print(c.execute("select count(*) from k").fetchone())
    try:
        with c.cursor().copy("copy k from stdin") as copy:
            for i in range(10000):
                copy.write_row(("no number", "x", 1))
    except psycopg.errors.InvalidTextRepresentation as e:
        print(e.diag.sqlstate)
    print(c.execute("select count(*) from k").fetchone())


def notifications():
    with psycopg.connect(autocommit=True) as listener, psycopg.connect(autocommit=True) as c:
        listener.execute("listen news")
        for i in range(3):
            c.execute("select pg_notify('news', %s)", (f"n{i}",))
        with c.transaction():
            c.execute("notify news, 'committed'")
        with c.transaction(force_rollback=True):
            c.execute("notify news, 'rolled back'")
        print([n.payload for n in listener.notifies(timeout=20, stop_after=4)])
        settled(c)
        print(listener.execute("select count(*) from p where id < 10").fetchone())
        c.execute("notify news, 'again'")
        print([n.payload for n in listener.notifies(timeout=20, stop_after=1)])
        listener.execute("unlisten news")
        c.execute("notify news, 'nobody'")
        print([n.payload for n in listener.notifies(timeout=0.2)])


def cancels(c):
    timer = threading.Timer(0.3, c.cancel)
    timer.start()
    try:
        c.execute("select pg_sleep(60)")
    except psycopg.errors.QueryCanceled as e:
        print(e.diag.sqlstate)
    timer.join()
    threading.Timer(0.3, c.cancel_safe).start()
    try:
        c.execute("update p set v = pg_sleep(60)::text where id = 3")
    except psycopg.errors.QueryCanceled as e:
        print(e.diag.sqlstate)
    c.execute("set statement_timeout = 100")
    try:
        c.execute("select count(*) from generate_series(1, 1000000000)")
    except psycopg.errors.QueryCanceled as e:
        print(e.diag.sqlstate)
    c.execute("reset statement_timeout")
    notices = []
    c.add_notice_handler(lambda d: notices.append((d.severity_nonlocalized, d.message_primary)))
    c.execute("do $$ begin raise notice 'said %', 1; raise warning 'loud'; end $$")
    c.execute("drop table if exists not_there")
    print(notices)


async def asynchronous():
    async with await psycopg.AsyncConnection.connect(autocommit=True, prepare_threshold=0) as c:
        await c.execute("create table a(id int primary key, v text)")
        async with c.pipeline():
            for i in range(200):
                await c.execute("insert into a values (%s, %s)", (i, f"v{i}"))
            cur = await c.execute("select count(*) from a")
            print(await cur.fetchone())
        async with c.transaction():
            async with c.cursor("named") as cur:
                await cur.execute("select id from a order by id")
                print(sum([row[0] async for row in cur]))
        async with c.cursor().copy("copy a from stdin") as copy:
            for i in range(1000, 3000):
                await copy.write_row((i, "c"))
        async with c.cursor().copy("copy a to stdout") as copy:
            print(len([row async for row in copy.rows()]))
        task = asyncio.create_task(c.execute("select pg_sleep(60)"))
        await asyncio.sleep(0.3)
        task.cancel()
        try:
            await task
        except (asyncio.CancelledError, psycopg.errors.QueryCanceled):
            print("cancelled")
        print(c.info.transaction_status.name, await (await c.execute("select 1")).fetchone())
    async with AsyncConnectionPool(min_size=2, max_size=6, kwargs={"prepare_threshold": 0}) as pool:
        async def one(i):
            async with pool.connection() as c:
                await c.execute("update a set v = %s where id = %s", (f"own{i}", i))
            async with pool.connection() as c, c.transaction():
                await c.execute("insert into a values (%s, 'pool')", (5000 + i,))
                return (await (await c.execute("select v from a where id = %s", (5000 + i,))).fetchone())[0]
        print(set(await asyncio.gather(*[one(i) for i in range(100)])))
        async with pool.connection() as c:
            print(await (await c.execute("update a set v = v where v like 'own%' or v = 'pool' returning 1")).fetchall()
                  == [(1,)] * 200)


with psycopg.connect(autocommit=True) as connection:
    # Nothing has been written yet: a replica can serve this, however far it lags.
    print(connection.execute("select 0").fetchone())
    prepared(connection)
    pipelines(connection)
    settled(connection)
    cursors()
    copies(connection)
    cancels(connection)
notifications()
asyncio.run(asynchronous())
with ConnectionPool(min_size=1, max_size=2, check=ConnectionPool.check_connection) as pool:
    for i in range(20):
        with pool.connection() as connection:
            connection.execute("update p set v = %s where id = 5", (str(i),))
            assert connection.execute("select v from p where id = 5").fetchone() == (str(i),)
    print("pool done")
