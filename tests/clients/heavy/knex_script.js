// Knex: migrations up and down, then an application's work. Prints what it sees.
const { Client } = require("pg");
const makeKnex = require("knex");

const migrations = {
  "001_author": {
    up: (k) => k.schema.createTable("author", (t) => { t.increments(); t.string("name").notNullable().unique(); }),
    down: (k) => k.schema.dropTable("author"),
  },
  "002_book": {
    up: async (k) => {
      await k.schema.createTable("book", (t) => {
        t.increments();
        t.integer("author_id").references("author.id").onDelete("cascade").index();
        t.text("title").notNullable();
        t.jsonb("meta").defaultTo("{}");
        t.specificType("tags", "text[]");
      });
      await k("author").insert([{ name: "seed1" }, { name: "seed2" }]);
      console.log("in migration", await k("author").count());
    },
    down: async (k) => { await k.schema.dropTable("book"); await k("author").del(); },
  },
  "003_index": {
    config: { transaction: false },
    up: (k) => k.raw("create index concurrently book_title on book(title)"),
    down: (k) => k.raw("drop index concurrently book_title"),
  },
  "004_price": {
    up: (k) => k.schema.alterTable("book", (t) => { t.decimal("price", 8, 2).defaultTo(0); t.check("price >= 0", [], "positive"); }),
    down: (k) => k.schema.alterTable("book", (t) => { t.dropColumn("price"); }),
  },
};
const migrationSource = {
  getMigrations: async () => Object.keys(migrations),
  getMigrationName: (name) => name,
  getMigration: async (name) => migrations[name],
};

// Waits until the standbys have replayed all: what another session has written is not promised to be seen at once.
const settled = (knex) => knex.raw(`do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin
  while exists (select from pg_stat_replication where replay_lsn is null or replay_lsn < here) loop perform pg_sleep(0.005); end loop;
end $$`);

async function migrate(knex) {
  for (let round = 0; round < 2; round++) {
    console.log("up", (await knex.migrate.up())[1]);
    console.log("latest", (await knex.migrate.latest())[1]);
    console.log(await knex.migrate.list().then(([done, open]) => [done.map((m) => m.name), open]));
    console.log(Object.entries(await knex("book").columnInfo()).map(([n, c]) => `${n} ${c.type}`));
    console.log("down", (await knex.migrate.down())[1], await knex.schema.hasColumn("book", "price"));
    console.log("back", (await knex.migrate.rollback(undefined, true))[1], await knex.schema.hasTable("author"));
  }
  console.log("latest", (await knex.migrate.latest())[1], await knex.migrate.currentVersion());
}

async function work(knex) {
  const authors = await knex("author").insert([..."abcde"].map((name) => ({ name }))).returning("*");
  console.log(authors.map((a) => a.name));
  const books = authors.flatMap((a) => [...Array(200).keys()].map((i) =>
    ({ author_id: a.id, title: `${a.name}${i}`, meta: { pages: i, odd: i % 2 === 1 }, tags: [`t${i % 3}`], price: i / 4 })));
  await knex.batchInsert("book", books, 150);
  console.log(await knex("book").join("author", "author.id", "book.author_id").groupBy("author.name")
    .orderBy("author.name").select("author.name").count("* as n").sum("price as worth"));
  console.log(await knex("book").whereJsonPath("meta", "$.pages", ">", 197).count());
  console.log(await knex("book").whereRaw("tags @> ?", [["t1"]]).count());
  console.log(await knex("book").where("title", "like", "a1%").orderBy("id").limit(3).pluck("title"));
  console.log(await knex.with("big", knex("book").where("price", ">", 49)).select("title").from("big").orderBy("title").limit(3));

  // Transactions inside transactions.
  await knex.transaction(async (trx) => {
    await trx("author").insert({ name: "outer" });
    await trx.transaction(async (inner) => { await inner("author").insert({ name: "inner" }); });
    try {
      await trx.transaction(async (inner) => { await inner("author").insert({ name: "lost" }); await inner("author").insert({ name: "a" }); });
    } catch (e) { console.log(e.code, e.constraint); }
    console.log(await trx("author").whereIn("name", ["outer", "inner", "lost"]).orderBy("name").pluck("name"));
  });
  try {
    await knex.transaction(async (trx) => { await trx("book").del(); console.log(await trx("book").count()); throw new Error("no"); });
  } catch (e) { console.log(e.message, await knex("book").count()); }
  await knex.transaction(async (trx) => {
    console.log((await trx.raw("show transaction_isolation")).rows, await trx("book").count());
    try { await trx("book").del(); } catch (e) { console.log(e.code); }
  }, { isolationLevel: "repeatable read", readOnly: true }).catch((e) => console.log("ended with", e.code));
  const trx = await knex.transaction({ isolationLevel: "serializable" });
  console.log((await trx.raw("show transaction_isolation")).rows, trx.isCompleted());
  await trx.commit();
  console.log((await knex.raw("show transaction_isolation")).rows);

  // Locks between two transactions.
  await knex.transaction(async (one) => {
    await one("book").where({ title: "a0" }).forUpdate();
    await knex.transaction(async (two) => {
      console.log(await two("book").whereIn("title", ["a0", "a1", "a2"]).orderBy("id").forUpdate().skipLocked().pluck("title"));
      await two("book").where({ title: "a0" }).forUpdate().noWait();
    }).catch((e) => console.log(e.code));
  });

  // Its own writes are there at once: each transaction pins a connection of the pool, and what is on it is one session.
  for (let i = 0; i < 40; i++)
    await knex.transaction(async (t) => { await t("author").insert({ name: `own${i}` }); });
  const single = makeKnex({ client: "pg", connection: {}, pool: { min: 1, max: 1 } });
  let missing = 0;
  for (let i = 0; i < 60; i++) {
    await single("author").insert({ name: `alone${i}` });
    if (!(await single("author").where({ name: `alone${i}` }).first())) missing++;
  }
  console.log("missing", missing);
  console.log(await single("author").insert({ name: "a" }).onConflict("name").ignore().returning("id"));
  console.log((await single("author").insert({ name: "a" }).onConflict("name").merge().returning("name")));
  console.log(await single("author").where("name", "like", "alone%").update({ name: knex.raw("name || '!'") }));
  console.log(await single("author").where("name", "like", "alone%").del());

  // Streams by a cursor, early ends of them.
  let rows = 0;
  for await (const row of single("book").select("id").orderBy("id").stream({ batchSize: 70, highWaterMark: 70 })) rows++;
  console.log(rows);
  for await (const row of single.raw("select generate_series(1, 100000) as n").stream({ batchSize: 10 })) if (row.n === 55) break;
  console.log(await single("book").count());
  console.log(await single("book").max("price"));
  await single.destroy();

  await settled(knex);
  const all = await Promise.all([...Array(80).keys()].map((i) => knex("book").where("price", i / 4).count("* as n").first()));
  console.log(all.reduce((sum, r) => sum + Number(r.n), 0));
  await Promise.all([...Array(20).keys()].map((i) => knex.transaction(async (t) => {
    await t("book").where({ title: "b7" }).increment("price", 1);
  })));
  await settled(knex);
  console.log(await knex("book").where({ title: "b7" }).select("price"));

  const listener = new Client();
  await listener.connect();
  const heard = new Promise((done) => {
    const payloads = [];
    listener.on("notification", (n) => { payloads.push(n.payload); if (payloads.length === 2) done(payloads); });
  });
  await listener.query("listen news");
  await knex.raw("select pg_notify('news', ?)", ["one"]);
  await knex.transaction((t) => t.raw("notify news, 'two'"));
  console.log(await heard);
  await listener.end();
}

(async () => {
  const knex = makeKnex({ client: "pg", connection: {}, pool: { min: 0, max: 5 }, migrations: { migrationSource } });
  await migrate(knex);
  await work(knex);
  await knex.destroy();
})().catch((e) => { console.error(e); process.exit(1); });
