//! A simulated cluster for the properties of freshness: sessions read and write by the same calls as `client::place` and
//! `client::unit`, and what the servers really showed them is the judge.

use std::collections::HashSet;
use std::time::Duration;

use super::{Freshness, Told};
use crate::lsn::{Lsn, Proof, Ticket, Timeline, WalGeometry};
use crate::route::{Ask, Budget, Decision, Level, Open, Want, Why, decide};
use crate::sql::Reason;
use crate::topology::{Heard, NodeId, Observation, Observer, Report};

/// Who routes: we, or somebody who gets it wrong in a way that the oracle must see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Router {
    Ours,
    /// Any replica will do.
    Naive,
    /// Takes the last poll's number instead of the next one's.
    LastPoll,
    /// Takes the server epoch when the unit ends, not that of its connection.
    EpochOfTheEnd,
    /// Uses a connection to a server that may have crashed since it was last polled.
    Unconfirmed,
    /// Shows what a replica answers that has just said that it is not there yet.
    Unproven,
    /// Takes for a write's position what its server has told before it.
    ToldTooSoon,
}

#[derive(Clone, Copy, Debug)]
pub(super) enum Step {
    /// A replica replays up to so many entries.
    Replay(usize, usize),
    Pause(usize),
    /// A server crashes and is back at once; a replica without its last entries.
    Crash(usize, usize),
    /// The poll connection is found broken, and a new one is made.
    Lost(usize),
    /// The next step of a poll: sent, position taken, answered.
    Poll(usize),
    /// A replica is promoted; whether the old primary lives on.
    Promote(usize, bool),
    /// A node becomes a standby of the primary, rewound if its history is another.
    Follow(usize, usize),
    /// The next step of a session: begin (what, is chosen by the number), run a statement, end.
    Session(usize, u8),
}

/// A server. Its log holds the numbers of the writes that it shows.
#[derive(Clone, Debug, Default)]
struct Server {
    log: Vec<u32>,
    timeline: u32,
    writer: bool,
    paused: bool,
    /// Counts its crashes: a connection lives in one of them.
    life: u32,
    probe: u32,
    polls: u64,
    flight: Option<(u64, Duration, Option<Report>)>,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Running {
    node: NodeId,
    life: u32,
    epoch: u32,
    write: bool,
    written: Option<u32>,
    /// What the server has said of itself with its last answer.
    of_standby: bool,
    /// How far its WAL went behind the write, if it was asked.
    told: Option<Lsn>,
    /// What it must have replayed, which it has yet to say.
    proof: Option<Proof>,
}

pub(super) struct Client {
    pub(super) level: Level,
    pub(super) freshness: Freshness,
    pub(super) running: Option<Running>,
    pub(super) waiting: Option<Duration>,
    /// A replica has answered it in vain.
    in_vain: bool,
    told: Option<Told>,
    wrote: Vec<u32>,
    read: Vec<u32>,
}

pub(super) struct World {
    servers: Vec<Server>,
    pub(super) primary: usize,
    observer: Observer,
    pub(super) clients: Vec<Client>,
    lost: HashSet<u32>,
    writes: u32,
    now: Duration,
    router: Router,
    tells: bool,
    /// Servers are asked besides what sessions run.
    asks: bool,
    heard: Heard,
    wait: Duration,
}

/// How far a server with such a log is. No position lies where a page header could be taken off.
fn lsn(server: &Server) -> Lsn {
    Lsn(1000 + server.log.len() as u64)
}

fn id(n: usize) -> NodeId {
    NodeId(n as u16)
}

fn common(a: &[u32], b: &[u32]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

impl World {
    pub(super) fn new(router: Router, tells: bool, asks: bool, wait: u64) -> Self {
        let names: Vec<_> = (0..4).map(|n| format!("n{n}").into()).collect();
        let mut servers = vec![Server { timeline: 1, ..Server::default() }; 4];
        servers[0].writer = true;
        let levels = [Level::Session, Level::ReadYourWrites];
        let client = |n: usize| Client {
            level: levels[n % 2],
            freshness: Freshness::new(n as u16),
            running: None,
            waiting: None,
            in_vain: false,
            told: None,
            wrote: Vec::new(),
            read: Vec::new(),
        };
        Self {
            servers,
            primary: 0,
            observer: Observer::new(&names),
            clients: (0..6).map(client).collect(),
            lost: HashSet::new(),
            writes: 0,
            now: Duration::ZERO,
            router,
            tells,
            asks,
            heard: Heard::default(),
            wait: Duration::from_millis(wait),
        }
    }

    pub(super) fn step(&mut self, step: Step) -> Result<(), String> {
        self.now += Duration::from_millis(1);
        match step {
            Step::Replay(n, k) => self.replay(n, k),
            Step::Pause(n) => self.servers[n].paused ^= true,
            Step::Crash(n, back) => self.crash(n, if n == self.primary { 0 } else { back }),
            Step::Lost(n) => self.break_poll(n),
            Step::Poll(n) => self.poll(n),
            Step::Promote(n, lives) => self.promote(n, lives),
            Step::Follow(n, back) => self.follow(n, back),
            Step::Session(n, what) => return self.client(n, what),
        }
        Ok(())
    }

    fn replay(&mut self, n: usize, k: usize) {
        let log = self.servers[self.primary].log.clone();
        let timeline = self.servers[self.primary].timeline;
        let server = &mut self.servers[n];
        if !server.writer && !server.paused && server.timeline == timeline {
            let from = server.log.len().min(log.len());
            server.log.extend(log[from..].iter().take(k));
        }
    }

    fn crash(&mut self, n: usize, back: usize) {
        let server = &mut self.servers[n];
        server.life += 1;
        if !server.writer {
            server.log.truncate(server.log.len().saturating_sub(back));
        }
    }

    fn break_poll(&mut self, n: usize) {
        self.servers[n].probe = self.servers[n].life;
        self.servers[n].flight = None;
        self.observer.observe(id(n), Observation::Lost);
    }

    fn poll(&mut self, n: usize) {
        let (now, tells) = (self.now, self.tells);
        let server = &mut self.servers[n];
        match server.flight {
            None => {
                server.polls += 1;
                server.flight = Some((server.polls, now, None));
            }
            Some((ticket, sent, None)) if server.probe == server.life => {
                let lsn = lsn(server);
                let report = Report {
                    in_recovery: !server.writer,
                    lsn,
                    flushed: lsn,
                    timeline: Timeline(if tells || server.writer { server.timeline } else { 0 }),
                    system: 7,
                    geometry: WalGeometry::default(),
                };
                server.flight = Some((ticket, sent, Some(report)));
            }
            Some((_, _, None)) => {}
            Some((ticket, sent, Some(report))) => {
                server.flight = None;
                let ticket = Ticket(ticket);
                self.observer.observe(id(n), Observation::Polled { ticket, sent, received: now, report });
                self.tell(n, ticket);
            }
        }
    }

    /// Sessions that wait for a poll keep what it tells until they are woken, as `client::waiters` does it.
    fn tell(&mut self, n: usize, polled: Ticket) {
        let topology = self.observer.topology();
        for client in self.clients.iter_mut().filter(|client| client.told.is_none()) {
            let view = client.freshness.view(&self.heard);
            if view.open.iter().any(|open| open.node == id(n) && open.ticket <= polled) {
                client.told = topology.node(id(n)).and_then(|node| Told::by(node, topology));
            }
        }
    }

    fn promote(&mut self, n: usize, old_lives: bool) {
        if self.servers[n].writer {
            return;
        }
        let newest = self.servers.iter().map(|s| s.timeline).max().unwrap_or_default();
        let old = std::mem::replace(&mut self.primary, n);
        let kept: HashSet<u32> = self.servers[n].log.iter().copied().collect();
        self.lost.extend(self.servers.iter().flat_map(|s| &s.log).filter(|w| !kept.contains(w)));
        self.servers[n].timeline = newest + 1;
        self.servers[n].writer = true;
        if !old_lives {
            self.follow(old, 0);
        }
    }

    fn follow(&mut self, n: usize, back: usize) {
        if n == self.primary {
            return;
        }
        let Server { log, timeline, .. } = self.servers[self.primary].clone();
        let server = &mut self.servers[n];
        if server.writer || common(&server.log, &log) < server.log.len() {
            server.life += 1;
            server.writer = false;
            server.log.truncate(common(&server.log, &log).saturating_sub(back));
        }
        server.timeline = timeline;
    }

    fn client(&mut self, n: usize, what: u8) -> Result<(), String> {
        let Some(mut running) = self.clients[n].running else {
            self.begin(n, what.is_multiple_of(4), what & 16 == 0);
            return Ok(());
        };
        let server = &mut self.servers[usize::from(running.node.0)];
        let alive = server.life == running.life;
        if alive && what.is_multiple_of(2) {
            running.of_standby &= !server.writer;
            if let Some(proof) = running.proof.take() {
                let in_vain = !proof.is_given(Some(lsn(server)));
                let next = in_vain.then_some(Ticket(server.polls + 1));
                self.heard.note(running.node, running.epoch, lsn(server), next);
                if in_vain && self.router != Router::Unproven {
                    self.clients[n].in_vain = true;
                    self.clients[n].running = None;
                    return Ok(());
                }
            }
            self.clients[n].running = Some(running);
            if !running.write {
                let shown = server.log.clone();
                return self.judge(n, shown);
            }
            // A server that has become a standby refuses.
            if running.written.is_none() && server.writer {
                let before = lsn(server);
                self.write(usize::from(running.node.0));
                running.written = Some(self.writes);
                let behind = lsn(&self.servers[usize::from(running.node.0)]);
                let told = if self.router == Router::ToldTooSoon { before } else { behind };
                running.told = Some(told).filter(|_| self.asks && what & 8 == 0);
            }
            self.clients[n].running = Some(running);
            return Ok(());
        }
        self.end(n, running);
        Ok(())
    }

    fn write(&mut self, n: usize) {
        if self.servers[n].writer {
            self.writes += 1;
            self.servers[n].log.push(self.writes);
            if n != self.primary {
                self.lost.insert(self.writes);
            }
        }
    }

    fn begin(&mut self, n: usize, write: bool, may_prove: bool) {
        let topology = self.observer.topology();
        // One session at work counts for more than the round puts up with.
        let mut busy = [0; 4];
        self.clients.iter().filter_map(|c| c.running.as_ref()).for_each(|r| busy[usize::from(r.node.0)] += 6);
        let client = &mut self.clients[n];
        let servers = &self.servers;
        client.told.take().iter().for_each(|told| client.freshness.told(told, topology));
        client.freshness.resolve(topology, |node| Ticket(servers[usize::from(node.0)].polls + 1));
        let want = if write { Want::Primary(Why::Statement(Reason::Write)) } else { Want::Read(Why::Read) };
        let ask = Ask {
            want,
            level: if self.router == Router::Naive { Level::Eventual } else { client.level },
            max_staleness: None,
            replica_wait: self.wait,
            wait_over_budget: false,
            deadline: Duration::from_millis(20),
            waited_since: client.waiting,
            may_prove: self.asks && may_prove && !client.in_vain,
            avoid: &[],
        };
        let (view, busy) = (client.freshness.view(&self.heard), |n: NodeId| busy[usize::from(n.0)]);
        let decision = decide(&ask, &view, topology, self.now, &mut Budget::new(None, 1), busy);
        match decision {
            Decision::Go { node, .. } | Decision::Prove { node, .. } => {
                client.waiting = None;
                client.in_vain = false;
                let proof = match decision {
                    Decision::Prove { proof, .. } => Some(proof),
                    _ => None,
                };
                let server = &self.servers[usize::from(node.0)];
                // Dialling a server that is not the polled one any more fails.
                if server.life == server.probe || self.router == Router::Unconfirmed {
                    let epoch = topology.node(node).unwrap().server_epoch;
                    client.running = Some(Running {
                        node,
                        life: server.life,
                        epoch,
                        write,
                        written: None,
                        of_standby: !server.writer,
                        told: None,
                        proof,
                    });
                }
            }
            Decision::Wait { .. } => client.waiting = client.waiting.or(Some(self.now)),
            _ => client.waiting = None,
        }
    }

    /// The client has the answer to a unit, or its server connection broke.
    fn end(&mut self, n: usize, running: Running) {
        let topology = self.observer.topology();
        let polls = self.servers[usize::from(running.node.0)].polls;
        let next = Ticket(if self.router == Router::LastPoll { polls } else { polls + 1 });
        let epoch = match self.router {
            Router::EpochOfTheEnd => topology.node(running.node).unwrap().server_epoch,
            _ => running.epoch,
        };
        let client = &mut self.clients[n];
        let open =
            Open { node: running.node, ticket: next, server_epoch: epoch, of_standby: running.of_standby };
        if running.write {
            match running.told {
                Some(lsn) => client.freshness.wrote_up_to(lsn, open, topology),
                None => client.freshness.wrote(open, topology),
            }
            client.wrote.extend(running.written);
        } else {
            client.freshness.read_on(open, topology, client.level);
        }
        client.running = None;
    }

    fn judge(&mut self, n: usize, shown: Vec<u32>) -> Result<(), String> {
        let set: HashSet<u32> = shown.iter().copied().collect();
        let missing = |w: &&u32| !set.contains(w) && !self.lost.contains(w);
        let client = &mut self.clients[n];
        if let Some(w) = client.wrote.iter().find(missing) {
            return Err(format!("session {n} does not see its write {w}"));
        }
        if client.level == Level::Session {
            if let Some(w) = client.read.iter().find(missing) {
                return Err(format!("session {n} does not see {w}, which it has read"));
            }
            client.read = shown;
        }
        Ok(())
    }

    /// Everything under way ends, and every node is a standby of the primary, up to date, and polled.
    pub(super) fn settle(&mut self) {
        for n in 0..self.clients.len() {
            if let Some(running) = self.clients[n].running {
                self.end(n, running);
            }
        }
        for n in 0..self.servers.len() {
            self.follow(n, 0);
            self.servers[n].paused = false;
            self.replay(n, usize::MAX);
            if self.servers[n].probe != self.servers[n].life {
                self.break_poll(n);
            }
        }
        self.poll_all();
    }

    pub(super) fn poll_all(&mut self) {
        // A poll may be under way: two of them, three steps each.
        for step in 0..24 {
            self.now += Duration::from_millis(1);
            self.poll(step % 4);
        }
    }

    /// Where a read of this session goes.
    pub(super) fn read(&mut self, n: usize) -> Option<usize> {
        self.begin(n, false, true);
        let running = self.clients[n].running?;
        self.end(n, running);
        Some(usize::from(running.node.0))
    }
}
