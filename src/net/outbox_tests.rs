//! What is written arrives, in its order, whatever becomes of peers and tasks.

use std::future::poll_fn;
use std::io::{self, Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::thread;

use proptest::prelude::*;
use rustix::net::SendFlags;
use socket2::SockRef;

use super::executor::{run, spawn, with_reactor, yield_now};
use super::outbox::LONGEST;
use super::reactor::Watched;
use super::ring::{Ring, SENDS};
use super::source::Direction;

fn pair() -> (UnixStream, Watched) {
    let (peer, own) = UnixStream::pair().unwrap();
    own.set_nonblocking(true).unwrap();
    (peer, Watched::new(own).unwrap())
}

/// In both ways, where there are two.
fn in_both_ways<F: Future<Output = ()>>(test: impl Fn() -> F) {
    for ring in [None, Ring::new().ok()] {
        run(ring, test()).unwrap();
    }
}

/// By a ring, where there is one.
fn where_bytes_are_kept<F: Future<Output = ()>>(test: impl Fn() -> F) {
    if let Ok(ring) = Ring::new() {
        run(Some(ring), test()).unwrap();
    }
}

async fn write(own: &Watched, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        let n = poll_fn(|cx| own.poll_io(Direction::Write, cx, || own.post(bytes))).await?;
        bytes = &bytes[n..];
    }
    Ok(())
}

/// Before long, whoever writes is told that nobody reads any more.
async fn is_told(own: &Watched) {
    let mut tries = 0;
    while write(own, b"y").await.is_ok() {
        yield_now().await;
        tries += 1;
        assert!(tries < 3, "nobody says so");
    }
}

/// Sends past whoever keeps account, until nothing goes any more. How much that was.
fn fill(own: &Watched, piece: usize) -> usize {
    let mut sent = 0;
    while let Ok(n) = rustix::net::send(&**own, &pattern(sent, piece), SendFlags::NOSIGNAL) {
        sent += n;
    }
    sent
}

fn pattern(from: usize, n: usize) -> Vec<u8> {
    (from..from + n).map(|at| u8::try_from(at % 251).unwrap()).collect()
}

#[test]
fn everyone_gets_what_was_written_in_its_order() {
    in_both_ways(async || {
        // More than go by one call.
        let mut pairs: Vec<_> = (0..3 * SENDS).map(|_| pair()).collect();
        for turn in 0..3 {
            for (_, own) in &pairs {
                write(own, &pattern(turn * 10, 4)).await.unwrap();
                write(own, &pattern(turn * 10 + 4, 6)).await.unwrap();
            }
        }
        yield_now().await;
        for (peer, _) in &mut pairs {
            let mut seen = [0; 30];
            peer.read_exact(&mut seen).unwrap();
            assert_eq!(seen, *pattern(0, 30));
        }
    });
}

#[test]
fn who_is_gone_has_sent_what_it_wrote() {
    in_both_ways(async || {
        let mut pairs: Vec<_> = (0..3).map(|_| pair()).collect();
        for (_, own) in &pairs {
            write(own, b"last words").await.unwrap();
        }
        let peers: Vec<_> = pairs.drain(..).map(|(peer, _)| peer).collect();
        yield_now().await;
        for mut peer in peers {
            let mut seen = String::new();
            peer.read_to_string(&mut seen).unwrap();
            assert_eq!(seen, "last words");
        }
    });
    // Also when the thread runs no task any more.
    for ring in [None, Ring::new().ok()] {
        let peers = run(ring, async {
            let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
            for (_, own) in &pairs {
                write(own, b"last words").await.unwrap();
            }
            pairs.into_iter().map(|(peer, _)| peer).collect::<Vec<_>>()
        });
        for mut peer in peers.unwrap() {
            let mut seen = String::new();
            peer.read_to_string(&mut seen).unwrap();
            assert_eq!(seen, "last words");
        }
    }
}

#[test]
fn who_waits_until_it_is_sent_can_go() {
    where_bytes_are_kept(async || {
        let (mut peer, own) = pair();
        let (mut other, second) = pair();
        // Its room is all but full, of which only a try finds out.
        let mut written = fill(&own, 1000);
        write(&own, &pattern(written, 4000)).await.unwrap();
        write(&second, b"x").await.unwrap();
        written += 4000;
        let reader = thread::spawn(move || {
            let mut seen = Vec::new();
            peer.read_to_end(&mut seen).unwrap();
            seen
        });
        poll_fn(|cx| own.poll_sent(cx)).await.unwrap();
        drop(own);
        yield_now().await;
        assert!(reader.join().unwrap() == pattern(0, written));
        other.read_exact(&mut [0]).unwrap();
    });
}

#[test]
fn who_writes_to_nobody_is_told() {
    in_both_ways(async || {
        let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
        for (_, own) in &pairs {
            write(own, b"x").await.unwrap();
        }
        let owns: Vec<_> = pairs.into_iter().map(|(_, own)| own).collect();
        yield_now().await;
        for own in &owns {
            is_told(own).await;
            // And it stays so, also for what is not kept, and who waits for it to be sent.
            assert!(write(own, &[0; 2 * LONGEST]).await.is_err());
            assert!(write(own, b"z").await.is_err() || poll_fn(|cx| own.poll_sent(cx)).await.is_err());
        }
    });
}

#[test]
fn who_waits_for_an_answer_to_what_was_lost_sees_the_end() {
    in_both_ways(async || {
        let (mut peer, own) = pair();
        write(&own, b"kept").await.unwrap();
        yield_now().await;
        peer.read_exact(&mut [0; 4]).unwrap();
        // A send that fails for want of memory says nothing of the connection, which is still open.
        with_reactor(|reactor| {
            reactor.outbox().note(&own.0, b"lost".to_vec(), Err(io::ErrorKind::OutOfMemory.into()));
        });
        let read = poll_fn(|cx| {
            own.poll_io(Direction::Read, cx, || {
                own.try_io(Direction::Read, |fd| Ok(rustix::io::read(fd, &mut [0; 8])?))
            })
        });
        assert_eq!(read.await.unwrap(), 0);
        assert_eq!(write(&own, b"behind it").await.unwrap_err().kind(), io::ErrorKind::OutOfMemory);
        is_told(&own).await;
        assert_eq!(peer.read(&mut [0; 8]).unwrap(), 0);
    });
}

#[test]
fn who_waits_for_room_goes_on_when_it_is_there() {
    where_bytes_are_kept(async || {
        let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let own = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        own.set_nonblocking(true).unwrap();
        let own = Watched::new(own).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        let (_other, second) = pair();
        let mut written = fill(&own, 10_000);
        // What can be kept until there is room. The operating system says so once, and nothing else wakes the thread.
        write(&own, &pattern(written, 4000)).await.unwrap();
        write(&second, b"x").await.unwrap();
        written += 4000;
        yield_now().await;
        assert!(own.0.outgoing.is_held());
        let (said, told) = std::sync::mpsc::channel();
        let reader = thread::spawn(move || {
            let mut seen = vec![0; written];
            peer.read_exact(&mut seen).unwrap();
            assert!(seen == pattern(0, written));
            peer.set_read_timeout(Some(std::time::Duration::from_secs(20))).unwrap();
            let heard = peer.read_exact(&mut [0]).is_ok();
            said.send(heard).unwrap();
            // Whoever sleeps is woken, to be told so.
            let _ = peer.write_all(b"x");
        });
        write(&own, b"y").await.unwrap();
        yield_now().await;
        assert!(told.recv().unwrap(), "it slept");
        reader.join().unwrap();
    });
}

/// What the tests of a ring would not find out: that there is none, where there should be.
#[test]
fn there_is_a_ring_where_the_operating_system_has_one_for_us() {
    let read = |path| std::fs::read_to_string(path).unwrap_or_default();
    let release = read("/proc/sys/kernel/osrelease");
    let numbers: Vec<u32> = release.split(['.', '-']).map_while(|n| n.parse().ok()).collect();
    let forbidden = !matches!(read("/proc/sys/kernel/io_uring_disabled").trim(), "" | "0");
    let filtered =
        !read("/proc/self/status").lines().any(|line| line.split_whitespace().eq(["Seccomp:", "0"]));
    if numbers >= vec![5, 13] && !forbidden && !filtered {
        assert!(Ring::new().is_ok(), "{:?}", Ring::new().err());
    }
}

#[test]
fn who_held_bytes_back_and_goes_leaves_an_error() {
    where_bytes_are_kept(async || {
        let (peer, own) = pair();
        let (_other, second) = pair();
        fill(&own, 1000);
        write(&own, &[0; 4000]).await.unwrap();
        write(&second, b"x").await.unwrap();
        yield_now().await;
        spawn(async move {
            yield_now().await;
            drop(peer);
        });
        is_told(&own).await;
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever is written, and however slowly it is read.
    #[test]
    fn nothing_is_lost_or_changes_its_place(
        lengths in proptest::collection::vec((0..3usize, prop_oneof![1..200usize, 1..6000usize]), 1..120),
        room in 2_000..20_000usize,
        reads in 100..5_000usize,
    ) {
        in_both_ways(async || {
            let pairs: Vec<_> = (0..3).map(|_| pair()).collect();
            let (mut owns, mut readers) = (Vec::new(), Vec::new());
            for (mut peer, own) in pairs {
                SockRef::from(&*own).set_send_buffer_size(room).unwrap();
                owns.push((own, 0));
                readers.push(thread::spawn(move || {
                    let (mut seen, mut bytes) = (Vec::new(), vec![0; reads]);
                    while let n @ 1.. = peer.read(&mut bytes).unwrap() {
                        seen.extend_from_slice(&bytes[..n]);
                        thread::yield_now();
                    }
                    seen
                }));
            }
            for (to, length) in &lengths {
                let (own, written) = &mut owns[*to];
                write(own, &pattern(*written, *length)).await.unwrap();
                *written += length;
            }
            let mut all = Vec::new();
            for (own, written) in owns {
                poll_fn(|cx| own.poll_sent(cx)).await.unwrap();
                all.push(written);
            }
            // They are closed in the next turn.
            yield_now().await;
            for (reader, written) in readers.into_iter().zip(all) {
                assert!(reader.join().unwrap() == pattern(0, written));
            }
        });
    }
}
