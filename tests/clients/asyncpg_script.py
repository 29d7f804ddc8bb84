"""asyncpg: what an application does. Prints what it sees."""
import asyncio

import asyncpg


async def main():
    c = await asyncpg.connect()
    print(await c.execute("create table t(id int primary key, v text)"))
    print(await c.executemany("insert into t values ($1, $2)", [(i, f"v{i}") for i in range(100)]))
    print([tuple(r) for r in await c.fetch("select * from t where id < $1 order by id", 3)])
    async with c.transaction():
        print(await c.execute("insert into t values ($1, $2)", 500, "z"))
        print(await c.fetchval("select v from t where id = 500"))
    print(await c.fetchval("select v from t where id = 500"))
    try:
        async with c.transaction():
            await c.execute("delete from t")
            raise KeyError
    except KeyError:
        print(await c.fetchval("select count(*) from t"))
    print(await c.copy_records_to_table("t", records=[(1000 + i, "c") for i in range(1000)]))
    st = await c.prepare("select count(*) from t where v = $1")
    print([await st.fetchval(v) for v in ("c", "z", "nothing")])
    async with c.transaction():
        print(sum([1 async for _ in c.cursor("select * from t")]))
    try:
        await c.fetchval("select 1/$1::int", 0)
    except asyncpg.DivisionByZeroError as e:
        print(e.sqlstate)
    try:
        await c.fetchval("select nonsense")
    except asyncpg.UndefinedColumnError as e:
        print(e.sqlstate)
    print(await c.fetchval("select 5"))
    await c.close()
    async with asyncpg.create_pool(min_size=2, max_size=5) as pool:
        async def one(i):
            async with pool.acquire() as c:
                return await c.fetchval("select $1::int * 2", i)
        print(sum(await asyncio.gather(*[one(i) for i in range(100)])))


asyncio.run(main())
