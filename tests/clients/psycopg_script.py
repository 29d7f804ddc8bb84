"""psycopg 3: what an application does. Prints what it sees."""
import psycopg

with psycopg.connect("", autocommit=True) as c:
    # Nothing has been written yet: a replica can serve this, however far it lags.
    print(c.execute("select 0").fetchone())
    c.execute("create table pt(id int primary key, v text)")
    with c.transaction():
        c.execute("insert into pt values (1, 'a')")
    print(c.execute("select * from pt").fetchall())
    for i in range(12):
        print(c.execute("select v, %s::int from pt where id = %s", (i, 1), prepare=True).fetchone())
    with c.cursor().copy("copy pt from stdin") as copy:
        for i in range(2, 2000):
            copy.write_row((i, "x" * 50))
    print(c.execute("select count(*), min(id), max(id) from pt").fetchone())
    with c.cursor().copy("copy pt to stdout") as copy:
        print(sum(1 for _ in copy.rows()))
    try:
        c.execute("insert into pt values (1, 'again')")
    except psycopg.errors.UniqueViolation as e:
        print(e.diag.sqlstate, e.diag.constraint_name)
    with c.pipeline() as p:
        for i in range(10):
            c.execute("insert into pt values (%s, %s)", (5000 + i, "p"))
        seen = c.execute("select count(*) from pt")
        p.sync()
        print(seen.fetchone())
    try:
        with c.pipeline():
            c.execute("insert into pt values (1, 'again')")
            c.execute("select 1")
    except psycopg.errors.UniqueViolation:
        print("pipeline failed as it should")
    print(c.execute("select 2").fetchone())
    try:
        with c.transaction():
            c.execute("update pt set v = 'lost' where id = 1")
            raise psycopg.Rollback
    except psycopg.Rollback:
        pass
    print(c.execute("select v from pt where id = 1").fetchone())
    c.execute("set timezone to 'Asia/Tokyo'")
    print(c.execute("select '2020-01-01 00:00+00'::timestamptz::text").fetchone(), c.info.timezone)
with psycopg.connect("") as c:
    with c.cursor(name="server_side") as cur:
        cur.execute("select id from pt order by id")
        print(len(cur.fetchmany(100)), len(cur.fetchall()))
    try:
        c.execute("selekt")
    except psycopg.errors.SyntaxError as e:
        print(e.diag.sqlstate)
        c.rollback()
    c.execute("delete from pt where id >= 5000")
    c.commit()
    print(c.execute("select count(*) from pt").fetchone())
