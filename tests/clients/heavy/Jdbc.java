import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.sql.*;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Properties;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.PGStatement;
import org.postgresql.copy.CopyIn;
import org.postgresql.copy.CopyManager;

/** pgjdbc: what an application does. Prints what it sees. */
public class Jdbc {
    static Connection connect(String... options) throws SQLException {
        Properties p = new Properties();
        p.setProperty("user", System.getenv("PGUSER"));
        for (int i = 0; i < options.length; i += 2) p.setProperty(options[i], options[i + 1]);
        return DriverManager.getConnection("jdbc:postgresql://" + System.getenv("PGHOST") + ":"
            + System.getenv("PGPORT") + "/" + System.getenv("PGDATABASE"), p);
    }

    static void say(Object... what) { System.out.println(Arrays.deepToString(what)); }

    static List<List<Object>> rows(ResultSet r) throws SQLException {
        List<List<Object>> all = new ArrayList<>();
        while (r.next()) {
            List<Object> row = new ArrayList<>();
            for (int i = 1; i <= r.getMetaData().getColumnCount(); i++) row.add(String.valueOf(r.getObject(i)));
            all.add(row);
        }
        return all;
    }

    static List<List<Object>> ask(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement(); ResultSet r = s.executeQuery(sql)) { return rows(r); }
    }

    static void run(Connection c, String sql) throws SQLException {
        try (Statement s = c.createStatement()) { s.execute(sql); }
    }

    /** Waits until the standbys have replayed all: what another session has written is not promised to be seen at once. */
    static void settled(Connection c) throws SQLException {
        run(c, "do $$ declare here pg_lsn := pg_current_wal_flush_lsn(); begin while exists (select from pg_stat_replication "
            + "where replay_lsn is null or replay_lsn < here) loop perform pg_sleep(0.005); end loop; end $$");
    }

    interface Body { void run() throws Exception; }

    static void fails(Body body) throws Exception {
        try { body.run(); say("no error"); } catch (SQLException e) { say("error", e.getSQLState()); }
    }

    static void statements(Connection c, boolean simple) throws Exception {
        run(c, "create table t(id serial primary key, v text, n numeric, d date, b bytea, a int[], at timestamptz)");
        try (PreparedStatement s = c.prepareStatement("insert into t(v, n, d, b, a) values (?, ?, ?, ?, ?)",
                Statement.RETURN_GENERATED_KEYS)) {
            for (int i = 0; i < 20; i++) {
                s.setString(1, "v" + i); s.setBigDecimal(2, new java.math.BigDecimal(i).movePointLeft(1));
                s.setDate(3, Date.valueOf("2020-01-02"));
                // Neither can be said in the simple protocol.
                if (simple) { s.setNull(4, Types.BINARY); s.setNull(5, Types.ARRAY); }
                else { s.setBytes(4, new byte[] {0, 1, (byte) i}); s.setArray(5, c.createArrayOf("int4", new Integer[] {i, null})); }
                s.executeUpdate();
                try (ResultSet keys = s.getGeneratedKeys()) { keys.next(); if (keys.getInt(1) != i + 1) say("key", keys.getInt(1)); }
            }
            say(((PGStatement) s).isUseServerPrepare());
        }
        try (PreparedStatement s = c.prepareStatement("select v, n, d, b, a, ?::int from t where id = ?")) {
            for (int i = 1; i <= 20; i++) {
                s.setInt(1, i * 2); s.setInt(2, i);
                try (ResultSet r = s.executeQuery()) {
                    r.next();
                    if (i % 6 == 1) say(r.getString(1), r.getBigDecimal(2), r.getDate(3).toString(), r.getBytes(4), simple ? null : r.getArray(5).getArray(), r.getInt(6));
                }
            }
            say(((PGStatement) s).isUseServerPrepare());
        }
        // A type that changes under a prepared statement.
        try (PreparedStatement s = c.prepareStatement("select v from t where n = ? order by id")) {
            for (int i = 0; i < 12; i++) {
                if (i % 3 == 0) s.setInt(1, 1); else if (i % 3 == 1) s.setDouble(1, 0.5); else s.setNull(1, Types.NUMERIC);
                try (ResultSet r = s.executeQuery()) { if (i > 8) say(rows(r)); }
            }
        }
        // More statements than a cache holds.
        long sum = 0;
        for (int round = 0; round < 7; round++)
            for (int i = 0; i < 300; i++)
                try (PreparedStatement s = c.prepareStatement("select ? + " + i)) {
                    s.setInt(1, round);
                    try (ResultSet r = s.executeQuery()) { r.next(); sum += r.getLong(1); }
                }
        say(sum);
        if (!simple) try (PreparedStatement s = c.prepareStatement("select id, v as named from t where v = ?")) {
            say(s.getParameterMetaData().getParameterTypeName(1), s.getMetaData().getColumnLabel(2), s.getMetaData().getTableName(2).length());
        }
        try (Statement s = c.createStatement()) {
            boolean more = s.execute("select 1; update t set v = v where id < 4; select 'x', 'y'; select ';'");
            StringBuilder all = new StringBuilder();
            while (true) {
                if (more) all.append(rows(s.getResultSet())); else if (s.getUpdateCount() < 0) break; else all.append(s.getUpdateCount());
                more = s.getMoreResults();
            }
            say(all);
        }
        try (Statement s = c.createStatement(ResultSet.TYPE_SCROLL_INSENSITIVE, ResultSet.CONCUR_UPDATABLE);
             ResultSet r = s.executeQuery("select id, v from t order by id")) {
            r.absolute(3); r.updateString(2, "through the result"); r.updateRow();
            r.moveToInsertRow(); r.updateInt(1, 777); r.updateString(2, "inserted"); r.insertRow();
            r.last(); r.previous(); say(r.getRow());
        }
        say(ask(c, "select id, v from t where id in (3, 777) order by id"));
    }

    static void batches(Connection c) throws Exception {
        run(c, "create table b(id int primary key, v text)");
        try (PreparedStatement s = c.prepareStatement("insert into b values (?, ?)")) {
            for (int i = 0; i < 3000; i++) { s.setInt(1, i); s.setString(2, "batch " + i); s.addBatch(); }
            say(Arrays.stream(s.executeBatch()).sum());
            for (int i = 0; i < 10; i++) { s.setInt(1, i == 6 ? 1 : 5000 + i); s.setString(2, "again"); s.addBatch(); }
            try { s.executeBatch(); } catch (BatchUpdateException e) { say(e.getSQLState(), e.getUpdateCounts().length); }
        }
        say(ask(c, "select count(*) from b"));
        c.setAutoCommit(false);
        try (Statement s = c.createStatement()) {
            for (int i = 0; i < 50; i++) s.addBatch("update b set v = 'u' where id % 50 = " + i);
            say(Arrays.stream(s.executeBatch()).sum());
        }
        c.rollback();
        say(ask(c, "select count(*) from b where v = 'u'"));
        c.commit();
        c.setAutoCommit(true);
        try (PreparedStatement s = c.prepareStatement("insert into t(v) values (?)", new String[] {"id"})) {
            for (int i = 0; i < 100; i++) { s.setString(1, "k" + i); s.addBatch(); }
            s.executeBatch();
            List<List<Object>> keys = rows(s.getGeneratedKeys());
            say(keys.size(), keys.get(0).size());
        }
        try (Connection rewriting = connect("reWriteBatchedInserts", "true");
             PreparedStatement s = rewriting.prepareStatement("insert into b values (?, ?)")) {
            for (int i = 0; i < 1000; i++) { s.setInt(1, 10000 + i); s.setString(2, "rewritten"); s.addBatch(); }
            s.executeBatch();
            say(ask(rewriting, "select count(*) from b where v = 'rewritten'"));
        }
    }

    static void cursors(Connection c, boolean simple) throws Exception {
        for (boolean readOnly : new boolean[] {false, true}) {
            c.setReadOnly(readOnly);
            c.setAutoCommit(false);
            try (PreparedStatement s = c.prepareStatement("select id from b where id < ? order by id")) {
                s.setFetchSize(100);
                for (int round = 0; round < 7; round++) {
                    s.setInt(1, 2500);
                    int count = 0;
                    try (ResultSet r = s.executeQuery()) {
                        while (r.next()) if (++count % 1000 == 0) say("at", r.getInt(1), ask(c, "select count(*) from b where id < 10"));
                    }
                    if (round == 6) say(count);
                }
                s.setMaxRows(70);
                say(rows(s.executeQuery()).size());
            }
            try (Statement one = c.createStatement(); Statement two = c.createStatement()) {
                one.setFetchSize(7); two.setFetchSize(11);
                ResultSet a = one.executeQuery("select generate_series(1, 60)"), b = two.executeQuery("select generate_series(101, 160)");
                int sum = 0;
                while (a.next() && b.next()) sum += a.getInt(1) * b.getInt(1);
                say(sum);
            }
            c.commit();
            if (readOnly) fails(() -> run(c, "delete from b"));
            c.rollback();
            c.setAutoCommit(true);
        }
        c.setReadOnly(false);
        run(c, "begin; declare held cursor with hold for select id from b order by id; commit");
        say(ask(c, "fetch 3 from held"), ask(c, "select count(*) from b where id < 5"), ask(c, "fetch 2 from held"));
        run(c, "close held");
        run(c, "create function many(out one refcursor) language plpgsql as $$ begin open one for select id from b order by id limit 5; end $$");
        c.setAutoCommit(false);
        if (!simple) try (CallableStatement s = c.prepareCall("{? = call many()}")) {
            s.registerOutParameter(1, Types.OTHER); s.execute();
            say(rows((ResultSet) s.getObject(1)));
        }
        c.commit();
        c.setAutoCommit(true);
        run(c, "create procedure steps(inout n int) language plpgsql as $$ begin for i in 1..3 loop insert into b values (-i, 'p'); commit; n := n + 1; end loop; end $$");
        try (Connection calls = connect("escapeSyntaxCallMode", "callIfNoReturn"); CallableStatement s = calls.prepareCall("call steps(?)")) {
            s.setInt(1, 40); s.registerOutParameter(1, Types.INTEGER); s.execute(); say(s.getInt(1));
            say(ask(calls, "select count(*) from b where id < 0"));
        }
    }

    static void transactions(Connection c) throws Exception {
        c.setAutoCommit(false);
        run(c, "insert into b values (70000, 'kept')");
        Savepoint one = c.setSavepoint("one");
        run(c, "insert into b values (70001, 'undone')");
        Savepoint two = c.setSavepoint();
        fails(() -> run(c, "insert into b values (70000, 'again')"));
        fails(() -> ask(c, "select 1"));
        c.rollback(two);
        say(ask(c, "select count(*) from b where id >= 70000"));
        c.rollback(one);
        c.releaseSavepoint(one);
        c.commit();
        say(ask(c, "select id, v from b where id >= 70000"));
        c.rollback();
        for (int level : new int[] {Connection.TRANSACTION_SERIALIZABLE, Connection.TRANSACTION_REPEATABLE_READ, Connection.TRANSACTION_READ_COMMITTED}) {
            c.setTransactionIsolation(level);
            say(ask(c, "show transaction_isolation"), c.getTransactionIsolation() == level);
            c.commit();
        }
        c.setReadOnly(true);
        say(ask(c, "show transaction_read_only"));
        fails(() -> run(c, "delete from b"));
        c.rollback();
        c.setReadOnly(false);
        c.setAutoCommit(true);
        say(ask(c, "show transaction_read_only"));
        settled(c);
        try (Connection always = connect("readOnlyMode", "always", "autosave", "always")) {
            always.setReadOnly(true);
            say(ask(always, "show transaction_read_only"), ask(always, "select count(*) from b where id < 100"));
            fails(() -> run(always, "delete from b"));
            always.setReadOnly(false);
            always.setAutoCommit(false);
            run(always, "insert into b values (80000, 'saved')");
            fails(() -> run(always, "insert into b values (80000, 'saved')"));
            always.commit();
            say(ask(always, "select v from b where id = 80000"));
            always.commit();
        }
        try (Connection other = connect()) {
            c.setAutoCommit(false);
            run(c, "update b set v = 'locked' where id = 1");
            fails(() -> ask(other, "select 1 from b where id = 1 for update nowait"));
            c.rollback();
            c.setAutoCommit(true);
            other.setSchema("pg_catalog");
            say(other.getSchema(), other.getCatalog().equals(System.getenv("PGDATABASE")), ask(other, "select count(*) from public.b where id = 1"));
        }
    }

    static void copies(Connection c) throws Exception {
        CopyManager copy = c.unwrap(PGConnection.class).getCopyAPI();
        run(c, "create table c(id int, v text)");
        StringBuilder text = new StringBuilder();
        for (int i = 0; i < 20000; i++) text.append(i).append(",\"line, ").append(i).append("\"\n");
        say(copy.copyIn("copy c from stdin (format csv)", new StringReader(text.toString())));
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        say(copy.copyOut("copy (select * from c order by id) to stdout (format csv)", out), out.size());
        StringWriter some = new StringWriter();
        copy.copyOut("copy (select * from c order by id limit 2) to stdout", some);
        say(some.toString());
        ByteArrayOutputStream binary = new ByteArrayOutputStream();
        say(copy.copyOut("copy c to stdout (format binary)", binary));
        say(copy.copyIn("copy c from stdin (format binary)", new ByteArrayInputStream(binary.toByteArray())));
        fails(() -> copy.copyIn("copy c from stdin", new ByteArrayInputStream("no number\tx\n".getBytes(StandardCharsets.UTF_8))));
        CopyIn in = copy.copyIn("copy c from stdin");
        byte[] line = "1\tnever\n".getBytes(StandardCharsets.UTF_8);
        in.writeToCopy(line, 0, line.length);
        in.cancelCopy();
        say(ask(c, "select count(*) from c"));
        c.setAutoCommit(false);
        say(copy.copyIn("copy c from stdin", new StringReader("90000\tin a transaction\n")));
        say(ask(c, "select v from c where id = 90000"));
        c.rollback();
        c.setAutoCommit(true);
        say(ask(c, "select count(*) from c where id = 90000"));
    }

    static void cancels(Connection c) throws Exception {
        try (PreparedStatement s = c.prepareStatement("select pg_sleep(?)")) {
            s.setQueryTimeout(1);
            s.setInt(1, 60);
            fails(s::executeQuery);
            s.setInt(1, 0);
            s.executeQuery();
        }
        say(ask(c, "select 'alive'"));
        try (Statement s = c.createStatement()) {
            Thread canceller = new Thread(() -> { try { Thread.sleep(300); s.cancel(); } catch (Exception e) { say(e.getMessage()); } });
            canceller.start();
            fails(() -> s.execute("update b set v = pg_sleep(60)::text where id = 3"));
            canceller.join();
        }
        run(c, "set statement_timeout = 100");
        fails(() -> ask(c, "select count(*) from generate_series(1, 1000000000)"));
        run(c, "reset statement_timeout");
        fails(() -> ask(c, "selekt"));
        try (Statement s = c.createStatement()) {
            s.execute("do $$ begin raise warning 'said'; raise notice 'more'; end $$");
            say(s.getWarnings().getMessage(), s.getWarnings().getNextWarning().getMessage());
        }
        say(c.isValid(5));
    }

    static void notifications(Connection c) throws Exception {
        try (Connection listener = connect()) {
            run(listener, "listen news");
            try (PreparedStatement s = c.prepareStatement("select pg_notify('news', ?)")) {
                for (int i = 0; i < 8; i++) { s.setString(1, "n" + i); s.execute(); }
            }
            c.setAutoCommit(false);
            run(c, "notify news, 'rolled back'"); c.rollback();
            run(c, "notify news, 'committed'"); c.commit();
            c.setAutoCommit(true);
            List<String> heard = new ArrayList<>();
            for (int tries = 0; heard.size() < 9 && tries < 20; tries++) {
                PGNotification[] some = listener.unwrap(PGConnection.class).getNotifications(1000);
                if (some != null) for (PGNotification n : some) heard.add(n.getName() + " " + n.getParameter());
            }
            say(heard);
            settled(c);
            say(ask(listener, "select count(*) from b where id < 10"));
        }
    }

    static void metadata(Connection c) throws Exception {
        DatabaseMetaData m = c.getMetaData();
        say(m.getDatabaseProductName(), m.supportsSavepoints());
        List<String> seen = new ArrayList<>();
        try (ResultSet r = m.getTables(null, "public", "%", new String[] {"TABLE"})) { while (r.next()) seen.add(r.getString("TABLE_NAME")); }
        try (ResultSet r = m.getColumns(null, "public", "t", "%")) { while (r.next()) seen.add(r.getString("COLUMN_NAME") + ":" + r.getString("TYPE_NAME")); }
        try (ResultSet r = m.getPrimaryKeys(null, "public", "t")) { while (r.next()) seen.add(r.getString("PK_NAME")); }
        try (ResultSet r = m.getIndexInfo(null, "public", "b", true, true)) { while (r.next()) seen.add(r.getString("INDEX_NAME")); }
        say(seen);
    }

    static void crowd() throws Exception {
        ExecutorService threads = Executors.newFixedThreadPool(6);
        List<Future<Integer>> all = new ArrayList<>();
        for (int worker = 0; worker < 6; worker++) {
            int base = 200000 + worker * 1000;
            all.add(threads.submit(() -> {
                int missing = 0;
                try (Connection c = connect("prepareThreshold", "1");
                     PreparedStatement write = c.prepareStatement("insert into b values (?, 'own')");
                     PreparedStatement read = c.prepareStatement("select v from b where id = ?")) {
                    for (int i = 0; i < 60; i++) {
                        write.setInt(1, base + i); write.executeUpdate();
                        read.setInt(1, base + i);
                        try (ResultSet r = read.executeQuery()) { if (!r.next()) missing++; }
                    }
                }
                return missing;
            }));
        }
        int missing = 0;
        for (Future<Integer> one : all) missing += one.get();
        threads.shutdown();
        say("missing", missing);
    }

    public static void main(String[] arguments) throws Exception {
        for (String mode : new String[] {"extended", "extendedCacheEverything", "extendedForPrepared", "simple"}) {
            try (Connection c = connect("preferQueryMode", mode, "ApplicationName", "jdbc " + mode)) {
                say(mode);
                run(c, "drop schema public cascade; create schema public");
                statements(c, mode.equals("simple"));
                batches(c);
                cursors(c, mode.equals("simple"));
                transactions(c);
                if (!mode.equals("simple")) copies(c);
                cancels(c);
                notifications(c);
                metadata(c);
                say(ask(c, "show application_name"));
            }
            crowd();
        }
    }
}
