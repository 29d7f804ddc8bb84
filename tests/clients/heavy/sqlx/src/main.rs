//! sqlx: migrations up and down, then an application's work. Prints what it sees.

use std::borrow::Cow;
use std::error::Error;

use futures_util::future::{join_all, try_join_all};
use futures_util::{StreamExt, TryStreamExt};
use sqlx::migrate::Migrator;
use sqlx::postgres::{PgConnectOptions, PgListener, PgPool, PgPoolCopyExt, PgPoolOptions};
use sqlx::types::chrono::{DateTime, NaiveDate, NaiveDateTime, NaiveTime, Utc};
use sqlx::types::{BigDecimal, Json, Uuid};
use sqlx::{
    AssertSqlSafe, Column, Connection, Executor, PgConnection, Row, TypeInfo, query, query_as, query_scalar,
};

type Done = Result<(), Box<dyn Error>>;

static MIGRATOR: Migrator = sqlx::migrate!();

fn code(error: &sqlx::Error) -> Cow<'_, str> {
    match error.as_database_error().and_then(|e| e.code()) {
        Some(code) => code,
        None => Cow::Owned(format!("{error:?}")),
    }
}

fn failure<T>(result: Result<T, sqlx::Error>) -> String {
    result.err().map_or("nothing".into(), |e| code(&e).into_owned())
}

async fn pool(size: u32) -> Result<PgPool, sqlx::Error> {
    PgPoolOptions::new().max_connections(size).connect_with(PgConnectOptions::new()).await
}

/// Waits until the standbys have replayed all: what another session has written is not promised to be seen at once.
async fn settled(pool: &PgPool) -> Done {
    let wait = "do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin
        while exists (select from pg_stat_replication where replay_lsn is null or replay_lsn < here) loop
            perform pg_sleep(0.005); end loop; end $$";
    query(wait).execute(pool).await?;
    Ok(())
}

async fn migrations() -> Done {
    // At the same time: each waits for the advisory lock of the one before. An index that is built concurrently would
    // wait for those in turn, so it comes alone.
    let pools = try_join_all([1, 1, 2, 3].map(pool)).await?;
    for ended in join_all(pools.iter().map(|p| MIGRATOR.run_to(2, p))).await {
        println!("{ended:?}");
    }
    let pool = &pools[0];
    for _ in 0..2 {
        println!("{:?}", MIGRATOR.run(pool).await);
        println!("{:?}", MIGRATOR.run(pool).await);
        let applied: Vec<(i64, String, bool)> =
            query_as("select version, description, success from _sqlx_migrations order by 1")
                .fetch_all(pool)
                .await?;
        println!("{applied:?}");
        println!(
            "{:?}",
            query_as::<_, (i32, String)>("select * from author order by id").fetch_all(pool).await?
        );
        println!("{:?}", MIGRATOR.undo(pool, 1).await);
        println!("{}", failure(query("select count(*) from book").execute(pool).await));
        println!("{:?}", MIGRATOR.undo(pool, 0).await);
        println!(
            "{:?}",
            query_scalar::<_, bool>("select to_regclass('author') is null").fetch_one(pool).await?
        );
    }
    MIGRATOR.run(pool).await?;
    query("update _sqlx_migrations set checksum = '' where version = 2").execute(pool).await?;
    println!("{:?}", MIGRATOR.run(pool).await.map_err(|e| e.to_string()));
    query("delete from _sqlx_migrations where version > 1").execute(pool).await?;
    println!("{:?}", MIGRATOR.run(pool).await.map_err(|e| e.to_string()));
    query("drop type mood cascade").execute(pool).await?;
    println!("{:?}", MIGRATOR.run(pool).await.map_err(|e| e.to_string()));
    query("drop table book").execute(pool).await?;
    query("delete from author where name like 'from a block%'").execute(pool).await?;
    MIGRATOR.run(pool).await?;
    // Migrations that failed have kept their lock.
    let locks = "select count(*) from pg_locks join pg_database d on d.oid = database
        where locktype = 'advisory' and datname = current_database()";
    println!("{}", query_scalar::<_, i64>(locks).fetch_one(pool).await?);
    join_all(pools.iter().map(PgPool::close)).await;
    Ok(())
}

#[derive(Debug, sqlx::FromRow)]
struct Book {
    title: String,
    mood: Mood,
    price: BigDecimal,
}

#[derive(Debug, Clone, Copy, PartialEq, sqlx::Type)]
#[sqlx(type_name = "mood", rename_all = "lowercase")]
enum Mood {
    Good,
    Bad,
}

async fn queries(c: &mut PgConnection) -> Done {
    for n in 0..200 {
        let id: i32 = query_scalar("insert into author(name) values ($1) returning id")
            .bind(format!("a{n}"))
            .fetch_one(&mut *c)
            .await?;
        let name: String =
            query_scalar("select name from author where id = $1").bind(id).fetch_one(&mut *c).await?;
        assert_eq!(name, format!("a{n}"));
        query("insert into book(author, title, mood, price) values ($1, $2, $3, $4)")
            .bind(id)
            .bind(format!("b{n}"))
            .bind(if n % 2 == 0 { Mood::Good } else { Mood::Bad })
            .bind(BigDecimal::from(n) / 4)
            .execute(&mut *c)
            .await?;
    }
    let books: Vec<Book> =
        query_as("select title, mood, price from book where mood = $1 and price > $2 order by id limit 3")
            .bind(Mood::Bad)
            .bind(BigDecimal::from(10))
            .fetch_all(&mut *c)
            .await?;
    println!("{books:?}");
    for book in &books {
        println!("{} {:?} {}", book.title, book.mood, book.price);
    }
    println!(
        "{}",
        query("update book set price = price + $1")
            .bind(BigDecimal::from(1))
            .execute(&mut *c)
            .await?
            .rows_affected()
    );
    println!("{:?}", query_scalar::<_, BigDecimal>("select sum(price) from book").fetch_one(&mut *c).await?);
    println!("{:?}", query("select 1 where $1").bind(false).fetch_optional(&mut *c).await?.is_none());
    println!("{}", failure(query("insert into author(name) values ('a1')").execute(&mut *c).await));
    println!("{}", failure(query("insert into book(author, title) values (-1, 'x')").execute(&mut *c).await));
    println!("{}", failure(query("select nonsense from book").execute(&mut *c).await));
    println!("{}", failure(query_scalar::<_, i32>("select 1 / $1").bind(0).fetch_one(&mut *c).await));
    // Without preparing anything, and by the simple protocol, in which several go at once.
    println!(
        "{}",
        query("select $1::int + 1 as n")
            .bind(1)
            .persistent(false)
            .fetch_one(&mut *c)
            .await?
            .get::<i32, _>("n")
    );
    let mut several =
        sqlx::raw_sql("select 1 as n; insert into author(name) values ('raw'); select 2 as n; select 3 as n")
            .fetch(&mut *c);
    while let Some(row) = several.try_next().await? {
        print!("{} ", row.get::<i32, _>("n"));
    }
    drop(several);
    println!("{}", failure(c.execute("insert into author(name) values ('lost'); select 1/0").await));
    println!(
        "{:?}",
        query_as::<_, (String,)>("select name from author where name in ('raw', 'lost')")
            .fetch_all(&mut *c)
            .await?
    );
    // More statements than the driver keeps.
    let mut sum = 0;
    for _ in 0..3 {
        for n in 0..150 {
            sum += query_scalar::<_, i32>(AssertSqlSafe(format!("select {n} + $1")))
                .bind(1)
                .fetch_one(&mut *c)
                .await?;
        }
    }
    println!("{sum} {}", c.cached_statements_size());
    c.clear_cached_statements().await?;
    println!(
        "{} {}",
        c.cached_statements_size(),
        query_scalar::<_, i64>("select count(*) from book").fetch_one(&mut *c).await?
    );
    let described = c
        .describe(sqlx::SqlStr::from_static("select id, title, mood, price from book where author = $1"))
        .await?;
    for column in described.columns() {
        println!("{} {}", column.name(), column.type_info().name());
    }
    c.ping().await?;

    // A plan that a changed table makes wrong.
    query("create table shape(n int)").execute(&mut *c).await?;
    println!("{}", query("select * from shape").fetch_all(&mut *c).await?.len());
    query("alter table shape add column m int default 5").execute(&mut *c).await?;
    println!("{}", failure(query("select * from shape").fetch_all(&mut *c).await));
    c.clear_cached_statements().await?;
    println!("{}", query("select * from shape").fetch_all(&mut *c).await?.len());

    // Settings go with their session.
    query("set work_mem = '3MB'").execute(&mut *c).await?;
    println!("{}", query_scalar::<_, String>("show work_mem").fetch_one(&mut *c).await?);
    println!("{}", query_scalar::<_, String>("select current_setting('work_mem')").fetch_one(&mut *c).await?);
    query("reset work_mem").execute(&mut *c).await?;
    Ok(())
}

async fn types(c: &mut PgConnection) -> Done {
    type Kept = (
        Uuid,
        Json<Vec<Option<i32>>>,
        Vec<String>,
        DateTime<Utc>,
        NaiveDateTime,
        NaiveDate,
        NaiveTime,
        Vec<u8>,
        f64,
    );
    let columns = "u uuid primary key, j jsonb, l text[], z timestamptz, t timestamp, d date, c time, b bytea, f float8";
    query(AssertSqlSafe(format!("create table kept({columns})"))).execute(&mut *c).await?;
    let day = NaiveDate::from_ymd_opt(2024, 2, 29).ok_or("no such day")?;
    let time = NaiveTime::from_hms_micro_opt(23, 59, 59, 123_456).ok_or("no such time")?;
    let ids: Vec<Uuid> = (0..50).map(Uuid::from_u128).collect();
    for (n, id) in ids.iter().enumerate() {
        let kept: Kept = query_as("insert into kept values ($1, $2, $3, $4, $5, $6, $7, $8, $9) returning *")
            .bind(id)
            .bind(Json(vec![Some(n as i32), None]))
            .bind(vec![format!("it's {n}"), "{\"quoted\", ü}".into()])
            .bind(day.and_time(time).and_utc())
            .bind(day.and_time(time))
            .bind(day)
            .bind(time)
            .bind(vec![n as u8; n * 1000])
            .bind(1.0 / n as f64)
            .fetch_one(&mut *c)
            .await?;
        let read: Kept = query_as("select * from kept where u = $1").bind(id).fetch_one(&mut *c).await?;
        assert_eq!(read, kept);
        assert_eq!(read.7.len(), n * 1000);
    }
    let kept: Kept = query_as("select * from kept where f = 'infinity'").fetch_one(&mut *c).await?;
    println!("{kept:?}");
    println!(
        "{:?}",
        query_scalar::<_, i64>("select count(*) from kept where u = any($1)")
            .bind(&ids[7..21])
            .fetch_one(&mut *c)
            .await?
    );
    println!(
        "{:?}",
        query_scalar::<_, Json<i32>>("select j -> 0 from kept where j @> $1")
            .bind(Json([3]))
            .fetch_one(&mut *c)
            .await?
            .0
    );
    println!(
        "{:?}",
        query_scalar::<_, Vec<Mood>>("select $1")
            .bind(vec![Mood::Good, Mood::Bad])
            .fetch_one(&mut *c)
            .await?
    );
    println!(
        "{:?}",
        query_scalar::<_, (i32, String)>("select row(1, 'one'::text)").fetch_one(&mut *c).await?
    );
    let unnested = query("insert into author(name) select * from unnest($1::text[])")
        .bind((0..5000).map(|n| format!("u{n}")).collect::<Vec<_>>())
        .execute(&mut *c)
        .await?;
    println!("{}", unnested.rows_affected());
    println!(
        "{:?}",
        query_as::<_, (Option<i32>, Option<Uuid>)>("select null::int, null::uuid").fetch_one(&mut *c).await?
    );
    Ok(())
}

async fn transactions(c: &mut PgConnection) -> Done {
    let names = "select name from author where name like 't %' order by name";
    let mut outer = c.begin().await?;
    query("insert into author(name) values ('t outer')").execute(&mut *outer).await?;
    let mut kept = outer.begin().await?;
    query("insert into author(name) values ('t kept')").execute(&mut *kept).await?;
    let mut lost = kept.begin().await?;
    query("insert into author(name) values ('t lost')").execute(&mut *lost).await?;
    println!("{:?}", query_scalar::<_, String>(names).fetch_all(&mut *lost).await?);
    println!("{}", failure(query("insert into author(name) values ('t kept')").execute(&mut *lost).await));
    println!("{}", failure(query("select 1").execute(&mut *lost).await));
    lost.rollback().await?;
    println!("{:?}", query_scalar::<_, String>(names).fetch_all(&mut *kept).await?);
    kept.commit().await?;
    let mut dropped = outer.begin().await?;
    query("insert into author(name) values ('t dropped')").execute(&mut *dropped).await?;
    drop(dropped);
    println!("{:?}", query_scalar::<_, String>(names).fetch_all(&mut *outer).await?);
    outer.commit().await?;
    println!("{:?}", query_scalar::<_, String>(names).fetch_all(&mut *c).await?);

    let mut dropped = c.begin().await?;
    query("delete from author where name like 't %'").execute(&mut *dropped).await?;
    drop(dropped);
    println!("{:?}", query_scalar::<_, String>(names).fetch_all(&mut *c).await?);
    let mut refused = c.begin_with("begin isolation level repeatable read read only").await?;
    println!("{}", query_scalar::<_, String>("show transaction_isolation").fetch_one(&mut *refused).await?);
    println!("{:?}", query_scalar::<_, String>(names).fetch_all(&mut *refused).await?);
    println!("{}", failure(query("delete from author").execute(&mut *refused).await));
    refused.rollback().await?;
    let counted: Result<i64, sqlx::Error> = c
        .transaction(|t| {
            Box::pin(async move {
                query("insert into author(name) values ('t closure')").execute(&mut **t).await?;
                query_scalar("select count(*) from author where name like 't %'").fetch_one(&mut **t).await
            })
        })
        .await;
    println!("{counted:?}");
    println!("{}", query("delete from author where name like 't %'").execute(&mut *c).await?.rows_affected());
    Ok(())
}

async fn streams(c: &mut PgConnection) -> Done {
    let mut rows =
        query_scalar::<_, i32>("select n from generate_series(1, $1) n").bind(100_000).fetch(&mut *c);
    let mut sum = 0i64;
    while let Some(n) = rows.try_next().await? {
        sum += i64::from(n);
    }
    drop(rows);
    println!("{sum}");
    // Left early: the rest is read away before the next query.
    let first: Vec<_> = query_scalar::<_, i32>("select n from generate_series(1, 50000) n")
        .fetch(&mut *c)
        .take(3)
        .collect()
        .await;
    println!("{:?}", first.into_iter().collect::<Result<Vec<_>, _>>()?);
    println!("{}", query_scalar::<_, i64>("select count(*) from book").fetch_one(&mut *c).await?);
    let mut rows =
        query_scalar::<_, i32>("select 1 / (500 - n) from generate_series(1, 1000) n").fetch(&mut *c);
    let (mut seen, mut error) = (0, None);
    while let Some(row) = rows.next().await {
        match row {
            Ok(_) => seen += 1,
            Err(e) => error = Some(code(&e).into_owned()),
        }
    }
    drop(rows);
    println!("{seen} {error:?}");
    let mut results = sqlx::raw_sql(
        "update book set price = price + 1 where price < 3 returning title; select 1; analyze book",
    )
    .fetch_many(&mut *c);
    let (mut rows, mut affected) = (0, 0);
    while let Some(part) = results.try_next().await? {
        match part {
            sqlx::Either::Left(done) => affected += done.rows_affected(),
            sqlx::Either::Right(_) => rows += 1,
        }
    }
    println!("{rows} {affected}");
    Ok(())
}

async fn copies(c: &mut PgConnection) -> Done {
    query("create table copied(id int primary key, v text)").execute(&mut *c).await?;
    let mut copy = c.copy_in_raw("copy copied from stdin with (format csv)").await?;
    for part in 0..20 {
        let lines: String = (0..1000).map(|n| format!("{},\"line, {n}\"\n", part * 1000 + n)).collect();
        copy.send(lines.into_bytes()).await?;
    }
    println!("{}", copy.finish().await?);
    println!(
        "{:?}",
        query_as::<_, (i64, i64)>("select count(*), sum(length(v)) from copied").fetch_one(&mut *c).await?
    );
    let mut copy = c.copy_in_raw("copy copied from stdin").await?;
    copy.send(&b"100000\taborted\n"[..]).await?;
    copy.abort("no").await?;
    let mut copy = c.copy_in_raw("copy copied from stdin").await?;
    copy.send(&b"no number\tx\n"[..]).await?;
    println!("{}", failure(copy.finish().await));
    let out: Vec<_> = c
        .copy_out_raw("copy (select * from copied order by id limit 5000) to stdout")
        .await?
        .try_collect()
        .await?;
    println!("{}", out.iter().map(|part| part.len()).sum::<usize>());
    println!(
        "{}",
        c.copy_out_raw("copy (select 1 / (3 - n) from generate_series(1, 5) n) to stdout")
            .await?
            .try_collect::<Vec<_>>()
            .await
            .is_err()
    );
    let mut t = c.begin().await?;
    let mut copy = t.copy_in_raw("copy copied from stdin (format binary)").await?;
    copy.send(&b"PGCOPY\n\xff\r\n\0\0\0\0\0\0\0\0\0\0\x02\0\0\0\x04\0\x0f\0\0\0\0\0\x03bin\xff\xff"[..])
        .await?;
    println!("{}", copy.finish().await?);
    println!(
        "{:?}",
        query_as::<_, (i32, String)>("select * from copied where v = 'bin'").fetch_all(&mut *t).await?
    );
    t.rollback().await?;
    println!("{}", query_scalar::<_, i64>("select count(*) from copied").fetch_one(&mut *c).await?);
    Ok(())
}

async fn notifications(pool: &PgPool) -> Done {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen_all(["news", "weather"]).await?;
    for n in 0..3 {
        query("select pg_notify($1, $2)")
            .bind(["news", "weather"][n % 2])
            .bind(n.to_string())
            .execute(pool)
            .await?;
    }
    let mut t = pool.begin().await?;
    query("notify news, 'rolled back'").execute(&mut *t).await?;
    t.rollback().await?;
    let mut t = pool.begin().await?;
    query("notify news, 'committed'").execute(&mut *t).await?;
    t.commit().await?;
    for _ in 0..4 {
        let heard = listener.recv().await?;
        println!("{} {}", heard.channel(), heard.payload());
    }
    println!("{}", query_scalar::<_, i64>("select count(*) from book").fetch_one(&mut listener).await?);
    listener.unlisten("news").await?;
    query("notify news, 'nobody'").execute(pool).await?;
    query("notify weather, 'somebody'").execute(pool).await?;
    println!("{}", listener.recv().await?.payload());
    println!("{}", query("notify weather, 'myself'").execute(&mut listener).await?.rows_affected());
    println!("{}", listener.recv().await?.payload());
    listener.unlisten_all().await?;
    Ok(())
}

async fn many(pool: &PgPool) -> Done {
    let sums = join_all((0..80).map(|n| async move {
        let id: i32 = query_scalar("insert into author(name) values ($1) returning id")
            .bind(format!("many{n}"))
            .fetch_one(pool)
            .await?;
        let mut c = pool.acquire().await?;
        query("update author set name = name || '!' where id = $1").bind(id).execute(&mut *c).await?;
        let own: String =
            query_scalar("select name from author where id = $1").bind(id).fetch_one(&mut *c).await?;
        let mut t = c.begin().await?;
        query("update book set price = price + 1 where title = 'b7'").execute(&mut *t).await?;
        t.commit().await?;
        Ok::<_, sqlx::Error>(own == format!("many{n}!"))
    }))
    .await;
    println!("{:?}", sums.into_iter().collect::<Result<Vec<_>, _>>()?.into_iter().filter(|own| *own).count());
    // In a transaction, for other sessions than this one have written.
    let mut t = pool.begin().await?;
    println!(
        "{}",
        query_scalar::<_, BigDecimal>("select price from book where title = 'b7'").fetch_one(&mut *t).await?
    );
    println!(
        "{}",
        query("delete from author where name like 'many%!'").execute(&mut *t).await?.rows_affected()
    );
    t.commit().await?;
    println!("{}", pool.copy_in_raw("copy copied from stdin").await?.finish().await?);
    Ok(())
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> Done {
    migrations().await?;
    let pool = pool(6).await?;
    let mut c = PgConnection::connect_with(&PgConnectOptions::new().statement_cache_capacity(100)).await?;
    queries(&mut c).await?;
    types(&mut c).await?;
    transactions(&mut c).await?;
    streams(&mut c).await?;
    copies(&mut c).await?;
    c.close().await?;
    settled(&pool).await?;
    notifications(&pool).await?;
    many(&pool).await?;
    pool.close().await;
    Ok(())
}
