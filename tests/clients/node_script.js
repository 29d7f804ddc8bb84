// node-postgres: what an application does. Prints what it sees.
const { Client, Pool } = require("pg");
const Cursor = require("pg-cursor");

(async () => {
  const c = new Client();
  await c.connect();
  console.log((await c.query("create table t(id int primary key, v text)")).command);
  for (let i = 0; i < 20; i++) await c.query("insert into t values ($1, $2)", [i, `v${i}`]);
  console.log((await c.query("select * from t where id < 3 order by id")).rows);
  for (let i = 0; i < 5; i++)
    console.log((await c.query({ name: "by-id", text: "select v from t where id = $1", values: [i] })).rows[0].v);
  await c.query("begin");
  await c.query("update t set v = 'x' where id = 1");
  console.log((await c.query("select v from t where id = 1")).rows[0].v);
  await c.query("rollback");
  console.log((await c.query("select v from t where id = 1")).rows[0].v);
  try { await c.query("insert into t values (1, 'again')"); } catch (e) { console.log(e.code, e.constraint); }
  try { await c.query("selekt"); } catch (e) { console.log(e.code); }
  const several = await c.query("select 1 as a; select 2 as b");
  console.log(several.map((r) => r.rows[0]));
  const cursor = c.query(new Cursor("select id from t order by id"));
  console.log((await cursor.read(7)).length, (await cursor.read(100)).length);
  await cursor.close();
  await c.query("set timezone to 'Asia/Tokyo'");
  console.log((await c.query("select '2020-01-01 00:00+00'::timestamptz::text as t")).rows[0].t);
  await c.end();
  const pool = new Pool({ max: 4 });
  const all = await Promise.all([...Array(50).keys()].map((i) => pool.query("select $1::int * 2 as n", [i])));
  console.log(all.reduce((sum, r) => sum + r.rows[0].n, 0));
  await pool.end();
})().catch((e) => { console.error(e); process.exit(1); });
