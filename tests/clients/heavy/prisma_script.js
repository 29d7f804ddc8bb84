// Prisma: its migrations and its client, neither of them with an engine that has to be fetched. Prints what it sees.
const { execFileSync } = require("child_process");
const fs = require("fs");
const os = require("os");
const path = require("path");
const { Client } = require("pg");

const files = {
  "schema.prisma": `
    generator client {
      provider   = "prisma-client-js"
      engineType = "client"
      output     = "./client"
    }
    datasource db {
      provider = "postgresql"
      url      = "postgresql://the-adapter-knows"
    }
    enum Mood {
      good
      bad
    }
    model Author {
      id    Int    @id @default(autoincrement())
      name  String @unique
      books Book[]
    }
    model Book {
      id       BigInt   @id @default(autoincrement())
      title    String
      author   Author   @relation(fields: [authorId], references: [id], onDelete: Cascade)
      authorId Int
      mood     Mood     @default(good)
      price    Decimal  @default(0) @db.Decimal(8, 2)
      meta     Json     @default("{}")
      tags     String[]
      blob     Bytes?
      key      String   @default(uuid()) @db.Uuid
      at       DateTime @default("2020-01-01T00:00:00Z") @db.Timestamptz(3)
      @@index([title])
    }`,
  "migrations/migration_lock.toml": `provider = "postgresql"`,
  "migrations/001_author/migration.sql": `
    create table "Author" ("id" serial primary key, "name" text not null);
    create unique index "Author_name_key" on "Author"("name");
    insert into "Author"("name") select 'seed' || n from generate_series(1, 3) n;`,
  "migrations/002_book/migration.sql": `
    create type "Mood" as enum ('good', 'bad');
    create table "Book" (
      "id" bigserial primary key, "title" text not null, "authorId" integer not null, "mood" "Mood" not null default 'good',
      "price" decimal(8,2) not null default 0, "meta" jsonb not null default '{}', "tags" text[], "blob" bytea,
      "key" uuid not null, "at" timestamptz(3) not null default '2020-01-01 00:00:00 +00:00');
    create index "Book_title_idx" on "Book"("title");
    alter table "Book" add constraint "Book_authorId_fkey" foreign key ("authorId") references "Author"("id")
      on delete cascade on update cascade;`,
  // The engine of the migrations asks for columns of the type "name", which the adapter does not know.
  "prisma.config.mjs": `
    import pg from "pg";
    import { PrismaPg } from "@prisma/adapter-pg";
    class Pool extends pg.Pool {
      async query(...asked) {
        const result = await super.query(...asked);
        for (const field of [result].flat().flatMap((r) => r.fields)) if (field.dataTypeID === 19) field.dataTypeID = 25;
        return result;
      }
    }
    // What watches over the advisory lock for 10 s would keep the process for as long, even if all is done.
    const { setTimeout } = globalThis;
    globalThis.setTimeout = (...asked) => setTimeout(...asked).unref();
    const adapter = async () => new PrismaPg(new Pool({ max: 1, allowExitOnIdle: true }));
    export default { schema: "schema.prisma", migrations: { path: "migrations" }, experimental: { adapter: true }, engine: "js", adapter };`,
};

const folder = fs.mkdtempSync(path.join(os.tmpdir(), "prisma-"));
process.on("exit", () => fs.rmSync(folder, { recursive: true }));
const write = (name, text) => {
  fs.mkdirSync(path.dirname(path.join(folder, name)), { recursive: true });
  fs.writeFileSync(path.join(folder, name), text);
};
for (const [name, text] of Object.entries(files)) write(name, text);
fs.symlinkSync(process.env.NODE_PATH, path.join(folder, "node_modules"));

const cli = [path.join(process.env.NODE_PATH, "prisma/build/index.js")];
const options = { cwd: folder, encoding: "utf8", env: { ...process.env, CHECKPOINT_DISABLE: "1", PRISMA_HIDE_UPDATE_MESSAGE: "1" } };
const said = (text) => text.replace(/\d{4}-\S+ \S+ UTC/g, "then").split("\n").map((l) => l.trim()).filter((l) => /migration|applied|database|error|code|reason/i.test(l));
// Waits until the standbys have replayed all: what another session has written is not promised to be seen at once.
const settled = async () => {
  const client = new Client();
  await client.connect();
  await client.query(`do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin
    while exists (select from pg_stat_replication where replay_lsn is null or replay_lsn < here) loop perform pg_sleep(0.005); end loop;
  end $$`);
  await client.end();
};
const prisma = async (...words) => {
  await settled();
  try {
    console.log(words, said(execFileSync(process.execPath, [...cli, ...words], { ...options, stdio: "pipe" })));
  } catch (e) { console.log(words, "failed", e.status, said(e.stdout), said(e.stderr)); }
};

async function migrate() {
  await prisma("migrate", "status");
  await prisma("migrate", "deploy");
  await prisma("migrate", "deploy");
  write("migrations/003_broken/migration.sql", `insert into "Author"("name") values ('broken'); select 1/0;`);
  await prisma("migrate", "deploy");
  await prisma("migrate", "deploy");
  // "migrate resolve" does the same, but by the engine that would have to be fetched.
  const client = new Client();
  await client.connect();
  const resolved = await client.query("update _prisma_migrations set rolled_back_at = now() where finished_at is null");
  console.log(resolved.rowCount);
  await client.end();
  write("migrations/003_broken/migration.sql", `insert into "Author"("name") values ('mended'); select 1/1;`);
  await prisma("migrate", "deploy");
  await prisma("migrate", "status");
}

async function work() {
  execFileSync(process.execPath, [...cli, "generate"], { ...options, stdio: "pipe" });
  const { PrismaPg } = require("@prisma/adapter-pg");
  const { Prisma, PrismaClient } = require(path.join(folder, "client"));
  const db = new PrismaClient({ adapter: new PrismaPg({ max: 5 }) });
  await settled();
  console.log(await db.author.findMany({ orderBy: { id: "asc" } }));
  console.log(await db.$queryRaw`select migration_name, applied_steps_count, rolled_back_at is null as kept from _prisma_migrations order by started_at`);

  const author = await db.author.create({
    data: { name: "a", books: { create: [...Array(3).keys()].map((n) => ({ title: `a${n}`, tags: [`t${n}`, "all"], meta: { n }, price: n / 4 })) } },
    select: { name: true, books: { select: { title: true, tags: true, meta: true, price: true, at: true }, orderBy: { title: "asc" } } },
  });
  console.log(JSON.stringify(author));
  const { id: a } = await db.author.findUniqueOrThrow({ where: { name: "a" } });
  console.log(await db.book.createMany({ data: [...Array(1000).keys()].map((n) => ({
    title: `b${n}`, authorId: a, mood: n % 2 ? "bad" : "good", price: n / 4, meta: { pages: n, odd: n % 2 === 1 },
    blob: new Uint8Array([n % 256, 0]), at: new Date(Date.UTC(2021, 0, 1 + n % 28)) })) }));
  console.log(await db.book.aggregate({ _count: true, _sum: { price: true }, _max: { at: true }, where: { mood: "bad" } }));
  console.log(await db.book.groupBy({ by: ["mood"], _count: true, orderBy: { mood: "asc" } }));
  console.log(await db.book.findMany({ where: { meta: { path: ["pages"], gt: 996 } }, select: { title: true, blob: true }, orderBy: { title: "asc" } }));
  console.log(await db.book.count({ where: { tags: { has: "all" } } }), await db.book.count({ where: { author: { name: { startsWith: "A", mode: "insensitive" } } } }));
  let cursor, pages = 0;
  for (;;) {
    const page = await db.book.findMany({ take: 150, orderBy: { id: "asc" }, ...(cursor && { cursor: { id: cursor }, skip: 1 }) });
    if (!page.length) break;
    cursor = page.at(-1).id;
    pages++;
  }
  console.log(pages);
  console.log(await db.author.upsert({ where: { name: "u" }, create: { name: "u" }, update: { name: "u2" }, select: { name: true } }));
  console.log(await db.author.upsert({ where: { name: "u" }, create: { name: "u" }, update: { name: "u2" }, select: { name: true } }));
  console.log(await db.book.updateManyAndReturn({ where: { title: { in: ["b1", "b2"] } }, data: { price: { increment: 1 } }, select: { title: true, price: true } })
    .then((rows) => JSON.stringify(rows.sort((x, y) => x.title.localeCompare(y.title)))));
  await db.author.create({ data: { name: "a" } }).catch((e) => console.log(e.code, e.meta.modelName));
  await db.book.create({ data: { title: "x", authorId: -1 } }).catch((e) => console.log(e.code));
  await db.$queryRaw`select 1/0`.catch((e) => console.log(e.code));
  // A connection with an error leaves the pool, so the next one is another session.
  await settled();
  console.log(await db.$queryRaw`select ${1}::int + ${2}::int as sum, ${"it's"} as text, ${[1, 2]}::int[] as list`);
  console.log(await db.$queryRawUnsafe("select count(*) from \"Book\" where title like $1", "b1%"));
  console.log(await db.$executeRaw`update "Book" set mood = 'bad' where title = ${"b4"}`);

  // Transactions: a list, interactive ones, of which some end badly, and at levels.
  console.log((await db.$transaction([db.author.create({ data: { name: "list" } }), db.author.count()]))[1]);
  await db.$transaction([db.author.create({ data: { name: "lost" } }), db.author.create({ data: { name: "a" } })]).catch((e) => console.log(e.code));
  console.log(await db.$transaction(async (t) => {
    await t.author.create({ data: { name: "interactive" } });
    return [await t.author.count({ where: { name: "interactive" } }), await db.author.count({ where: { name: "interactive" } })];
  }));
  await db.$transaction(async (t) => {
    await t.book.deleteMany();
    console.log(await t.book.count());
    throw new Error("no");
  }).catch((e) => console.log(e.message));
  console.log(await db.book.count());
  for (const isolationLevel of Object.values(Prisma.TransactionIsolationLevel))
    console.log(await db.$transaction((t) => t.$queryRaw`show transaction_isolation`, { isolationLevel }));
  await db.$transaction(async (one) => {
    await one.$queryRaw`select 1 from "Book" where title = 'b0' for update`;
    await db.$transaction((two) => two.$queryRaw`select 1 from "Book" where title = 'b0' for update nowait`).catch((e) => console.log(e.code));
  });

  // Its own writes are there at once, wherever a pool of one connection sends the read.
  const single = new PrismaClient({ adapter: new PrismaPg({ max: 1 }) });
  let missing = 0;
  for (let n = 0; n < 60; n++) {
    const { id } = await single.author.create({ data: { name: `alone${n}` } });
    if (!(await single.author.findUnique({ where: { id } }))) missing++;
  }
  console.log("missing", missing, await single.author.deleteMany({ where: { name: { startsWith: "alone" } } }));
  await single.$disconnect();

  await settled();
  console.log((await Promise.all([...Array(80).keys()].map((n) => db.book.count({ where: { price: n / 4 } })))).reduce((x, y) => x + y));
  await Promise.all([...Array(20).keys()].map(() => db.$transaction((t) =>
    t.book.updateMany({ where: { title: "b7" }, data: { price: { increment: 1 } } }), { maxWait: 60_000, timeout: 60_000 })));
  // In a transaction, for another session of the pool than this one may have written last.
  console.log(await db.$transaction(async (t) => (await t.book.findFirst({ where: { title: "b7" } })).price.toString()));
  console.log(await db.author.delete({ where: { name: "a" }, select: { name: true } }), await db.book.count());
  await db.$disconnect();
}

migrate().then(work).catch((e) => { console.error(e); process.exit(1); });
