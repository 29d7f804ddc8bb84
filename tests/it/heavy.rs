//! Frameworks, drivers and tools that do as much as a large application: `make test-clients`.

use std::process::Command;

use crate::clients::{node, python, same_both_ways};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn sqlalchemy_and_alembic_notice_nothing() {
    same_both_ways(|| python("heavy"), "heavy/sqlalchemy_script.py", "heavy_sqlalchemy").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn django_notices_nothing() {
    same_both_ways(|| python("heavy"), "heavy/django_script.py", "heavy_django").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn psycopg_notices_nothing() {
    same_both_ways(|| python("heavy"), "heavy/psycopg_script.py", "heavy_psycopg").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn knex_notices_nothing() {
    same_both_ways(|| node("heavy"), "heavy/knex_script.js", "heavy_knex").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn prisma_notices_nothing() {
    same_both_ways(|| node("heavy"), "heavy/prisma_script.js", "heavy_prisma").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn sqlx_notices_nothing() {
    let cargo = || {
        let mut cargo = Command::new("cargo");
        let target = concat!(env!("CARGO_TARGET_TMPDIR"), "/heavy/sqlx");
        cargo.args(["run", "--quiet", "--locked", "--target-dir", target, "--manifest-path"]);
        cargo
    };
    same_both_ways(cargo, "heavy/sqlx/Cargo.toml", "heavy_sqlx").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn pgjdbc_notices_nothing() {
    let java = || {
        let mut java = Command::new("java");
        let jar = std::env::var_os("TEST_PGJDBC").unwrap_or_else(|| "/usr/share/java/postgresql.jar".into());
        java.arg("-cp").arg(jar);
        java
    };
    same_both_ways(java, "heavy/Jdbc.java", "heavy_pgjdbc").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "heavy: make test-clients"]
async fn psql_pg_dump_and_pg_restore_notice_nothing() {
    same_both_ways(|| Command::new("bash"), "heavy/psql_script.sh", "heavy_psql").await;
}
